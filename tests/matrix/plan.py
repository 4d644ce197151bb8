"""Which tests run in the guest, in which order, and how long each file may take there: data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """A file of tests; `only` is pytest's `-k`, `minutes` its bound under an emulated processor."""

    file: str
    only: str = ""
    minutes: float = 15.0
    left_out: tuple[str, ...] = ()  # tests of it, each with its reason beside it


# What depends on engine, kernel and cgroup version comes first, so that a run that is cut short has told of it.
PARTS = (
    Part("tests/docker/test_docker_engine.py", minutes=25),
    Part(
        "tests/docker/test_savepoints.py",
        minutes=30,
        # Each of its savepoints waits for ten times what the one before it took.
        left_out=("test_two_hundred_generations_leave_no_process_and_no_descriptor_behind",),
    ),
    Part("tests/docker/test_hostile_cells.py", minutes=30),
    Part("tests/docker/test_doctor.py", "holds or json or beside or missing"),
    Part("tests/security/test_probes.py", minutes=25),
    Part("tests/docker/test_verified_start.py"),
    Part("tests/docker/test_memory_pressure.py"),
    Part("tests/security/test_landlock.py", "not memory_bomb"),  # hundreds of processes outlast every bound there
    Part("tests/docker/test_isolation.py"),
    Part("tests/security/test_closed.py", minutes=25),
    Part("tests/docker/test_sessions.py", minutes=30),
)
