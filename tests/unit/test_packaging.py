"""The unit and the compose file say what the documents promise of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.http_settings import HttpSettings
from orchestrator.settings import Settings

PACKAGING = Path(__file__).parents[2] / "packaging"
UNIT = PACKAGING / "session-orchestrator.service"


def unit() -> dict[str, list[str]]:
    """Every setting of the unit with its values, in their order."""
    said: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, assigned, value = line.partition("=")
        if assigned and not line.startswith(("#", ";", "[")):
            said.setdefault(name, []).append(value)
    return said


def compose() -> Any:  # noqa: ANN401 - whatever the file says
    return yaml.safe_load((PACKAGING / "compose.yaml").read_text())["services"]["orchestrator"]


def environment() -> dict[str, str]:
    """What the unit sets."""
    return dict(value.split("=", 1) for value in unit()["Environment"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectControlGroups", "yes"),
        ("CapabilityBoundingSet", ""),
        ("StateDirectoryMode", "0700"),
        ("RuntimeDirectoryMode", "0700"),
        ("RuntimeDirectoryPreserve", "yes"),
        ("KillMode", "mixed"),
        ("KillSignal", "SIGTERM"),
    ],
)
def test_the_unit_is_hardened_and_ends_in_order(name: str, value: str) -> None:
    assert unit()[name] == [value]


def test_the_unit_runs_as_nobody_else_and_reaches_the_engine_by_its_group() -> None:
    said = unit()
    assert said["User"] != ["root"]
    assert said["SupplementaryGroups"] == ["docker"]
    assert said["ExecStart"][0].endswith("/bin/orchestrator serve")


def test_the_units_directories_are_those_that_it_may_write_and_the_engine_sees() -> None:
    said = unit()
    assert environment()["ORCHESTRATOR_DATA_DIR"] == f"/var/lib/{said['StateDirectory'][0]}"
    assert environment()["ORCHESTRATOR_RUNTIME_DIR"] == f"/run/{said['RuntimeDirectory'][0]}"
    private = {"PrivateTmp", "PrivateMounts", "TemporaryFileSystem", "RootDirectory", "RootImage", "BindPaths"}
    assert not private & said.keys(), "the engine would look for the sockets' paths elsewhere"


def test_the_unit_has_room_for_all_connections_and_time_for_the_end() -> None:
    said = unit()
    assert int(said["LimitNOFILE"][0]) >= HttpSettings().http_connections + 1_024
    assert float(said["TimeoutStopSec"][0]) >= HttpSettings().serve_drain + 20


@pytest.mark.parametrize("given", [environment(), compose()["environment"]])
def test_every_variable_that_is_set_is_a_setting(given: dict[str, str]) -> None:
    for name in given:
        assert name.removeprefix("ORCHESTRATOR_").lower() in Settings.model_fields, name


def test_compose_has_the_directories_at_the_same_path_on_both_sides() -> None:
    mounts = dict(str(volume).split(":")[:2] for volume in compose()["volumes"])
    for name in ("ORCHESTRATOR_DATA_DIR", "ORCHESTRATOR_RUNTIME_DIR"):
        path = compose()["environment"][name]
        assert mounts[path] == path
    assert mounts["/var/run/docker.sock"] == "/var/run/docker.sock"


def test_compose_publishes_on_loopback_alone_and_waits_for_the_end() -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in compose()["ports"])
    port = HttpSettings().http_port
    assert [str(published) for published in compose()["ports"]] == [f"127.0.0.1:{port}:{port}"]
    assert int(compose()["stop_grace_period"].removesuffix("s")) >= HttpSettings().serve_drain + 20
    assert "privileged" not in compose()
