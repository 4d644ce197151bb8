"""Who calls, and what they may do. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol

from orchestrator.domain.errors import PermissionDeniedError
from orchestrator.domain.model import LOCAL_TENANT

Scope = Literal["use", "read", "admin"]

# `use` runs code and changes sessions. `read` looks at what is known, and never wakes or runs anything. `admin` is the
# operator's: figures of the whole installation, tenants, keys, the audit; it opens no session.
SCOPES: Final[tuple[Scope, ...]] = ("use", "read", "admin")
LOCAL_KEY: Final = "local"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who has proven who they are."""

    tenant: str
    key_id: str  # stands in the audit; says nothing that would help to guess the key
    key_name: str
    scopes: frozenset[Scope]
    expires_at: datetime | None = None  # of the proof, where it is not looked up again

    def may(self, scope: Scope) -> bool:
        """Whether that is allowed; who may use sessions may look at them, too."""
        return scope in self.scopes or (scope == "read" and "use" in self.scopes)

    def require(self, scope: Scope) -> None:
        """Raises PermissionDeniedError where it is not allowed."""
        if not self.may(scope):
            raise PermissionDeniedError(
                f"This key has no {scope!r} scope.", hint="Use a key that has it; the operator makes keys."
            )


# Who speaks over stdio, or uses the library: the user whose process this is.
LOCAL_CALLER: Final = Caller(LOCAL_TENANT, LOCAL_KEY, LOCAL_KEY, frozenset(SCOPES))


class Credentials(Protocol):
    """Says who holds a token. Calls may run concurrently."""

    async def verify(self, token: str) -> Caller | None:
        """Whose token that is; None where it is wrong, absent, expired or revoked, of which no more is told."""

    async def current(self, caller: Caller) -> bool:
        """Whether a caller that was verified before would be verified now, with the same scopes: asked for each request
        on a connection that stays open.
        """


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says of its holder that somebody else has issued."""

    tenant: str  # its name
    subject: str
    scopes: frozenset[Scope]
    expires_at: datetime


class Issuer(Protocol):
    """Somebody else who issues tokens, such as an OpenID provider."""

    async def read(self, token: str) -> Claims | None:
        """What the token says, where its signature, issuer, audience and time are right; else None. Bounded."""
