"""The settings of `orchestrator serve`: where it listens, whom it believes, and its bounds."""

import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field

from orchestrator import places
from orchestrator.setting_sources import PREFIX

_KIB = 1024
_MIB = 1024 * _KIB


def _absolute(path: Path) -> Path:
    return Path(places.normal(str(path)))


def _address(text: str) -> str:
    return str(ipaddress.ip_address(text.strip("[]")))


def _networks(text: str) -> str:
    return ",".join(str(ipaddress.ip_network(part.strip())) for part in text.split(","))


def _names(text: str) -> str:
    names = [part.strip().lower() for part in text.split(",")]
    if any(not name or "/" in name or " " in name for name in names):
        raise ValueError("host names are wanted, separated by commas, such as sandbox.example.org")
    return ",".join(names)


def _bind(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 <= int(port) < 1 << 16:
        raise ValueError("an address and a port are wanted, such as 127.0.0.1:9464")
    return f"{_address(host)}:{int(port)}"


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class HttpSettings(BaseModel):
    """How sessions are served over HTTP. Times in seconds, sizes in bytes."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    http_host: Annotated[str, AfterValidator(_address)] = "127.0.0.1"
    """The address that `orchestrator serve` listens at. One that others can reach wants TLS or a trusted proxy.
    Default 127.0.0.1: this machine only."""

    http_port: int = Field(default=8642, ge=0, le=65_535)
    """Its port; 0: any that is free, which the log names. Default 8642."""

    http_names: Annotated[str, AfterValidator(_names)] | None = None
    """Host names, separated by commas, by which clients reach the server; another `Host` is answered with 421.
    Default None: the names of this machine's loopback, which are allowed in any case."""

    http_certificate: AbsolutePath | None = None
    """A file with the TLS certificate and its chain, in PEM. Default None: no TLS."""

    http_certificate_key: AbsolutePath | None = None
    """A file with the certificate's private key, in PEM. Default None: it stands in the certificate's file."""

    http_trusted_proxies: Annotated[str, AfterValidator(_networks)] | None = None
    """Addresses or networks of proxies, separated by commas, whose `X-Forwarded-For` is believed. Says that the server
    stands behind a proxy that ends TLS. Default None: nobody is believed."""

    http_connections: int = Field(default=2_000, ge=10, le=100_000)
    """Connections at once; beyond that the one that was idle for longest is closed.
    Default 2000: some for each of hundreds of clients, a few hundred kB of memory when they are idle."""

    http_share: float = Field(default=0.5, gt=0, le=1, allow_inf_nan=False)
    """The part of the connections that one address may have, and that one tenant may have open requests on; beyond it
    the address' own longest idle one is closed, and the tenant is answered 429. Trusted proxies have no share.
    Default 0.5: no client alone keeps the others out."""

    http_idle: float = Field(default=75.0, ge=1, le=3600, allow_inf_nan=False)
    """Seconds after which a connection without a request is closed.
    Default 75: longer than the minute in which most proxies give up theirs."""

    http_patience: float = Field(default=20.0, ge=1, le=600, allow_inf_nan=False)
    """Seconds that a request's head may take to arrive, its body again, and that a client may leave an answer unread.
    Default 20: a slow line with a large body, and no more."""

    http_body_limit: ByteSize = Field(default=ByteSize(8 * _MIB), ge=64 * _KIB, le=64 * _MIB)
    """Bytes of a request's body. Default 8 MiB: the most code that a call may send, however it is escaped."""

    http_failed_attempts: int = Field(default=20, ge=1, le=10_000)
    """Wrong keys that an address may send in a minute; then it is answered 429, but for keys that were right lately.
    Default 20: a client with a stale key that tries again and again is slowed down, and nobody by accident."""

    client_grace: float = Field(default=10.0, ge=0, le=3600, allow_inf_nan=False)
    """Seconds that a cell runs on when its caller's connection is gone; then it is interrupted. The result is kept.
    Default 10: a client that reconnects finds its call still running."""

    serve_drain: float = Field(default=20.0, ge=0, le=3600, allow_inf_nan=False)
    """Seconds that calls under way may take when the server is asked to end; then they are interrupted.
    Default 20: most calls end by themselves, and a service manager's patience is not used up."""

    metrics_bind: Annotated[str, AfterValidator(_bind)] | None = None
    """Address and port at which `/metrics` is had without a key, such as 127.0.0.1:9464.
    Default None: only with a key of scope `admin`, beside the sessions."""

    http_admin: Literal["off", "read", "all"] = "read"
    """What a key of scope `admin` may order at `/admin/v1/`: `all`, `read` for what changes nothing, `off` for nothing.
    Default `read`: whoever steals such a key sees what there is, and ends nothing."""

    traces_endpoint: str | None = Field(default=None, pattern=r"^https?://", max_length=2_000)
    """Where spans are sent as OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; needs the extra `traces`.
    Default None: nowhere."""

    log_format: Literal["auto", "text", "json"] = "auto"
    """How the server writes its log to standard error. Default `auto`: text on a terminal, else JSON, one line each."""

    def ways_to_serve_unsafely(self) -> Iterator[str]:
        """A fault for each thing that keys, or whoever is named as this server, would suffer from."""
        if self.http_certificate_key is not None and self.http_certificate is None:
            yield f"{PREFIX}HTTP_CERTIFICATE_KEY is set, and {PREFIX}HTTP_CERTIFICATE is not"
        if ipaddress.ip_address(self.http_host).is_loopback:
            return
        if self.http_certificate is None and self.http_trusted_proxies is None:
            yield (
                f"{PREFIX}HTTP_HOST ({self.http_host}) can be reached by others, so keys would travel in the clear: "
                f"set {PREFIX}HTTP_CERTIFICATE, or {PREFIX}HTTP_TRUSTED_PROXIES where a proxy ends TLS"
            )
        if self.http_names is None:
            yield (
                f"{PREFIX}HTTP_HOST ({self.http_host}) can be reached by others: set {PREFIX}HTTP_NAMES to the names "
                "by which clients reach it"
            )

    def tls(self) -> ssl.SSLContext | None:
        """The certificate, loaded; None without one. Raises OSError and ssl.SSLError where it cannot be used."""
        if self.http_certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.http_certificate, self.http_certificate_key)
        return context

    @property
    def http_each(self) -> int:
        """Connections of one address, and open requests of one tenant."""
        return max(1, int(self.http_connections * self.http_share))

    @property
    def names(self) -> tuple[str, ...]:
        """The host names that are served, without ports."""
        return () if self.http_names is None else tuple(self.http_names.split(","))
