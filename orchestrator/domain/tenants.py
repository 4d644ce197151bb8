"""Tenants and their keys: the records, and what is done with them. Docstrings of the port are its contract."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from orchestrator.domain.access import Scope
from orchestrator.domain.audit import AuditEntry
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.identifiers import session_id_of

MOST_WEIGHT: Final = 1000.0
LEAST_WEIGHT: Final = 0.001


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who owns sessions. An id is random, and so never means somebody else, not even after the tenant was deleted."""

    id: str  # internal: what sessions and the audit name
    name: str
    disabled: bool
    weight: float  # its share of what is scarce, against other tenants'
    quotas: Mapping[str, float | None]  # in place of the defaults, by name
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret."""

    id: str  # the prefix of its text
    tenant: str
    name: str
    digest: bytes = field(repr=False)
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None  # None: never
    revoked_at: datetime | None
    used_at: datetime | None  # about: written now and then

    def valid(self, now: datetime) -> bool:
        """Whether it opens anything now."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key, with the text that is shown once and kept nowhere."""

    key: ApiKey
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a tenant has."""

    sessions: tuple[str, ...]  # their keys
    files: int  # in their workspaces, as of their snapshots


def name_of(text: str, what: str) -> str:
    """A name for a tenant or a key, by the rules of session ids. Raises InvalidRequestError."""
    try:
        return session_id_of(text)
    except InvalidRequestError as error:
        raise InvalidRequestError(error.message.replace("session id", f"name of the {what}"), hint=error.hint) from None


def weight_of(weight: float) -> float:
    """Raises InvalidRequestError for what is no weight."""
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise InvalidRequestError(
            f"The weight is {weight:g}; it must be {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}.",
            hint="1 is everybody's default.",
        )
    return weight


class TenantRecords(Protocol):
    """Rules as for `Records`: one transaction each, atomic under cancellation.

    A change takes the audit's entry of it, `noted`, and writes it in the same transaction, completed by what only the
    records know: the tenant, and what a new key is. Where nothing was changed, nothing is written.
    """

    async def tenants(self) -> Sequence[Tenant]:
        """All of them, oldest first. The local one is always there."""

    async def add_tenant(
        self, name: str, weight: float, quotas: Mapping[str, float | None], *, noted: AuditEntry
    ) -> Tenant | None:
        """A new one; None where the name is taken."""

    async def change_tenant(
        self,
        tenant: str,
        *,
        disabled: bool | None = None,
        weight: float | None = None,
        quotas: Mapping[str, float | None] | None = None,
        noted: AuditEntry,
    ) -> Tenant | None:
        """Change what is given; None where there is no such tenant."""

    async def remove_tenant(self, tenant: str, *, noted: AuditEntry) -> bool:
        """Delete it with its keys, where none of its sessions is left but those that are being destroyed. Whether it
        was there and is not any more.
        """

    async def keys(self) -> Sequence[ApiKey]:
        """All of all tenants, oldest first, revoked and expired ones too."""

    async def issue_key(
        self, tenant: str, name: str, scopes: frozenset[Scope], expires_at: datetime | None, *, noted: AuditEntry
    ) -> IssuedKey | None:
        """A new key; None where there is no such tenant."""

    async def rotate_key(
        self, key: str, expires_at: datetime | None, *, old_until: datetime, noted: AuditEntry
    ) -> IssuedKey | None:
        """A new key with the name and the scopes of that one, which is valid until `old_until` and no longer than it
        was; None where that one is not there or not valid any more.
        """

    async def revoke_key(self, key: str, *, noted: AuditEntry) -> bool:
        """It opens nothing any more; whether it was not revoked before."""

    async def holdings(self, tenant: str) -> "Holdings":
        """What the tenant has."""

    async def keys_used(self, used: Mapping[str, datetime]) -> None:
        """Note when keys were last used."""
