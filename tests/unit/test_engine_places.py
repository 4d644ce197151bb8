"""Where an engine is looked for, and in which order: somebody's explicit choice is never silently replaced."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from orchestrator.adapters.engine.candidates import Endpoint, TlsFiles, candidates


def places(home: Path, **environ: str) -> list[Endpoint]:
    return list(candidates(environ, home, uid=1234))


def write_context(home: Path, name: str, endpoint: Mapping[str, object]) -> Path:
    key = hashlib.sha256(name.encode()).hexdigest()
    folder = home / ".docker" / "contexts" / "meta" / key
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": endpoint}}))
    return home / ".docker" / "contexts" / "tls" / key / "docker"


def choose_context(home: Path, name: str) -> None:
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker" / "config.json").write_text(json.dumps({"currentContext": name}))


def test_docker_host_is_the_only_place_when_it_is_set(tmp_path: Path) -> None:
    choose_context(tmp_path, "other")
    found = places(tmp_path, DOCKER_HOST="unix:///x.sock", DOCKER_CONTEXT="other")
    assert found == [Endpoint("unix:///x.sock", "DOCKER_HOST", exclusive=True)]


def test_docker_host_without_a_scheme_means_tcp(tmp_path: Path) -> None:
    assert places(tmp_path, DOCKER_HOST="builder:2375")[0].base_url == "tcp://builder:2375"


def test_certificates_of_the_environment_go_with_docker_host(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    found = places(tmp_path, DOCKER_HOST="tcp://h", DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(tmp_path))
    assert found[0].tls == TlsFiles(tmp_path / "ca.pem", None, None, verify=True)


def test_the_default_sockets_come_last_and_include_the_rootless_one(tmp_path: Path) -> None:
    found = [place.base_url for place in places(tmp_path)]
    assert found[:2] == ["unix:///var/run/docker.sock", "unix:///run/user/1234/docker.sock"]
    assert places(tmp_path, XDG_RUNTIME_DIR="/r")[1].base_url == "unix:///r/docker.sock"


def test_the_configured_context_comes_before_the_default_sockets(tmp_path: Path) -> None:
    write_context(tmp_path, "desk", {"Host": "unix:///desk.sock"})
    choose_context(tmp_path, "desk")
    found = places(tmp_path)
    assert found[0] == Endpoint("unix:///desk.sock", "docker context desk")
    assert len(found) > 1


def test_a_context_brings_its_certificates(tmp_path: Path) -> None:
    certificates = write_context(tmp_path, "far", {"Host": "tcp://far:2376", "SkipTLSVerify": True})
    certificates.mkdir(parents=True)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (certificates / name).touch()
    found = places(tmp_path, DOCKER_CONTEXT="far")
    names = (certificates / "ca.pem", certificates / "cert.pem", certificates / "key.pem")
    assert found == [Endpoint("tcp://far:2376", "docker context far", TlsFiles(*names, verify=False), exclusive=True)]


def test_a_configured_context_that_is_gone_leaves_the_default_sockets(tmp_path: Path) -> None:
    choose_context(tmp_path, "gone")
    assert places(tmp_path)[0].base_url == "unix:///var/run/docker.sock"


def test_a_context_named_for_this_process_is_never_replaced(tmp_path: Path) -> None:
    found = places(tmp_path, DOCKER_CONTEXT="gone")
    assert [(place.base_url, place.exclusive) for place in found] == [("context://gone", True)]


def test_a_broken_configuration_file_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text("{broken")
    assert places(tmp_path)[0].source == "default socket"
