"""What the settings say of sessions and of snapshots, in the words of those who keep to it."""

from orchestrator.adapters.store.pieces.store import PiecesPolicy
from orchestrator.domain.ageing import AgeingPolicy
from orchestrator.domain.plan import SavingPolicy
from orchestrator.services.equipment import Limits
from orchestrator.services.saving_limits import SavingLimits
from orchestrator.settings import Settings


def limits_of(settings: Settings) -> Limits:
    """What the settings say of each session."""
    return Limits(
        time_limit=settings.default_time_limit,
        grace=settings.interrupt_grace,
        output_head=settings.output_head,
        output_tail=settings.output_tail,
        max_code=settings.max_code,
        queue=settings.queue_limit,
        profile=settings.profile,
        policy=SavingPolicy(
            snapshot_after=settings.snapshot_after,
            snapshot_max_age=settings.snapshot_max_age,
            hibernate_after=settings.hibernate_after,
        ),
        ageing=AgeingPolicy(
            inactive_after=settings.inactive_after or None,
            expire_after=settings.expire_after or None,
            delete_after=settings.delete_after or None,
        ),
        saving=SavingLimits(
            variable=settings.variable_limit,
            session=settings.session_limit,
            restore_bound=settings.restore_bound,
            most_bytes=settings.most_of_a_save,
        ),
    )


def pieces_policy_of(settings: Settings) -> PiecesPolicy:
    """What the settings say of snapshots on the disk."""
    return PiecesPolicy(
        history=settings.snapshot_history,
        floor_bytes=settings.disk_floor,
        limit_bytes=settings.most_of_a_file,
    )
