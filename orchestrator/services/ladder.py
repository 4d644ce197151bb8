"""Where a session goes on whose worker was lost: the newer of the savepoint and the head. Pure."""

from orchestrator.domain.model import ResumedFrom


def resumed_from(resumed: int | None, held: int | None, saved: int | None) -> ResumedFrom:
    """`resumed` is the execution after which the copy was forked that has taken over (None: none has; 0: before any),
    `held` the execution whose namespace the worker had been given, `saved` the one that the head holds (None: nothing).
    """
    savepoint = held if resumed == 0 else resumed
    if resumed is None or (saved is not None and (savepoint is None or savepoint < saved)):
        return ResumedFrom("snapshot", saved)
    return ResumedFrom("savepoint", savepoint)
