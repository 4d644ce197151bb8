"""The composition root of what comes before a server: the engine and the sandbox image."""

from orchestrator.adapters.engine_endpoint import Probe, find_engine, survey
from orchestrator.adapters.engine_install import ensure_engine, sudo_needed

__all__ = ["Probe", "ensure_engine", "find_engine", "sudo_needed", "survey"]
