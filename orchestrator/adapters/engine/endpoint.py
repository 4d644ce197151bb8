"""Finds a Docker Engine that answers, and says of each place looked at what is wrong with it.

Asks with a plain request of its own and not through the SDK: the SDK's time-outs are per read, so a server that
trickles would hold a caller for long.
"""

import json
import os
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

import docker
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.tls import TLSConfig
from docker.utils import compare_version

from orchestrator.adapters.engine.candidates import Endpoint, TlsFiles, candidates, chosen
from orchestrator.domain.errors import EngineUnavailableError

PROBE_SECONDS = 4.0
_MAX_ANSWER_BYTES = 256 * 1024

Verdict = Literal["works", "absent", "no_permission", "silent", "not_an_engine", "unsupported"]


@dataclass(frozen=True)
class Probe:
    """What one place answered; `detail` is a sentence's end for people ("… does not exist")."""

    endpoint: Endpoint
    verdict: Verdict
    detail: str
    version: str = ""
    api_version: str = ""

    @property
    def works(self) -> bool:
        """Whether an engine answered here."""
        return self.verdict == "works"


def survey(
    docker_host: str | None = None,
    *,
    timeout_seconds: float = PROBE_SECONDS,
    places: Iterable[Endpoint] | None = None,
) -> list[Probe]:
    """Probe the places in order, up to the first that works. At most `timeout_seconds` for each.

    `docker_host` is the setting of that name: where it is set, nothing else is looked at.
    """
    if places is None:
        places = [chosen(docker_host)] if docker_host else candidates(os.environ, Path.home(), os.getuid())
    probes: list[Probe] = []
    for endpoint in places:
        probes.append(probe(endpoint, timeout_seconds=timeout_seconds))
        if probes[-1].works:
            break
    return probes


def find_engine(docker_host: str | None = None, *, timeout_seconds: float = PROBE_SECONDS) -> Probe:
    """Return the first engine that answers, or raise `EngineUnavailableError` naming what is wrong with the others."""
    probes = survey(docker_host, timeout_seconds=timeout_seconds)
    if probes[-1].works:
        return probes[-1]
    raise unavailable(probes)


def unavailable(probes: list[Probe]) -> EngineUnavailableError:
    """Turn failed probes into one sentence about the likeliest place, and what to do about it."""
    for verdict, hint in _HINTS.items():
        for found in probes:
            if found.verdict == verdict:
                where = f"{found.endpoint.base_url} ({found.endpoint.source})"
                named = found.endpoint.exclusive and verdict in {"absent", "silent"}
                return EngineUnavailableError(
                    f"No Docker Engine is usable: {where} {found.detail}.", hint=_NAMED_HINT if named else hint
                )
    return EngineUnavailableError("No Docker Engine is usable: no place to look at.", hint=_HINTS["absent"])


# In the order of what tells most: a socket that refuses us is nearer to working than one that is not there.
_HINTS: dict[Verdict, str] = {
    "no_permission": (
        "Run the same through sudo, or have an administrator add you to the group `docker` "
        "(membership equals root on this machine)."
    ),
    "silent": "Look at the engine's log or restart it; the orchestrator never restarts a running engine by itself.",
    "not_an_engine": "Point ORCHESTRATOR_DOCKER_HOST, DOCKER_HOST or the docker context at a Docker Engine.",
    "unsupported": (
        "Point ORCHESTRATOR_DOCKER_HOST, DOCKER_HOST or the docker context at a unix:// or tcp:// address."
    ),
    "absent": "Run `orchestrator engine ensure`, which starts an engine or says what to install.",
}
_NAMED_HINT = (
    "Start the engine there, or unset ORCHESTRATOR_DOCKER_HOST, DOCKER_HOST and DOCKER_CONTEXT "
    "to use this machine's own."
)


