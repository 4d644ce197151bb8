"""What to say of a namespace that is gone. Pure."""

from collections.abc import Sequence

from orchestrator.domain.model import Loss

# As many names as somebody reads; the rest is counted.
MAX_LOSS_NAMES = 200
_MAX_CAUSE = 1_000


def loss_of(first: int, last: int, cause: str, names: Sequence[str]) -> Loss:
    """The loss of those executions. `names` in the order of their binding; the last ones are listed."""
    listed = tuple(names[-MAX_LOSS_NAMES:])
    return Loss(first, last, cause, listed, len(names) - len(listed))


def joined(before: Loss | None, after: Loss) -> Loss:
    """Two losses that nobody has been told of, told as one; it spans what was saved between them, if anything was."""
    if before is None:
        return after
    cause = before.cause if after.cause in before.cause else f"{before.cause}; {after.cause}"
    names = list(dict.fromkeys((*before.names, *after.names)))
    # What fell to a savepoint first and to the snapshot below it next has lost older ones the second time.
    both = loss_of(min(before.first, after.first), max(before.last, after.last), cause[:_MAX_CAUSE], names)
    return Loss(both.first, both.last, both.cause, both.names, both.unlisted + before.unlisted + after.unlisted)
