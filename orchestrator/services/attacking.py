"""Runs hostile cells in one sandbox, one after the other, and says of each whether it got anywhere."""

import logging

from orchestrator.domain.attacking import AFTERWARDS, judged_cell, judged_trial, plan_attack
from orchestrator.domain.errors import NamespaceLostError
from orchestrator.domain.examination import Attacked
from orchestrator.domain.model import CellOrder, CellReport
from orchestrator.domain.ports import Agent

logger = logging.getLogger(__name__)

_CELL_SECONDS = 10.0
_GRACE = 0.5
_KEPT = 64 * 1024  # bytes of output


class Attack:
    """`agent` is of a sandbox that is nobody's, claimed; `prelude` is what the cells have at hand."""

    def __init__(self, agent: Agent, prelude: str) -> None:
        self._agent = agent
        self._prelude = prelude
        self._execution = 0

    async def run(self, *, machine: str, landlock: int) -> tuple[Attacked, ...]:
        """All that fit this kernel; raises SandboxLostError where the sandbox did not live through one."""
        plan = plan_attack(machine=machine, landlock=landlock)
        found = list(plan.left_out)
        begun = await self._cell(self._prelude)
        if begun.outcome != "ok":
            logger.warning("the attack's own tools do not load: %s", begun.traceback)
        found += [judged_cell(cell, await self._cell(cell.code)) for cell in plan.cells]
        for trial in plan.trials:
            report = await self._cell(trial.code, limit=trial.limit)
            found.append(judged_trial(trial, report, await self._cell(AFTERWARDS[0])))
        return tuple(found)

    async def _cell(self, code: str, *, limit: float = _CELL_SECONDS) -> CellReport:
        """A worker that has ended is told of once, by the next cell, which is then run in another."""
        self._execution += 1
        order = CellOrder(self._execution, code, limit, _GRACE, _KEPT, _KEPT)
        try:
            return await self._agent.execute(order)
        except NamespaceLostError:
            return await self._agent.execute(order)
