"""Which sessions make room for calls that wait for a sandbox. Pure: the same rows give the same answer."""

from collections.abc import Mapping, Sequence

from orchestrator.domain.plan import ContainerRow, SessionRow


def evictions(
    now: float, rows: Sequence[SessionRow], containers: Mapping[str, ContainerRow], *, wanted: int
) -> list[SessionRow]:
    """At most `wanted` sessions to hibernate: idle ones, the least recently used first.

    One that is being saved has its turn when that is done; one whose save has failed is passed over for as long as no
    other save of it is due.
    """
    able = [
        row
        for row in rows
        if not row.busy
        and (container := containers.get(row.key)) is not None
        and not container.saving
        and now >= container.not_before
    ]
    return sorted(able, key=lambda row: row.active_at)[: max(0, wanted)]
