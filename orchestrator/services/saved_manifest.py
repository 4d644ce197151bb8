"""What the host adds to the manifest of a save before it is stored. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.domain.snapshots import Manifest, SavedName, SaveFailedError, SaveReport
from orchestrator.services.saving_notes import excerpt_of


def with_files(report: SaveReport, head: Manifest | None) -> Manifest:
    """The manifest, its files those of the head where the agent had to give them up. Raises SaveFailedError where no
    head can stand in.
    """
    if report.files_read:
        return replace(report.manifest, files_execution=report.manifest.execution)
    if head is None:
        raise SaveFailedError("The files could not be read, because cells kept coming.")
    return replace(
        report.manifest,
        files_execution=head.files_execution,
        files=head.files,
        unlisted_files=head.unlisted_files,
        workspace=head.workspace,
    )


def with_origins(manifest: Manifest, bound: Mapping[str, int], codes: Mapping[int, str]) -> Manifest:
    """An excerpt for each name that was refused, of the cell after which it was bound to another object."""

    def named(name: SavedName) -> SavedName:
        number = bound.get(name.name)
        if name.status != "refused" or number is None or number not in codes:
            return name
        return replace(name, excerpt=excerpt_of(name.name, number, codes[number]))

    return replace(manifest, names=tuple(map(named, manifest.names)))
