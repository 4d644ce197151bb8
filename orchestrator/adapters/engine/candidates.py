"""Where a Docker Engine may be: what our setting, the environment, docker's own configuration and custom say."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TlsFiles:
    """The certificates of a remote engine; `ca` None means the system's authorities, `verify` False trusts anyone."""

    ca: Path | None
    cert: Path | None
    key: Path | None
    verify: bool


@dataclass(frozen=True)
class Endpoint:
    """Where an engine may be. `exclusive` marks a place that somebody chose for this process: nothing else is tried."""

    base_url: str
    source: str
    tls: TlsFiles | None = None
    exclusive: bool = False


SETTING = "ORCHESTRATOR_DOCKER_HOST"


def chosen(docker_host: str) -> Endpoint:
    """The place that our own setting names, above all that docker's own tools hear."""
    return Endpoint(_with_scheme(docker_host.strip()), SETTING, exclusive=True)


def candidates(environ: Mapping[str, str], home: Path, uid: int) -> Iterator[Endpoint]:
    """Every place to look at, in order: DOCKER_HOST, the docker context, the default sockets."""
    if host := environ.get("DOCKER_HOST", "").strip():
        yield Endpoint(_with_scheme(host), "DOCKER_HOST", _tls_of_environment(environ), exclusive=True)
        return
    context = _context_endpoint(environ, home)
    if context is not None:
        yield context
        if context.exclusive:
            return
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    seen = {context.base_url} if context else set()
    for path, source in (
        ("/var/run/docker.sock", "default socket"),
        (f"{runtime}/docker.sock", "rootless socket"),
        (f"{home}/.docker/run/docker.sock", "Docker Desktop's socket"),
    ):
        url = f"unix://{path}"
        if url not in seen:
            yield Endpoint(url, source)


def _with_scheme(host: str) -> str:
    return host if "://" in host else f"tcp://{host}"


def _tls_of_environment(environ: Mapping[str, str]) -> TlsFiles | None:
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    folder = environ.get("DOCKER_CERT_PATH")
    if not verify and not folder:
        return None
    return _tls_in(Path(folder or Path.home() / ".docker"), verify=verify)


def _tls_in(folder: Path, *, verify: bool) -> TlsFiles:
    ca, cert, key = (folder / name if (folder / name).is_file() else None for name in ("ca.pem", "cert.pem", "key.pem"))
    return TlsFiles(ca, cert, key, verify)


def _context_endpoint(environ: Mapping[str, str], home: Path) -> Endpoint | None:
    """Where the chosen docker context points; None for the default one and for a configured one that is gone."""
    folder = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    chosen = environ.get("DOCKER_CONTEXT") or _read_json(folder / "config.json").get("currentContext")
    if not isinstance(chosen, str) or chosen in {"", "default"}:
        return None
    key = hashlib.sha256(chosen.encode()).hexdigest()
    docker_part = _read_json(folder / "contexts" / "meta" / key / "meta.json").get("Endpoints", {}).get("docker", {})
    exclusive = bool(environ.get("DOCKER_CONTEXT"))
    host = docker_part.get("Host")
    if not isinstance(host, str) or not host:
        # A context named for this process must not silently become another engine.
        return Endpoint(f"context://{chosen}", "DOCKER_CONTEXT", exclusive=True) if exclusive else None
    certificates = folder / "contexts" / "tls" / key / "docker"
    tls = None
    if certificates.is_dir():
        tls = _tls_in(certificates, verify=not docker_part.get("SkipTLSVerify"))
    return Endpoint(_with_scheme(host), f"docker context {chosen}", tls, exclusive)


def _read_json(path: Path) -> dict[str, dict[str, dict[str, object]]]:
    try:
        read = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
