"""A plugin of pytest in the guest: what has a bound by the clock has a longer one, as its processor is emulated.

What is tested is what the engine and the kernel do, and not how fast.
"""

from orchestrator.adapters.channel import agent_channel, unix_transport
from orchestrator.adapters.engine import access, docker_engine, launch, survivor, verification
from tests import pace

TIMES = 6
# Where each is looked up, since some are imported by name.
BOUNDS = {
    launch: ("LAUNCH_SECONDS", "INSPECT_SECONDS"),
    docker_engine: ("LAUNCH_SECONDS", "PROBE_HELLO_SECONDS", "REMOVE_SECONDS", "ASK_SECONDS"),
    verification: ("LAUNCH_SECONDS", "_CELL_SECONDS"),
    agent_channel: ("EXECUTE_MARGIN_SECONDS", "CLAIM_SECONDS", "LIST_SECONDS", "CLEAR_SECONDS"),
    unix_transport: ("JUDGE_SECONDS",),
    access: ("GONE_SECONDS",),
    survivor: ("HELLO_SECONDS",),
    pace: ("TIMES",),
}


def pytest_configure() -> None:
    """Before any test is collected."""
    for module, names in BOUNDS.items():
        for name in names:
            setattr(module, name, getattr(module, name) * TIMES)
