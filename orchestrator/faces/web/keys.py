"""Who calls: the SDK's check of bearer tokens, over the credentials of the domain."""

from mcp.server.auth.provider import AccessToken
from mcp.server.mcpserver import Context

from orchestrator.domain.access import Caller, Credentials
from orchestrator.faces.web.lines import IN_SCOPE, Line, line_now

MOST_BYTES = 16 * 1024  # of a token; what is longer is none


class KeyVerifier:
    """The SDK's `TokenVerifier`. What it says of a caller is the tenant: the SDK binds its own sessions to that, so
    that they go on when a key is replaced by another of the same tenant.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def verify_token(self, token: str) -> AccessToken | None:
        """None where nobody is known by that token."""
        caller = await self._credentials.verify(token) if token and len(token) <= MOST_BYTES else None
        if caller is None:
            return None
        line = line_now()
        if line is not None:
            line.caller = caller
        scopes = {*caller.scopes, *(["read"] if caller.may("read") else [])}
        # The token itself is kept nowhere.
        return AccessToken(token=caller.key_id, client_id=caller.tenant, scopes=sorted(scopes), subject=caller.tenant)


def line_of(context: Context) -> Line:
    """The request that a tool is called by. Raises LookupError where it did not come over HTTP."""
    request = context.request_context.request
    if request is None:
        raise LookupError("this call did not come over HTTP")
    line: Line = request.scope[IN_SCOPE]
    return line


def caller_of(context: Context) -> Caller:
    """Who calls a tool. Raises LookupError where nobody has proven who they are."""
    caller = line_of(context).caller
    if caller is None:
        raise LookupError("this call came without a key")
    return caller
