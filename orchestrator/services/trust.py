"""Whose capsules may be imported, as the operator says; each change is in the audit."""

import asyncio
from collections.abc import Sequence
from typing import Final

from orchestrator.domain.access import Caller
from orchestrator.domain.audit import Act, AuditEntry
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.ports import Clock, Records
from orchestrator.domain.signing import Signing, TrustedSigner, fingerprint, key_of, signers_of, text_of
from orchestrator.domain.tenants import name_of
from orchestrator.services.auditing import Auditing

_NOTED: Final = "trusted signers"
_MOST: Final = 1_000


class Trust:
    """Every method that changes something raises PermissionDeniedError for who is no operator."""

    def __init__(self, records: Records, signing: Signing, audit: Auditing, clock: Clock) -> None:
        self._records = records
        self._signing = signing
        self._audit = audit
        self._clock = clock
        self._changing = asyncio.Lock()  # one process owns the records

    def own_key(self) -> str:
        """The public key of this installation, to be given to others."""
        return self._signing.public_key().hex()

    async def list(self) -> Sequence[TrustedSigner]:
        """Those that are trusted, in the order of their coming."""
        return signers_of(await self._records.remembered(_NOTED))

    async def add(self, name: str, key: str, *, by: Caller) -> TrustedSigner:
        """From now on that signer's capsules may be imported, under that name. Raises InvalidRequestError where name or
        key is taken, or is none.
        """
        by.require("admin")
        signer = TrustedSigner(name_of(name, "signer"), key_of(key), self._clock.now())
        async with self._changing:
            known = await self.list()
            if any(signer.name == one.name or signer.key == one.key for one in known):
                raise InvalidRequestError(
                    "A signer of that name or with that key is trusted already.", hint="Remove it first."
                )
            if len(known) >= _MOST:
                raise InvalidRequestError(f"{_MOST} signers are trusted already.", hint="Remove some.")
            await self._records.remember(_NOTED, text_of([*known, signer]))
        await self._note("trust signer", signer, by)
        return signer

    async def remove(self, name: str, *, by: Caller) -> None:
        """What that signer signs is imported no more; what was stays. Raises InvalidRequestError."""
        by.require("admin")
        async with self._changing:
            known = await self.list()
            gone = [one for one in known if one.name == name]
            if not gone:
                raise InvalidRequestError(f"No signer {name!r} is trusted.", hint="List them to see which are.")
            await self._records.remember(_NOTED, text_of([one for one in known if one.name != name]))
        await self._note("distrust signer", gone[0], by)

    async def name_of(self, key: str) -> str | None:
        """Under which name that key is trusted; None where it is not, the empty name for our own."""
        if key == self.own_key():
            return ""
        return next((signer.name for signer in await self.list() if signer.key == key), None)

    async def _note(self, act: Act, signer: TrustedSigner, by: Caller) -> None:
        told = {"name": signer.name, "fingerprint": fingerprint(signer.key)}
        await self._audit.note(AuditEntry(act, by.tenant, by.key_id, outcome="ok", detail=told))
