"""From a namespace to groups: what is saved, what is refused and why, and who is stored with whom.

1. Every variable is pickled alone, and so is every function and class of the session that is met on the way.
2. Those that reached a common object are joined; so are groups that need each other's code in a circle.
3. A group of one keeps its bytes; a larger one is pickled once more, as one list.

The order in which things are dropped at the session's limit: the largest group first, and code last of all. So as many
names as possible stay; what needs code that was dropped goes with it.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any

from agent import pristine
from agent.snapshot import rebuild
from agent.snapshot.catalog import Catalog, is_importable_module, is_session_code
from agent.snapshot.dump import Dump, NamespaceOnly, TooLargeError
from agent.snapshot.nodes import Group, Limits, Node, is_saved, too_large
from agent.snapshot.oddities import C_DATA
from agent.snapshot.sharing import Counting, Union, in_loading_order
from agent.snapshot.whereabouts import path_to, words_for

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_KEPT_IN_MEMORY = 64 * 1024 * 1024  # bytes of pickles kept from the first pass; the rest is pickled again when stored
_ATOMS = frozenset({int, float, complex, str, bytes, bool, type(None)})


class Grouping:
    """One pass over a namespace. `announce` is told whose turn it is; `refused` are labels that are not tried."""

    def __init__(
        self,
        namespace: dict[str, Any],
        limits: Limits,
        *,
        announce: Callable[[str], None] = lambda _label: None,
        beat: Callable[[], None] = lambda: None,
        refused: dict[str, str] | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.catalog = Catalog(namespace)
        self.limits = limits
        self.order: list[tuple[str, Any]] = [pair for pair in namespace.items() if is_saved(*pair)]
        self.modules: dict[str, str] = {}  # names bound to modules that can be imported
        self.nodes: dict[str, Node] = {}
        self.refused = dict(refused or {})
        self._state = state or {}
        self._announce, self._beat = announce, beat
        self._kept = 0

    def run(self) -> list[Group]:
        """The groups, in the order in which they load."""
        self._pickle_alone()
        self._crop()
        self._refuse_shared_memory()
        self._refuse_large()
        self._refuse_dependents()
        groups = self._join()
        for group in groups:
            self._pickle_group(group)
        groups = self._within_limit([group for group in groups if group.nodes])
        self._release()
        return groups

    # one by one

    def _pickle_alone(self) -> None:
        for name, value in self.order:
            if type(name) is not str:
                continue
            if issubclass(type(value), ModuleType) and is_importable_module(value):
                self.modules[name] = value.__name__
                continue
            slot = self.catalog.slot_of(value) if is_session_code(value, self.catalog) else None
            if slot is None:
                self._add(Node(f"name {name}", value, name=name))
        for key, value in self._state.items():
            self._add(Node(f"state {key}", value, state=key))
        done = 0
        while done < len(self.catalog.code):
            for slot, code in list(self.catalog.code.items())[done:]:
                done += 1
                self._add(Node(f"code {slot}", code, slot=slot))

    def _add(self, node: Node) -> None:
        self.nodes[node.label] = node
        node.refusal = self.refused.get(node.label)
        if node.refusal is None:
            if type(node.root) not in _ATOMS:
                self._announce(node.label)
            self._pickle_node(node)

    def _pickle_node(self, node: Node) -> None:
        members = frozenset({id(node.root)} if node.slot else ())
        dump = Dump(self.catalog, members, self.limits.variable, self._beat)
        try:
            dump.run([node.root])
        except TooLargeError:
            node.size = dump.size
            node.refusal = too_large(self.limits.variable)
        except BaseException as error:
            node.refusal = self._explain(node, dump, error)
        else:
            self._keep(node, dump)

    def _keep(self, node: Node, dump: Dump) -> None:
        if self._kept + dump.size <= _KEPT_IN_MEMORY:
            self._kept += dump.size
        else:
            dump.parts.clear()
        node.dump, node.size = dump, dump.total

    def _explain(self, node: Node, dump: Dump, error: BaseException) -> str:
        reason = words_for(error)
        culprit = dump.visited[-1] if dump.visited else node.root
        if culprit is node.root:
            return reason
        path = path_to(node.root, culprit, node.name or node.slot or "")
        return reason if path is None else f"{path}: {reason}"

    # arrays that only views hold

    def _crop(self) -> None:
        dumps = [node.dump for node in self.nodes.values() if node.dump is not None and node.dump.views]
        if not dumps:
            return
        from agent.snapshot.arrays import crops_of

        views = [pair for dump in dumps for pair in dump.views]
        roots = {id(root) for root, _ in views}
        held = set()
        for dump in (node.dump for node in self.nodes.values() if node.dump is not None):
            through_views = [id(root) for root, _ in dump.views]
            met = [id(one) for one in dump.visited if id(one) in roots]
            held |= {root for root in set(met) if met.count(root) > through_views.count(root)}
        self.catalog.crops = crops_of(views, held)
        for node in self.nodes.values():
            if node.dump is not None and any(id(root) in self.catalog.crops for root, _ in node.dump.views):
                alive = node.dump.visited
                self._pickle_node(node)
                if node.dump is not None:
                    node.dump.visited += alive

    # refusals

    def _refuse_shared_memory(self) -> None:
        """Arrays on a library's memory are stored as copies, which must not overlap where somebody could write."""
        ranges = []
        for node in self.nodes.values():
            if node.dump is not None and node.dump.foreign:
                # What an object shows of its own memory while it is pickled is its own affair.
                inside = set(map(id, node.dump.visited))
                for low, high, array, owner in node.dump.foreign:
                    if isinstance(owner, C_DATA) and self._is_reached(owner):
                        node.refusal = "it shares the memory of a ctypes object"
                    elif id(owner) not in inside:
                        ranges.append((low, high, id(array), array, node))
        ranges.sort(key=lambda one: one[:3])
        for (_, high, _, array, node), (low, _, _, following, next_node) in pairwise(ranges):
            if low < high and array is not following and (array.flags.writeable or following.flags.writeable):
                for one, other in ((node, next_node), (next_node, node)):
                    one.refusal = f"it shares memory of a library with {other.label.partition(' ')[2]!r}"

    def _is_reached(self, of: Any) -> bool:
        dumps = [node.dump for node in self.nodes.values() if node.dump is not None]
        return any(of is one for dump in dumps for one in dump.visited)

    def _refuse_large(self) -> None:
        for node in self.nodes.values():
            if node.refusal is None and node.size is not None and node.size > self.limits.variable:
                node.refusal = too_large(self.limits.variable, node.size)

    def _refuse_dependents(self) -> None:
        again = True
        while again:
            again = False
            for node in self.nodes.values():
                for slot in node.dump.needs if node.refusal is None and node.dump else ():
                    lost = self.nodes[f"code {slot}"].refusal
                    if lost is not None:
                        node.refusal = f"it needs {slot!r}, which is not saved: {lost}"[:400]
                        again = True
                        break

    # together

    def _join(self) -> list[Group]:
        nodes = [node for node in self.nodes.values() if node.refusal is None]
        rebuild.current = NamespaceOnly(self.catalog.namespace)  # type: ignore[assignment]
        counting = Counting(self.catalog, map(id, rebuild.live_containers()))
        for node in nodes:
            if node.dump is not None:
                node.reached = counting.counted(node.dump.visited[1:])
                if node.slot is not None:
                    node.reached |= {id(node.root), *node.dump.methods()}
        union = Union(len(nodes))
        union.join_sharing([node.reached for node in nodes])
        sets: dict[int, list[Node]] = {}
        for index, node in enumerate(nodes):
            sets.setdefault(union.find(index), []).append(node)
            node.reached = set()
        home = {node.slot: key for key, set_ in sets.items() for node in set_ if node.slot is not None}

        def needs(key: int) -> list[int]:
            slots = [slot for node in sets[key] if node.dump is not None for slot in node.dump.needs]
            return list(dict.fromkeys(home[slot] for slot in slots if home[slot] != key))

        groups: dict[int, Group] = {}
        ordered = []
        # Code first: what user code runs while values load finds the session's functions.
        code_first = sorted(sets, key=lambda key: all(node.slot is None for node in sets[key]))
        for connected in in_loading_order(code_first, needs):
            members = [node for key in sorted(connected) for node in sets[key]]
            group = Group(sorted(members, key=lambda node: node.slot is None))
            needed = [groups[other] for key in connected for other in needs(key) if other not in connected]
            group.needs = list(dict.fromkeys(needed))
            groups.update(dict.fromkeys(connected, group))
            ordered.append(group)
        return ordered

    def _pickle_group(self, group: Group) -> None:
        if len(group.nodes) == 1 and group.nodes[0].dump is not None:
            group.dump = group.nodes[0].dump
        else:
            self._announce(group.nodes[0].label)
            try:
                group.dump = self.dump_of(group)
            except BaseException as error:
                for node in group.nodes:
                    node.refusal = words_for(error)
                group.nodes = []
                return
            if self._kept + group.dump.size <= _KEPT_IN_MEMORY:
                self._kept += group.dump.size
            else:
                group.dump.parts.clear()
        group.size = group.dump.total

    def dump_of(self, group: Group) -> Dump:
        """Pickle a group. Raises what user code raises."""
        dump = Dump(self.catalog, frozenset(id(node.root) for node in group.code), beat=self._beat)
        dump.run([node.root for node in group.nodes])
        return dump

    def _within_limit(self, groups: list[Group]) -> list[Group]:
        total = sum(group.size for group in groups)
        dropped: set[Group] = set()
        for group in sorted(groups, key=lambda group: (bool(group.code), -group.size)):
            if total <= self.limits.session:
                break
            total -= group.size
            dropped.add(group)
            for node in group.nodes:
                node.refusal = f"too large: the session's limit of {self.limits.session:,} bytes is reached"
        return self.without(groups, dropped)

    def without(self, groups: list[Group], dropped: set[Group]) -> list[Group]:
        """Those that are left when some are not saved: what needs code of these goes with them."""
        self._refuse_dependents()
        kept = []
        for group in groups:
            if group in dropped:
                continue
            if dropped.isdisjoint(group.needs):
                kept.append(group)
                continue
            dropped.add(group)
            reason = next(node.refusal for node in group.nodes if node.refusal is not None)
            for node in group.nodes:
                node.refusal = node.refusal or reason
        return kept

    def _release(self) -> None:
        for node in self.nodes.values():
            if node.dump is not None:
                node.dump.visited = []

    def remarks(self) -> Iterator[tuple[str, str]]:
        """(label, what the user should know though it is saved)."""
        for node in self.nodes.values():
            if node.dump is not None and node.refusal is None:
                for text in node.dump.remarks:
                    yield node.label, text
