"""An engine, and the agents that it launches, that tell how long each stage took. What they do is untouched."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from orchestrator.domain.errors import EngineUnavailableError, OrchestratorError
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.model import CellOrder, CellReport, Namespace, SandboxRecord
from orchestrator.domain.ports import Agent, AgentHello, Engine, OwnedContainer, SandboxImage, Saving
from orchestrator.domain.snapshots import (
    DamagedPiece,
    Piece,
    RestoreOrder,
    RestoreReport,
    SaveFailedError,
    SaveOrder,
    SaveReport,
)
from orchestrator.domain.telemetry import Subject, Telemetry

T = TypeVar("T")


class MeasuredEngine:
    """The `Engine` port."""

    def __init__(self, engine: Engine, telemetry: Telemetry) -> None:
        self._engine = engine
        self._telemetry = telemetry

    async def prepare(self, environment: str | None = None) -> SandboxImage:
        """As the engine does."""
        return await self._counted(self._engine.prepare(environment))

    async def launch(self, record: SandboxRecord, image: SandboxImage) -> tuple[str, Agent]:
        """As the engine does, timed."""
        with self._telemetry.stage("start", Subject()):
            handle, agent = await self._counted(self._engine.launch(record, image))
        return handle, MeasuredAgent(agent, self._telemetry)

    async def limit(self, sandbox_id: str, profile: SandboxProfile) -> None:
        """As the engine does."""
        await self._counted(self._engine.limit(sandbox_id, profile))

    async def adopt(self, record: SandboxRecord) -> tuple[str, Agent]:
        """As the engine does."""
        environment, agent = await self._counted(self._engine.adopt(record))
        return environment, MeasuredAgent(agent, self._telemetry)

    async def destroy(self, sandbox_id: str) -> None:
        """As the engine does."""
        await self._counted(self._engine.destroy(sandbox_id))

    async def create_unanswered(self, sandbox_id: str) -> bool:
        """As the engine does."""
        return await self._engine.create_unanswered(sandbox_id)

    async def containers(self) -> Sequence[OwnedContainer]:
        """As the engine does."""
        return await self._counted(self._engine.containers())

    async def close(self) -> None:
        """As the engine does."""
        await self._engine.close()

    async def _counted(self, request: Awaitable[T]) -> T:
        try:
            return await request
        except EngineUnavailableError:
            self._telemetry.engine_failed()
            raise


class MeasuredAgent:
    """The `Agent` port."""

    def __init__(self, agent: Agent, telemetry: Telemetry) -> None:
        self._agent = agent
        self._telemetry = telemetry
        self._subject = Subject()

    @property
    def hello(self) -> AgentHello:
        """The agent's."""
        return self._agent.hello

    @property
    def lost(self) -> str | None:
        """The agent's."""
        return self._agent.lost

    @property
    def lost_to_memory(self) -> bool:
        """The agent's."""
        return self._agent.lost_to_memory

    async def claim(self, session: str, incarnation: int) -> None:
        """As the agent does, timed."""
        self._subject = Subject(session=session, incarnation=incarnation)
        with self._telemetry.stage("claim", self._subject):
            await self._agent.claim(session, incarnation)

    async def execute(self, order: CellOrder) -> CellReport:
        """As the agent does, timed and counted."""
        subject = Subject(None, self._subject.session, self._subject.incarnation, order.execution)
        began = self._telemetry.mark().at
        try:
            with self._telemetry.stage("execute", subject):
                report = await self._agent.execute(order)
        except OrchestratorError as failure:
            if failure.code == "sandbox_lost" and self._agent.lost is not None:
                self._telemetry.executed("sandbox_lost", subject, self._telemetry.mark().at - began)
            raise
        self._telemetry.executed(report.outcome, subject, report.duration)
        return report

    async def result(self, execution: int, *, seconds: float) -> CellReport | None:
        """As the agent does."""
        return await self._agent.result(execution, seconds=seconds)

    def interrupt(self, execution: int) -> None:
        """As the agent does."""
        self._agent.interrupt(execution)

    async def list_variables(self) -> Namespace:
        """As the agent does."""
        return await self._agent.list_variables()

    async def clear(self) -> None:
        """As the agent does."""
        await self._agent.clear()

    async def save(self, order: SaveOrder) -> Saving:
        """As the agent does; timed to the end of what it sends."""
        began = self._telemetry.stage("snapshot", self._subject)
        began.__enter__()
        try:
            saving = await self._agent.save(order)
        except BaseException as failure:
            began.__exit__(type(failure), failure, failure.__traceback__)
            raise

        def ended(failure: BaseException | None) -> None:
            began.__exit__(None, failure, None)

        return _MeasuredSaving(saving, ended)

    async def restore(self, order: RestoreOrder, pieces: AsyncIterator[Piece | DamagedPiece]) -> RestoreReport:
        """As the agent does, timed."""
        with self._telemetry.stage("wake", self._subject):
            return await self._agent.restore(order, pieces)

    async def close(self) -> None:
        """As the agent does."""
        await self._agent.close()


class _MeasuredSaving:
    """The `Saving` port. It ends with `abandon`, which is called in any case; without a report it has failed."""

    def __init__(self, saving: Saving, ended: Callable[[BaseException | None], None]) -> None:
        self._saving = saving
        self._ended: Callable[[BaseException | None], None] | None = ended
        self._reported = False

    def pieces(self) -> AsyncGenerator[Piece, None]:
        """The agent's."""
        return self._saving.pieces()

    async def report(self) -> SaveReport:
        """The agent's."""
        report = await self._saving.report()
        self._reported = True
        return report

    def abandon(self) -> None:
        """As the agent does."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(None if self._reported else SaveFailedError("It was given up."))
        self._saving.abandon()
