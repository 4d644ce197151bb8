"""What one client may take of what all have: connections by its address, open requests by its tenant."""

import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.faces.web.answers import refuse
from orchestrator.faces.web.lines import IN_SCOPE

_IPV6_NETWORK: Final = 64  # bits: what one customer has
_AGAIN_SECONDS: Final = 1.0


def network_of(host: str) -> str:
    """Whom an address counts for: itself, or the network that one customer has."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_NETWORK), strict=False))


def is_among(proxies: str | None) -> Callable[[str], bool]:
    """Whether an address is one of those, which speak for many."""
    networks = [ipaddress.ip_network(part) for part in (proxies or "").split(",") if part]

    def found(host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in networks)

    return found


class TenantShares:
    """Stands behind the check of keys. Requests whose body is still on its way count: a tenant whose clients send
    slowly, or listen to nothing, holds connections as one that calls does.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, unless its tenant has too many open."""
        caller = scope[IN_SCOPE].caller
        tenant = "" if caller is None else caller.tenant
        if self._open[tenant] >= self._most:
            await refuse(send, 429, "too_many_open_requests", close=True, retry_after=_AGAIN_SECONDS)
            return
        self._open[tenant] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]
