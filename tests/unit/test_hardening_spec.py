"""The container spec, held word for word: a change of policy is a change of the golden file, and is read as one."""

import json
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain.hardening import Channel, SandboxProfile, container_name, container_spec

GOLDEN = Path(__file__).parent / "golden" / "container_spec.json"

CHANNELS = {
    "attach": Channel("attach"),
    "unix": Channel("unix", "/run/session-orchestrator/c/0123"),
}
PROFILE = SandboxProfile()


def _spec(channel: Channel, profile: SandboxProfile = PROFILE, **changed: Any) -> dict[str, Any]:  # noqa: ANN401 - any argument of container_spec
    arguments: dict[str, Any] = {
        "installation": "1" * 32,
        "sandbox_id": "2" * 32,
        "uid": 41_234,
        "secret": "3" * 64,
        "image": "session-orchestrator:tag",
        "environment": "4" * 64,
        "created": 1_893_456_000,
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
    profile = replace(profile, lease=11, threads=13)
    spec = _spec(CHANNELS["unix"], profile)
    host = spec["HostConfig"]

    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (7, 7, 250_000_000, 8)
    limits = {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in host["Ulimits"]}
    assert limits == {"nofile": (9, 9), "fsize": (10, 10), "core": (0, 0)}
    assert {"SO_LEASE=11", "SO_THREADS=13"} <= set(spec["Env"])
    assert "size=12," in host["Tmpfs"]["/workspace"]


def test_what_a_sandbox_may_write_fits_into_its_memory() -> None:
    assert PROFILE.workspace + PROFILE.tmp + PROFILE.shm < PROFILE.memory


def test_every_writable_place_belongs_to_the_sandboxs_user_and_takes_no_setuid_file() -> None:
    for options in _spec(CHANNELS["attach"], uid=50_001)["HostConfig"]["Tmpfs"].values():
        assert {"nosuid", "nodev", "uid=50001", "gid=50001"} <= set(options.split(","))


def test_the_name_holds_our_id_so_that_a_second_create_is_a_conflict() -> None:
    assert container_name("2" * 32) == "so-" + "2" * 32
