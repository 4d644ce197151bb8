"""What a server takes over from its configuration while it runs, and what waits for a restart."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from orchestrator.domain.errors import OrchestratorError
from orchestrator.policies import limits_of
from orchestrator.services.equipment import Limits
from orchestrator.services.sandboxes import Sandboxes
from orchestrator.settings import Settings
from orchestrator.tenancy import Tenancy

logger = logging.getLogger(__name__)

# Each is read at the moment at which it counts, from an object that a reload changes; the others are built into what
# serves, or into sandboxes that run.
RELOADABLE = frozenset(
    {"default_time_limit", "interrupt_grace", "output_limit", "max_code"}
    | {"snapshot_after", "snapshot_max_age", "hibernate_after", "inactive_after", "expire_after", "delete_after"}
    | {"max_sandboxes", "sandbox_wait", "max_running"}
    | {"audit_code", "audit_days"}
    | {name for name in Settings.model_fields if name.startswith("quota_")}
)


@dataclass(frozen=True, slots=True)
class Differences:
    """Between what counts and what was read, as names of settings in their order."""

    now: tuple[str, ...]
    after_a_restart: tuple[str, ...]


def differences(current: Settings, wanted: Settings) -> Differences:
    """What a reload changes, and what it cannot."""
    changed = [name for name in Settings.model_fields if getattr(current, name) != getattr(wanted, name)]
    return Differences(
        tuple(name for name in changed if name in RELOADABLE), tuple(name for name in changed if name not in RELOADABLE)
    )


def merged(current: Settings, wanted: Settings) -> Settings:
    """What counts after the reload. Raises ValidationError where old and new cannot be meant together."""
    changed = {name: getattr(wanted, name) for name in differences(current, wanted).now}
    return Settings(**{**{name: getattr(current, name) for name in Settings.model_fields}, **changed})


class Reloading:
    """Changes what can be changed in the services that run."""

    def __init__(self, settings: Settings, limits: Limits, sandboxes: Sandboxes, tenancy: Tenancy, cpus: int) -> None:
        self._settings = settings
        self._limits = limits
        self._sandboxes = sandboxes
        self._tenancy = tenancy
        self._cpus = cpus

    def reload(self, load: Callable[[], Settings]) -> Settings:
        """Read the settings again and let them count, all or none; what came of it is in the log. The answer is what
        was read, or what still counts where that was wrong.
        """
        try:
            wanted = load()
            found = differences(self._settings, wanted)
            settings = merged(self._settings, wanted)
        except (OrchestratorError, ValidationError) as failure:
            logger.warning("the configuration is not taken over: %s", " ".join(str(failure).split()))
            return self._settings
        self._take_over(settings)
        logger.info("the configuration was read again; changed: %s", ", ".join(found.now) or "nothing")
        if found.after_a_restart:
            logger.warning("what waits for a restart: %s", ", ".join(found.after_a_restart))
        return wanted

    def _take_over(self, settings: Settings) -> None:
        """Nothing here waits, so no call sees a part of it."""
        self._limits.take_over(limits_of(settings))
        self._sandboxes.resize(settings.max_sandboxes, settings.sandbox_wait)
        self._tenancy.admission.resize(settings.max_running or self._cpus, settings.sandbox_wait, settings.quotas)
        self._tenancy.audit.keep(settings.audit_code, settings.audit_days)
        self._settings = settings