def api_client(found: Probe, *, timeout_seconds: float = 60) -> docker.APIClient:
    """Open an SDK client for a probed engine without a further request. The caller closes it."""
    endpoint = found.endpoint
    version = found.api_version
    if compare_version(DEFAULT_DOCKER_API_VERSION, version) > 0:
        version = DEFAULT_DOCKER_API_VERSION
    timeout = int(timeout_seconds)
    if endpoint.tls is None:
        return docker.APIClient(base_url=endpoint.base_url, version=version, timeout=timeout)
    files = endpoint.tls
    pair = (str(files.cert), str(files.key)) if files.cert and files.key else None
    tls = TLSConfig(client_cert=pair, ca_cert=str(files.ca) if files.ca else None, verify=files.verify)
    return docker.APIClient(base_url=endpoint.base_url, version=version, timeout=timeout, tls=tls)


def probe(endpoint: Endpoint, *, timeout_seconds: float = PROBE_SECONDS) -> Probe:
    """Ask one place for its version; answers within `timeout_seconds` whatever is there."""
    try:
        answer = _ask(endpoint, time.monotonic() + timeout_seconds)
    except TimeoutError:
        return Probe(endpoint, "silent", f"did not answer within {timeout_seconds:g} s")
    except OSError as failure:
        return _judge_failure(endpoint, failure)
    return _judge(endpoint, answer)


def _judge_failure(endpoint: Endpoint, failure: OSError) -> Probe:
    match failure:
        case _UnsupportedError():
            return Probe(endpoint, "unsupported", str(failure))
        case FileNotFoundError() | NotADirectoryError():
            return Probe(endpoint, "absent", "does not exist")
        case PermissionError():
            return Probe(endpoint, "no_permission", "is there but does not let this user in")
        case ConnectionRefusedError():
            return Probe(endpoint, "absent", "has nobody listening")
        case _:
            return Probe(endpoint, "silent", f"could not be asked: {failure.strerror or failure}")


class _UnsupportedError(OSError):
    """The address is of a kind that we do not speak."""


def _ask(endpoint: Endpoint, deadline: float) -> bytes:
    # HTTP/1.0, so that the end of the connection is the end of the answer and no chunks need decoding.
    with dial(endpoint, deadline) as connection:
        connection.settimeout(_left(deadline))
        connection.sendall(b"GET /version HTTP/1.0\r\nHost: docker\r\n\r\n")
        answer = b""
        while len(answer) < _MAX_ANSWER_BYTES:
            connection.settimeout(_left(deadline))
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
        return answer


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def dial(endpoint: Endpoint, deadline: float) -> socket.socket:
    """Connect to an engine until a deadline of time.monotonic; raises OSError. The caller closes it."""
    url, port = _parts(endpoint.base_url)
    if url.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_left(deadline))
            connection.connect(url.netloc + url.path)
        except BaseException:
            connection.close()
            raise
        return connection
    if url.scheme not in {"tcp", "http", "https"} or not url.hostname:
        raise _UnsupportedError("is no unix:// or tcp:// address")
    secure = endpoint.tls is not None or url.scheme == "https"
    address = (url.hostname, port or (2376 if secure else 2375))
    plain = socket.create_connection(address, timeout=_left(deadline))
    if not secure:
        return plain
    try:
        plain.settimeout(_left(deadline))
        return _tls_context(endpoint.tls).wrap_socket(plain, server_hostname=url.hostname)
    except BaseException:
        plain.close()
        raise


def _parts(address: str) -> tuple[SplitResult, int | None]:
    try:
        url = urlsplit(address)
        (url.hostname or "").encode("idna")
        port = url.port
    except ValueError as failure:  # no port, brackets that do not close, what no host may be called
        raise _UnsupportedError(f"is no address: {failure}") from failure
    return url, port


def _tls_context(files: TlsFiles | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.ca) if files and files.ca else None)
    if files and not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files and files.cert and files.key:
        context.load_cert_chain(str(files.cert), str(files.key))
    return context


def _judge(endpoint: Endpoint, answer: bytes) -> Probe:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].split()
    try:
        stated = json.loads(body) if status[1:2] == [b"200"] else None
    except ValueError:
        stated = None
    if not isinstance(stated, dict) or not isinstance(stated.get("ApiVersion"), str):
        return Probe(endpoint, "not_an_engine", "answers, but not as a Docker Engine")
    return Probe(endpoint, "works", "answers", str(stated.get("Version", "")), stated["ApiVersion"])
