"""What every session works with, and within."""

from dataclasses import dataclass, field

from orchestrator.domain.ageing import AgeingPolicy
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.domain.model import CellOrder
from orchestrator.domain.plan import SavingPolicy
from orchestrator.domain.ports import Clock, Records
from orchestrator.domain.snapshot_ports import Pieces, SnapshotRecords
from orchestrator.domain.telemetry import SILENCE, Telemetry
from orchestrator.domain.upkeep import UpkeepRecords
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.services.saving_limits import SavingLimits
from orchestrator.services.spent import Spent
from orchestrator.services.tasks import Tasks


@dataclass(slots=True)
class Limits:
    """What bounds every session. Times in seconds, sizes in bytes. One object for all: a reload changes it in place."""

    time_limit: float = 60.0  # where the caller names none
    max_time_limit: float = 3600.0
    grace: float = 2.0
    output_head: int = 48 * 1024
    output_tail: int = 16 * 1024
    max_code: int = 1024 * 1024
    queue: int = 16
    profile: SandboxProfile = field(default_factory=SandboxProfile)
    policy: SavingPolicy = field(default_factory=SavingPolicy)
    saving: SavingLimits = field(default_factory=SavingLimits)
    ageing: AgeingPolicy = field(default_factory=AgeingPolicy)

    def take_over(self, other: "Limits") -> None:
        """Be as the other one from now on, in what no sandbox that runs was built with."""
        self.time_limit, self.grace, self.max_code = other.time_limit, other.grace, other.max_code
        self.output_head, self.output_tail = other.output_head, other.output_tail
        self.policy, self.ageing = other.policy, other.ageing

    @property
    def longest_call(self) -> float:
        """Seconds that a cell may take until it has been stopped."""
        return self.max_time_limit + self.grace

    def order(self, execution: int, code: str, time_limit: float) -> CellOrder:
        """What the agent is told."""
        return CellOrder(execution, code, time_limit, self.grace, self.output_head, self.output_tail)


@dataclass(frozen=True, slots=True)
class Equipment:
    """What every session works with."""

    records: Records
    snapshots: SnapshotRecords
    pieces: Pieces
    sandboxes: Sandboxes
    tasks: Tasks
    clock: Clock
    limits: Limits
    upkeep: UpkeepRecords
    telemetry: Telemetry = SILENCE
    spent: Spent = field(default_factory=Spent)
