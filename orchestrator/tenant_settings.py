"""The settings that matter where several share an installation: quotas, the audit, tokens of somebody else's."""

from collections.abc import Iterator
from typing import Literal

from pydantic import ByteSize, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.domain.quotas import Quotas
from orchestrator.setting_sources import PREFIX

_DAY = 86_400.0


class TenantSettings(BaseSettings):
    """A part of `Settings`. Of each quota, 0 means no limit; a tenant's own override stands above it. None of them
    holds for the local tenant, whose machine it is, unless it has an override.
    """

    model_config = SettingsConfigDict(use_attribute_docstrings=True)

    quota_sessions: int = Field(default=1000, ge=0)
    """Sessions that a tenant may have, asleep or not. Default 1000: far more than anybody can tell apart."""

    quota_live_sandboxes: int = Field(default=8, ge=0)
    """Containers that a tenant may have at once; its idle sessions make room for its next calls.
    Default 8: half of what there are by default, so that no tenant has all."""

    quota_running: int = Field(default=4, ge=0)
    """Executions of a tenant that may run at once; more wait for their turn, as long as for a sandbox.
    Default 4: as much in parallel as one agent asks for."""

    quota_executions_a_minute: int = Field(default=600, ge=0)
    """Executions that a tenant may begin in a minute. Default 600: ten a second, which no model keeps up."""

    quota_cpu_seconds_a_day: float = Field(default=36_000.0, ge=0, allow_inf_nan=False)
    """Seconds of processor that a tenant's executions may take in 24 hours. Default 36,000: ten hours of one CPU."""

    quota_stored_bytes: ByteSize = Field(default=ByteSize(20_000_000_000), ge=0)
    """Bytes on the disk of all of a tenant's sessions. Default 20 GB: a thousand sessions of the usual size."""

    quota_files: int = Field(default=100_000, ge=0)
    """Files in the workspaces of all of a tenant's sessions, as of their snapshots. Default 100,000."""

    quota_time_limit: float = Field(default=3600.0, ge=0, le=3600, allow_inf_nan=False)
    """Seconds that a tenant may give an execution to run. Default 3600: the most that anybody may."""

    max_running: int = Field(default=0, ge=0, le=10_000)
    """Executions of all tenants that may run at once; who waits has its turn by its tenant's weight.
    Default 0: as many as there are CPUs. Cells have no network to wait for, so more would only slow each other down."""

    running_slice: float = Field(default=10.0, ge=0.1, le=3600, allow_inf_nan=False)
    """Seconds after which an execution counts into `max_running` no more; it runs on, beside the next one.
    Default 10: so long may a call have to wait where every other one takes an hour."""

    audit_code: Literal["hash", "text", "nothing"] = "hash"
    """What the audit keeps of the code that is run: its SHA-256, its text as well, or nothing.
    Default `hash`: enough to prove what was run to whoever has the code."""

    audit_days: float = Field(default=90.0, ge=2, le=36_500, allow_inf_nan=False)
    """Days for which the audit's entries are kept; at least 2, since what was used in a day is read from them.
    Default 90: a quarter of a year."""

    repeat_window: float = Field(default=_DAY, ge=60, le=30 * _DAY, allow_inf_nan=False)
    """Seconds for which a call with an idempotency key is remembered, so that the same call again is not run again.
    Default 86,400: longer than any client tries."""

    jwt_issuer: str | None = Field(default=None, min_length=1)
    """Whose JWTs are taken in place of keys: the `iss` that they must have. Default None: nobody's."""

    jwt_audience: str | None = Field(default=None, min_length=1)
    """The `aud` that they must have; needed with `jwt_issuer`, since a token for another service must not open this.
    Best the URL that clients use, with /mcp: then they are told by whom they get tokens. Default None."""

    jwt_keys: str | None = Field(default=None, min_length=1)
    """Where the issuer's public keys are, as a JWK set: an https URL, or a file; needed with `jwt_issuer`.
    Default None."""

    jwt_algorithms: str = Field(default="RS256,ES256,EdDSA", pattern=r"^(?:(?:RS|ES|PS)(?:256|384|512)|EdDSA|,)+$")
    """The algorithms of signatures that are taken, with commas between; none that needs a shared secret is one.
    Default: the usual ones."""

    jwt_tenant_claim: str = Field(default="tenant", min_length=1)
    """The claim that holds the tenant's name. Default `tenant`."""

    jwt_scopes_claim: str = Field(default="scope", min_length=1)
    """The claim that holds scopes, in a list or with spaces between; `use`, `read` and `admin` are read, others are
    somebody else's. Default `scope`, as OAuth has it."""

    def issuer_named_in_part(self) -> Iterator[str]:
        """A fault where some of what an issuer needs is set, and some not."""
        given = (self.jwt_issuer, self.jwt_audience, self.jwt_keys)
        if any(given) and not all(given):
            names = ", ".join(f"{PREFIX}JWT_{name}" for name in ("ISSUER", "AUDIENCE", "KEYS"))
            yield f"{names} must be set together, or none of them"

    @property
    def quotas(self) -> Quotas:
        """Every tenant's, where it has none of its own."""
        return Quotas(
            sessions=self.quota_sessions or None,
            live_sandboxes=self.quota_live_sandboxes or None,
            running=self.quota_running or None,
            executions_a_minute=self.quota_executions_a_minute or None,
            cpu_seconds_a_day=self.quota_cpu_seconds_a_day or None,
            stored_bytes=int(self.quota_stored_bytes) or None,
            files=self.quota_files or None,
            time_limit=self.quota_time_limit or None,
        )
