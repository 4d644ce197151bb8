"""The container spec, held word for word: a change of policy is a change of the golden file, and is read as one."""

import json
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.engine.isolation import read_isolation
from orchestrator.domain.hardening import (
    MASKED_PATHS,
    READ_ONLY_PATHS,
    Channel,
    Isolation,
    SandboxProfile,
    container_name,
    container_spec,
)

GOLDEN = Path(__file__).parent / "golden" / "container_spec.json"

CHANNELS = {
    "attach": Channel("attach"),
    "unix": Channel("unix", "/run/session-orchestrator/c/0123"),
}
PROFILE = SandboxProfile()
ISOLATION = Isolation(seccomp='{"defaultAction":"SCMP_ACT_KILL"}')


def _spec(channel: Channel, profile: SandboxProfile = PROFILE, **changed: Any) -> dict[str, Any]:  # noqa: ANN401 - any argument of container_spec
    arguments: dict[str, Any] = {
        "installation": "1" * 32,
        "sandbox_id": "2" * 32,
        "uid": 41_234,
        "secret": "3" * 64,
        "image": "session-orchestrator:tag",
        "environment": "4" * 64,
        "created": 1_893_456_000,
        "isolation": ISOLATION,
    }
    return container_spec(**{**arguments, **changed}, profile=profile, channel=channel)


@pytest.mark.parametrize("kind", CHANNELS)
def test_the_spec_is_the_golden_one(kind: str) -> None:
    assert _spec(CHANNELS[kind]) == json.loads(GOLDEN.read_text())[kind]


@pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS)
def test_the_spec_is_plain_json_and_the_same_each_time(channel: Channel) -> None:
    assert json.loads(json.dumps(_spec(channel))) == _spec(channel)


def test_only_what_is_known_before_anybody_asks_goes_into_a_spec() -> None:
    assert set(signature(container_spec).parameters) == {
        "installation",
        "sandbox_id",
        "uid",
        "secret",
        "image",
        "environment",
        "created",
        "profile",
        "isolation",
        "channel",
    }


def test_the_secret_is_nowhere_but_in_the_environment() -> None:
    spec = _spec(CHANNELS["unix"], secret="5" * 64)
    without_environment = {name: value for name, value in spec.items() if name != "Env"}

    assert f"SO_SECRET={'5' * 64}" in spec["Env"]
    assert "5" * 64 not in json.dumps(without_environment)


def test_the_only_thing_of_the_hosts_inside_is_the_channels_directory_read_only() -> None:
    assert _spec(CHANNELS["attach"])["HostConfig"]["Mounts"] == []
    (mount,) = _spec(CHANNELS["unix"])["HostConfig"]["Mounts"]
    assert mount["Source"] == CHANNELS["unix"].directory
    assert mount["ReadOnly"] is True


def test_limits_are_those_of_the_profile() -> None:
    profile = replace(PROFILE, memory=7, cpus=0.25, pids=8, open_files=9, file_size=10, workspace=12)
    profile = replace(profile, lease=11, threads=17)
    profile = replace(profile, locked_memory=13, pending_signals=14, stack=15, stack_most=16)
    spec = _spec(CHANNELS["unix"], profile)
    host = spec["HostConfig"]

    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (7, 7, 250_000_000, 8)
    limits = {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in host["Ulimits"]}
    assert limits == {
        "nofile": (9, 9),
        "fsize": (10, 10),
        "core": (1, 1),
        "memlock": (13, 13),
        "msgqueue": (0, 0),
        "nice": (0, 0),
        "rtprio": (0, 0),
        "sigpending": (14, 14),
        "stack": (15, 16),
    }
    assert {"SO_LEASE=11", "SO_THREADS=17"} <= set(spec["Env"])
    assert "size=12," in host["Tmpfs"]["/workspace"]


def test_what_a_sandbox_may_write_fits_into_its_memory() -> None:
    assert PROFILE.workspace + PROFILE.tmp + PROFILE.shm < PROFILE.memory


def test_every_writable_place_belongs_to_the_sandboxs_user_and_takes_no_setuid_file() -> None:
    for options in _spec(CHANNELS["attach"], uid=50_001)["HostConfig"]["Tmpfs"].values():
        assert {"nosuid", "nodev", "uid=50001", "gid=50001"} <= set(options.split(","))


def test_the_name_holds_our_id_so_that_a_second_create_is_a_conflict() -> None:
    assert container_name("2" * 32) == "so-" + "2" * 32


def test_the_profile_that_is_read_at_the_start_is_in_every_spec() -> None:
    isolation = read_isolation()
    for channel in CHANNELS.values():
        options = _spec(channel, isolation=isolation)["HostConfig"]["SecurityOpt"]
        assert options == ["no-new-privileges", f"seccomp={isolation.seccomp}"]


def test_what_engines_mask_by_default_stays_masked() -> None:
    """Naming any path replaces the engine's own list: here that of Engine 29, without the processors by number."""
    masked_by_default = """
        /proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug
        /proc/scsi /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware
    """
    read_only_by_default = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"

    assert set(masked_by_default.split()) <= set(MASKED_PATHS)
    assert set(read_only_by_default.split()) <= {*MASKED_PATHS, *READ_ONLY_PATHS}
    assert list(MASKED_PATHS) == sorted(set(MASKED_PATHS))


def test_a_runtime_is_named_where_one_is_chosen_and_user_ids_stay_mapped() -> None:
    chosen = _spec(CHANNELS["unix"], isolation=replace(ISOLATION, runtime="runsc", user_namespace=True))["HostConfig"]
    assert (chosen["Runtime"], chosen["UsernsMode"]) == ("runsc", "")
    assert _spec(CHANNELS["unix"])["HostConfig"]["Runtime"] == ""
