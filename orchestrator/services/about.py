"""What a line of the log is about: ids as fields of their own, by which lines of one session are found."""

from collections.abc import Mapping

from orchestrator.domain.model import Session


def about(session: Session | str, execution: int | None = None) -> Mapping[str, object]:
    """For `extra`: tenant, session by its key, incarnation, and the execution where it is about one. Where only a key
    is given, the log adds the tenant if it has seen both together.
    """
    if isinstance(session, str):
        return {"session": session, "execution": execution}
    whose = {"tenant": session.tenant, "session": session.key, "incarnation": session.incarnation}
    return {**whose, "execution": execution}
