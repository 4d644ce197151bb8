"""What a namespace holds, from the live sandbox, from the last snapshot, or from what the answers said. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.domain.model import Namespace, Variable
from orchestrator.domain.snapshots import SavedListing, SavedName
from orchestrator.services.saving_notes import refused_names, refused_notes

_MOST_BOUND = 1_000  # names of a session that the records keep
_UNKNOWN = "unknown"  # the type of a name that was bound while nobody could ask


def with_notes(live: Namespace, listing: SavedListing | None, notes: Sequence[str]) -> Namespace:
    """What the sandbox says, and which of it no snapshot holds."""
    names = {variable.name for variable in live.variables}
    refused = [] if listing is None else [name for name in refused_names(listing.names) if name.name in names]
    told = dict.fromkeys((*notes, *live.notes, *refused_notes(refused)))
    return replace(live, notes=tuple(told))


def saved_namespace(listing: SavedListing | None, notes: Sequence[str]) -> Namespace:
    """What the next call will find, without waking the session for it."""
    if listing is None:
        return Namespace((), (), tuple(notes))
    saved = _listed(listing)
    told = [*notes, f"Not in a sandbox now; this is what was saved after execution {listing.execution}."]
    if listing.unlisted:
        told.append(f"{listing.unlisted} more names are not listed.")
    told += refused_notes(refused_names(listing.names))
    return Namespace(
        variables=tuple(_variable(name) for name in saved if name.kind != "module"),
        imports=tuple(_variable(name) for name in saved if name.kind == "module"),
        notes=tuple(dict.fromkeys(told)),
    )


def last_known(listing: SavedListing | None, bound: Mapping[str, int]) -> Namespace:
    """While a call runs: what was saved, and the names that later cells are known to have bound."""
    saved_through = 0 if listing is None else listing.execution
    saved = {} if listing is None else {name.name: name for name in _listed(listing)}
    later = {name for name, execution in bound.items() if execution > saved_through}
    # A name that no answer has left is gone since then; of very many names not all answers are kept.
    is_all = len(bound) < _MOST_BOUND
    kept = [name for name in saved.values() if name.name in bound or name.kind == "module" or not is_all]
    variables = [_variable(name) for name in kept if name.kind != "module" and name.name not in later]
    variables += [Variable(name, _UNKNOWN, None) for name in sorted(later)]
    imports = [_variable(name) for name in kept if name.kind == "module" and name.name not in later]
    note = "Something is under way in the session: this is the last known state"
    since = f", saved after execution {saved_through}" if saved_through else ""
    more = "; what was bound later is listed without its type." if later else "."
    return Namespace(tuple(variables), tuple(imports), (note + since + more,))


def _listed(listing: SavedListing) -> Sequence[SavedName]:
    """What is saved, by the rule of live listings: names with a leading underscore are nobody's variables."""
    return [name for name in listing.names if name.status != "refused" and not name.name.startswith("_")]


def _variable(name: SavedName) -> Variable:
    return Variable(name.name, name.type, name.size_bytes)
