"""Sessions that leave an installation and come into another: what the library offers of it."""

from dataclasses import dataclass

from orchestrator.services.exporting import Exports
from orchestrator.services.importing import Imports
from orchestrator.services.trust import Trust


@dataclass(frozen=True, slots=True)
class Capsules:
    """`exports.export` and `exports.notebook`, `imports.bring_in`, and whom `trust` names."""

    exports: Exports
    imports: Imports
    trust: Trust
