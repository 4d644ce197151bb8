"""All settings, each an environment variable `ORCHESTRATOR_<NAME>` or a key of the configuration file.

Nothing else reads the environment. (`places.py` reads the two directories as well, for the relay, which has no time for
pydantic.)
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ByteSize, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator import places
from orchestrator.domain import together
from orchestrator.domain.errors import InvalidRequestError
from orchestrator.domain.hardening import MIB, SandboxProfile
from orchestrator.domain.probes import PROBES
from orchestrator.http_settings import AbsolutePath, HttpSettings
from orchestrator.setting_sources import PREFIX as PREFIX  # noqa: PLC0414 - for whoever names a setting
from orchestrator.setting_sources import SettingsError as SettingsError  # noqa: PLC0414 - what loading raises
from orchestrator.setting_sources import Sources, variable_of
from orchestrator.tenant_settings import TenantSettings

MAX_TIME_LIMIT = 3600.0  # seconds; a cell that needs more is a job, and wants a job queue
_KIB = 1024
_CENTURY = 3_153_600_000  # seconds
_BESIDE_A_SAVE = 64 * MIB
_DEFAULTS = SandboxProfile()


class Settings(HttpSettings, TenantSettings, BaseSettings):
    """How this installation behaves. Times in seconds, sizes in bytes (or written as `64KiB`, `1GiB`)."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    data_dir: AbsolutePath = Field(default_factory=lambda: Path(places.usual_data_directory()))
    """Where records, snapshots and logs lie; one process owns it at a time.
    Default: `session-orchestrator` in `$XDG_DATA_HOME` or `~/.local/share`, where the desktop standard puts data."""

    runtime_dir: AbsolutePath = Field(default_factory=lambda: Path(places.usual_runtime_directory()))
    """Where the owner's socket and the channels' directories lie, closed to other users.
    Default: `session-orchestrator` in the user's runtime directory, which ends with the login; `/run` for root;
    else a directory of our own among temporary files."""

    default_time_limit: float = Field(default=60.0, gt=0, le=MAX_TIME_LIMIT, allow_inf_nan=False)
    """Seconds that a cell may run where the caller names no limit; at most 3600.
    Default 60: long enough for interactive work, short enough that an endless loop is noticed."""

    interrupt_grace: float = Field(default=2.0, ge=0.05, le=60, allow_inf_nan=False)
    """Seconds between SIGINT and SIGKILL for a cell that is to stop.
    Default 2: `finally` blocks get to run, and a caller does not wait for code that ignores interrupts."""

    queue_limit: int = Field(default=16, ge=1, le=10_000)
    """Calls that may wait in one session; the next one is answered `busy`.
    Default 16: more than any agent sends at once, so that a full queue means something is stuck."""

    max_sandboxes: int = Field(default=16, ge=1, le=10_000)
    """Containers that may live at once; a call that needs one more has an idle session hibernated, or waits.
    Default 16: with 1 GiB each, what a workstation can take."""

    sandbox_wait: float = Field(default=30.0, ge=0, le=3600, allow_inf_nan=False)
    """Seconds that a call waits for a sandbox where all are in use; then it is answered `busy`.
    Default 30: enough for several sessions to be saved and removed on a busy machine, and well below the minute after
    which many clients give up on a call."""

    output_limit: ByteSize = Field(default=ByteSize(64 * _KIB), ge=_KIB, le=MIB)
    """Bytes of a cell's output that are kept: the first three quarters from its start, the rest from its end.
    Default 64 KiB: about as much as a model reads without losing the thread."""

    max_code: ByteSize = Field(default=ByteSize(MIB), ge=_KIB, le=4 * MIB)
    """Bytes of code that one call may send.
    Default 1 MiB: far above anything written by hand or by a model; data belongs into files."""

    snapshot_after: float = Field(default=2.0, ge=0, le=86_400, allow_inf_nan=False)
    """Seconds of quiet after which a session is saved; longer by itself where saving is dear.
    Default 2: a pause for thought saves the work, a burst of calls is not slowed down."""

    snapshot_max_age: float = Field(default=60.0, ge=0.1, le=86_400, allow_inf_nan=False)
    """Seconds that the oldest unsaved execution may grow old, quiet or not; then it is saved between two cells.
    Default 60: what a crash can cost at most, in work that is done."""

    hibernate_after: float = Field(default=600.0, ge=0.1, le=31_536_000, allow_inf_nan=False)
    """Seconds without a call after which a session is saved and its container removed; the next call wakes it.
    Default 600: memory goes back to the machine, and waking takes a second."""

    inactive_after: float = Field(default=604_800.0, ge=0, le=_CENTURY, allow_inf_nan=False)
    """Seconds without use after which a sleeping session is called `inactive`; it wakes as usual. 0: never.
    Default 7 days: what listings set apart from what is being worked on."""

    expire_after: float = Field(default=2_592_000.0, ge=0, le=_CENTURY, allow_inf_nan=False)
    """Seconds without use after which a session is `expired`: not listed any more, and deleted next. 0: never.
    Default 30 days: longer than a holiday. A call still wakes it."""

    delete_after: float = Field(default=86_400.0, ge=0, le=_CENTURY, allow_inf_nan=False)
    """Seconds for which an expired session is still there, and woken by a call; then it is deleted with all that it
    has. 0: never. Default 1 day: time to notice a mistake."""

    variable_limit: ByteSize = Field(default=ByteSize(10_000_000), ge=_KIB)
    """Bytes of one variable, pickled, that are saved; a larger one is not, and that is told.
    Default 10 MB, as the product that ours follows has it; gigabytes work."""

    session_limit: ByteSize = Field(default=ByteSize(100_000_000), ge=_KIB)
    """Bytes of all variables of a session that are saved; beyond that the largest are dropped first, and that is told.
    Default 100 MB, likewise. Workspace files have the limits of the workspace."""

    snapshot_history: int = Field(default=5, ge=2, le=1_000)
    """Snapshots of a session that are kept; they share what did not change.
    Default 5: enough to go back behind a mistake."""

    restore_bound: float = Field(default=30.0, ge=0.5, le=3600, allow_inf_nan=False)
    """Seconds of the processor that one group of values may take to load when its session wakes; else it is left out,
    and named. What hangs is given up after as long. Default 30: imports of large libraries on a busy machine."""

    disk_floor: ByteSize = Field(default=ByteSize(512 * MIB), ge=0)
    """Bytes of free disk below which sessions are not saved any more, so that records and other programs go on.
    Default 512 MiB."""

    session_file_limit: ByteSize | None = Field(default=None, ge=MIB)
    """Bytes that the snapshots of one session may take on the disk; one that does not fit fails, and that is told.
    Default None: as many times the most that is taken of one snapshot (`most_of_a_save`) as there are snapshots, and
    twice more: what an honest session stays far below, and a hostile one does not get past."""

    owner_linger: float = Field(default=60.0, ge=0.2, le=86_400, allow_inf_nan=False)
    """Seconds that the owner process stays after its last client has left.
    Default 60: an editor that restarts finds its sessions alive."""

    sandbox_memory: ByteSize = Field(default=ByteSize(_DEFAULTS.memory), ge=64 * MIB)
    """Bytes of memory of one sandbox, its files included; there is no swap.
    Default 1 GiB: pandas, scikit-learn and a few hundred MB of data."""

    sandbox_cpus: float = Field(default=_DEFAULTS.cpus, ge=0.1, le=1024, allow_inf_nan=False)
    """CPUs of one sandbox; fractions are allowed.
    Default 1: a cell cannot slow down the sessions beside it."""

    sandbox_pids: int = Field(default=_DEFAULTS.pids, ge=32, le=32_768)
    """Processes and threads of one sandbox.
    Default 256: room for subprocesses, and an end for a fork bomb."""

    sandbox_threads: int = Field(default=_DEFAULTS.threads, ge=1, le=1024)
    """Threads of BLAS and OpenMP in one sandbox.
    Default 1, as there is one CPU; with more of these, more can pay. They are let go of before each savepoint."""

    sandbox_workspace: ByteSize = Field(default=ByteSize(_DEFAULTS.workspace), ge=MIB)
    """Bytes of files in `/workspace`; they live in memory and count into `sandbox_memory`, as do those in `/tmp` and
    `/dev/shm`, of which each may have 64 MiB, or an eighth of a memory of less than 512 MiB.
    Default 256 MiB: a quarter of the default memory."""

    sandbox_runtime: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)
    """The OCI runtime that sandboxes run in, by the engine's name for it, such as `runsc` or `kata`.
    Default None: the engine's own default. One that the engine does not have is refused at the start."""

    sandbox_seccomp: AbsolutePath | None = None
    """A file with a seccomp profile, in Docker's format, in place of ours.
    Default None: ours, an allow-list that is made for Python. One that allows what it does not name is refused."""

    sandbox_user_namespace: Literal["engine", "required"] = "engine"
    """Whether user ids in a sandbox must be others than the same numbers on the host.
    Default `engine`: as the engine is set up. `required`: an engine that neither remaps nor is rootless is refused."""

    allow_unenforced: str | None = Field(default=None, max_length=1000)
    """Protections that sandboxes may lack, by their names in `orchestrator doctor`, with commas between them.
    Default None: where the engine does not enforce one that is required, nothing is served. One that is named here and
    is missing is warned of at each start."""

    channel: Literal["auto", "unix", "attach"] = "auto"
    """How the host talks to a sandbox: `unix` (a socket mounted into it), `attach` (the engine's stream).
    Default `auto`: `unix` where a probe shows that a container reaches the host's socket, else `attach`."""

    image: str | None = Field(default=None, min_length=1)
    """Tag of the image that all sandboxes start from, whatever environment a session began on; it must hold our agent.
    Default None: found by environment; without one, what `orchestrator image build` made from the present inputs."""

    docker_host: str | None = Field(default=None, min_length=1)
    """Address of the Docker Engine, such as `unix:///run/docker.sock`.
    Default None: found as the docker CLI does it, in `$DOCKER_HOST`, the context in use, and the usual sockets."""

    @model_validator(mode="after")
    def _can_be_meant_together(self) -> Self:
        ages = {
            variable_of(name): getattr(self, name) for name in ("hibernate_after", "inactive_after", "expire_after")
        }
        protections = [probe.name for probe in PROBES if probe.required]
        faults = (
            *together.ages_out_of_order(ages),
            *together.limits_that_do_not_fit(self.profile, PREFIX),
            *together.no_protections(self.allowed, protections, variable_of("allow_unenforced")),
            *self.ways_to_serve_unsafely(),
            *self.issuer_named_in_part(),
        )
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @classmethod
    def load(cls, **overrides: object) -> Self:
        """Settings from the configuration file, the environment above it, and `overrides` (those that are not None).

        Raises SettingsError that names every fault, be it a variable with our prefix, or a key, that is no setting: a
        limit that nobody hears is worse than a start that fails.
        """
        return cls.loaded(**overrides)[0]

    @classmethod
    def loaded(cls, **overrides: object) -> tuple[Self, Sources]:
        """The same, and where each value has come from."""
        sources = Sources.look(cls.model_fields, overrides, os.environ)
        initial: dict[str, Any] = sources.initial
        try:
            settings = cls(**initial)
        except ValidationError as failure:
            faults = [*_told(failure, sources)]
            wrong = {str(fault["loc"][0]) for fault in failure.errors() if fault["loc"]}
            # Those faults hide what cannot be meant together, which is told in one go.
            sane = {name: field.get_default(call_default_factory=True) for name, field in cls.model_fields.items()}
            try:
                cls(**{**initial, **{name: sane[name] for name in wrong if name in sane}})
            except ValidationError as more:
                faults = [*dict.fromkeys((*faults, *_told(more, sources)))]
            raise SettingsError(*faults, *sources.faults) from failure
        if sources.faults:
            raise SettingsError(*sources.faults)
        return settings, sources

    @property
    def allowed(self) -> frozenset[str]:
        """The protections that sandboxes may lack."""
        return frozenset((self.allow_unenforced or "").replace(",", " ").split())

    @property
    def output_head(self) -> int:
        """Bytes of output kept from its start."""
        return self.output_limit * 3 // 4

    @property
    def output_tail(self) -> int:
        """Bytes of output kept from its end."""
        return self.output_limit - self.output_head

    @property
    def most_of_a_save(self) -> int:
        """Bytes that a sandbox may send for one snapshot, raw or stored; more is no honest one.

        A value whose saving crashes has the rest written once more, in packs of their own; a file that is written while
        it is read is read up to three times. What stands beside them is the state of the process and small change.
        """
        return 2 * self.session_limit + 3 * self.sandbox_workspace + _BESIDE_A_SAVE

    @property
    def most_of_a_file(self) -> int:
        """Bytes that a session's file may reach: its history, and two more snapshots.

        One is being written, one may be held by a reader. `most_of_a_save` is at least twice what a snapshot holds: the
        rest is for SQLite, where a piece just over half a page takes a whole one.
        """
        if self.session_file_limit is not None:
            return self.session_file_limit
        return (self.snapshot_history + 2) * self.most_of_a_save

    @property
    def profile(self) -> SandboxProfile:
        """The limits of a sandbox."""
        return replace(
            _DEFAULTS.of_memory(int(self.sandbox_memory)),
            cpus=self.sandbox_cpus,
            pids=self.sandbox_pids,
            threads=self.sandbox_threads,
            workspace=int(self.sandbox_workspace),
        )

    @property
    def owner_socket(self) -> Path:
        """Where the owner of `data_dir` listens. Raises InvalidRequestError where that path is too long."""
        try:
            return Path(places.socket_path(str(self.runtime_dir), str(self.data_dir)))
        except places.PlaceError as failure:
            raise InvalidRequestError(failure.message, hint=failure.hint) from failure


def _told(failure: ValidationError, sources: Sources) -> Iterator[str]:
    for fault in failure.errors(include_url=False, include_input=False):
        if not fault["loc"]:  # of several settings together, which the message names
            for line in fault["msg"].removeprefix("Value error, ").split("\n"):
                yield sources.placed(line)
            continue
        name = "_".join(str(part) for part in fault["loc"])
        yield f"{sources.named(name)}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"
