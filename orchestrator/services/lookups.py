"""What is known of sessions without asking their sandboxes: nothing is woken, run or changed."""

from collections.abc import Callable

from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.identifiers import session_id_of
from orchestrator.domain.kept_results import KeptExecution, result_of_text
from orchestrator.domain.model import CellText, Namespace, Session
from orchestrator.services.checks import not_found
from orchestrator.services.equipment import Equipment
from orchestrator.services.listings import last_known


class Lookups:
    """Every method raises SessionNotFoundError where there is no such session. `fresh` says what an execution of a
    session in use was answered that is not in the session's file yet.
    """

    def __init__(
        self, equipment: Equipment, fresh: Callable[[Session, int], CellText | None] = lambda _session, _number: None
    ) -> None:
        self._records = equipment.records
        self._snapshots = equipment.snapshots
        self._pieces = equipment.pieces
        self._fresh = fresh

    async def variables(self, session_id: str, *, tenant: str) -> Namespace:
        """What the session's namespace holds by its last snapshot and the answers since."""
        session = await self._find(session_id, tenant)
        listing = await self._snapshots.saved_listing_of(session.key)
        return last_known(listing, await self._records.binding_executions(session.key))

    async def result(self, session_id: str, execution: int, *, tenant: str) -> KeptExecution:
        """What became of an execution; raises InvalidRequestError for one that the session never had."""
        session = await self._find(session_id, tenant)
        if not 1 <= execution <= session.executions:
            raise InvalidRequestError(
                f"The session has had no execution {execution}.",
                hint=f"It has had {session.executions}, counted from 1; answers say their numbers.",
            )
        return await self._kept(session, execution)

    async def kept(self, session_id: str, execution: int, *, tenant: str, key: str) -> KeptExecution | None:
        """The same; None where the session of that key is gone, whatever bears its name now."""
        session = await self._records.find_session(tenant, session_id)
        return None if session is None or session.key != key else await self._kept(session, execution)

    async def _kept(self, session: Session, execution: int) -> KeptExecution:
        rows = await self._records.executions(session.tenant, session.session_id)
        row = next((row for row in rows if row.number == execution), None)
        text = self._fresh(session, execution)
        if text is None:
            text = next(iter(await self._pieces.cells(session.key, [execution])), None)
        return KeptExecution(
            session_id=session.session_id,
            execution=execution,
            outcome=None if row is None else row.outcome,
            started_at=None if row is None else row.started_at,
            finished_at=None if row is None else row.finished_at,
            result=None if text is None else result_of_text(text, session.session_id),
        )

    async def _find(self, session_id: str, tenant: str) -> Session:
        session = await self._records.find_session(tenant, session_id_of(session_id))
        if session is None:
            raise not_found(session_id)
        return session
