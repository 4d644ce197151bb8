"""Brings up a Docker Engine on this host: installs it where it is absent, starts it where it is stopped.

An engine that runs is never changed, and nobody is put into a group.
"""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.adapters.engine.endpoint import Probe, survey, unavailable
from orchestrator.adapters.host_packages import (
    HostCommandError,
    Report,
    apt_install,
    distribution,
    has_apt,
    root_prefix,
    run_checked,
)
from orchestrator.domain.errors import EngineUnavailableError

_PACKAGES = ("docker.io", "iptables")
_ANSWER_SECONDS = 60.0
_SERVICE_SECONDS = 15.0
_LOG = Path("/var/log/docker.log")
_LOG_LINES = 15

_ADVICE_BY_PLATFORM = {
    "darwin": "Install Docker Desktop, or colima (`brew install colima docker && colima start`), and start it.",
    "win32": "Install WSL2 (`wsl --install -d Ubuntu`), clone the project inside it and run `make engine` there.",
}
_ADVICE_BY_DISTRIBUTION = (
    ({"debian", "ubuntu"}, "Run `apt-get install docker.io iptables` as root (no sudo works here)."),
    ({"fedora"}, "Run `sudo dnf install moby-engine && sudo systemctl enable --now docker`."),
    ({"rhel", "centos"}, "Install Docker Engine for this distribution, then `sudo systemctl enable --now docker`."),
    ({"arch"}, "Run `sudo pacman -S docker && sudo systemctl enable --now docker`."),
    ({"suse", "opensuse"}, "Run `sudo zypper install docker && sudo systemctl enable --now docker`."),
    ({"alpine"}, "Run `apk add docker && rc-service docker start` as root."),
)


def ensure_engine(report: Report, docker_host: str | None = None) -> Probe:
    """Return a probe of an engine that answers, or that runs but refuses this user while root can use it.

    Installs and starts one where there is none and nobody has chosen a place, be it with the setting `docker_host`.
    Raises `EngineUnavailableError` with what to do where it cannot.
    """
    probes = survey(docker_host)
    blocked = [found for found in probes if found.verdict == "no_permission"]
    if probes[-1].works or blocked:
        return _accepted(probes[-1] if probes[-1].works else blocked[0], report)
    if any(found.verdict == "silent" for found in probes):
        report("an engine is there but does not answer yet: waiting for it")
        if late := _wait(_SERVICE_SECONDS, docker_host):
            return _accepted(late, report)
    if any(found.endpoint.exclusive or found.verdict in {"silent", "not_an_engine"} for found in probes):
        # Somebody chose this engine, or one is there and is stuck: starting another beside it would surprise.
        raise unavailable(probes)
    prefix = root_prefix() if sys.platform == "linux" else None
    _install_where_absent(prefix, report)
    if prefix is None:
        raise EngineUnavailableError(
            "Docker Engine is installed but does not run.", hint="Start it as root: `systemctl start docker`."
        )
    return _start(prefix, report)


def _install_where_absent(prefix: Sequence[str] | None, report: Report) -> None:
    if shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None:
        return
    if prefix is None or not has_apt():
        raise EngineUnavailableError(
            "No Docker Engine was found on this machine.", hint=advice(sys.platform, distribution())
        )
    try:
        apt_install(_PACKAGES, prefix, report)
    except HostCommandError as failure:
        raise EngineUnavailableError(f"Docker Engine could not be installed: {failure}") from failure


def describe(found: Probe) -> str:
    """One line for people about an engine that answers."""
    return (
        f"Docker Engine {found.version} (API {found.api_version}) at {found.endpoint.base_url}, "
        f"found through: {found.endpoint.source}"
    )


def advice(platform: str, ids: set[str]) -> str:
    """What to install, by hand, on a system of this kind to get an engine; `ids` are the distribution's."""
    if platform in _ADVICE_BY_PLATFORM:
        return _ADVICE_BY_PLATFORM[platform]
    for kin, command in _ADVICE_BY_DISTRIBUTION:
        if ids & kin:
            return command
    return "Install Docker Engine (moby) from your distribution's packages and start it."


def within_reach(docker_host: str | None = None) -> tuple[Probe, list[str]]:
    """An engine, and the prefix with which a command reaches it: empty where it lets this user in, else sudo's."""
    probes = survey(docker_host)
    if probes[-1].works:
        return probes[-1], []
    blocked = [found for found in probes if found.verdict == "no_permission"]
    prefix = root_prefix() if blocked else None
    if not blocked or not prefix:
        raise unavailable(probes)
    return blocked[0], prefix


def _accepted(found: Probe, report: Report) -> Probe:
    """Say which engine it is; one whose socket refuses this user will do where sudo works."""
    if found.works:
        report(f"using {describe(found)}")
        return found
    report(
        f"an engine listens at {found.endpoint.base_url}, but its socket does not let you in; "
        "membership of the group `docker` would, but it equals root on this machine, so no group is changed"
    )
    if root_prefix() is None:
        raise unavailable([found])
    report("going on through sudo")
    return found


def _start(prefix: Sequence[str], report: Report) -> Probe:
    # Installing may have started it already.
    found = _wait(2.0)
    if found is None and Path("/run/systemd/system").is_dir():
        report("starting the engine (systemctl start docker)")
        found = _started_by([*prefix, "systemctl", "start", "docker"], _ANSWER_SECONDS, report)
    elif found is None:
        if shutil.which("service") and Path("/etc/init.d/docker").exists():
            report("starting the engine (service docker start)")
            found = _started_by([*prefix, "service", "docker", "start"], _SERVICE_SECONDS, report)
        if found is None:
            report(f"starting the engine by hand (dockerd, log in {_LOG})")
            # A session of its own, so that it outlives this terminal.
            by_hand = ["sh", "-c", 'setsid --fork dockerd >>"$0" 2>&1 </dev/null', str(_LOG)]
            found = _started_by([*prefix, *by_hand], _ANSWER_SECONDS, report)
    if found is None:
        raise EngineUnavailableError(
            f"Docker Engine was started but did not answer. Its last log lines:\n{_last_log_lines(prefix)}"
        )
    return _accepted(found, report)


def _started_by(command: list[str], seconds: float, report: Report) -> Probe | None:
    try:
        run_checked(command, timeout_seconds=seconds)
    except HostCommandError as failure:
        report(str(failure))
        return None
    return _wait(seconds)


def _wait(seconds: float, docker_host: str | None = None) -> Probe | None:
    """Probe until an engine answers or refuses this user; None when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        for found in survey(docker_host, timeout_seconds=1.0):
            if found.works or (found.verdict == "no_permission" and os.geteuid() != 0):
                return found
        if time.monotonic() > deadline:
            return None
        time.sleep(0.2)


def _last_log_lines(prefix: Sequence[str]) -> str:
    if Path("/run/systemd/system").is_dir():
        command = [*prefix, "journalctl", "-u", "docker", "-n", str(_LOG_LINES), "--no-pager"]
    else:
        command = [*prefix, "tail", "-n", str(_LOG_LINES), str(_LOG)]
    try:
        return run_checked(command, timeout_seconds=20, tolerate=True)
    except HostCommandError as failure:
        return str(failure)
