"""What `orchestrator doctor` has found: a report for people, the same for programs, and the exit code. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from orchestrator.domain.checkup import Check
from orchestrator.domain.enforcement import missing
from orchestrator.domain.probing import Finding

SCHEMA: Final = 1  # raised where a field changes its meaning or goes; new ones may come at any time
EXIT_HOLDS: Final = 0
EXIT_LACKING: Final = 1
EXIT_UNKNOWN: Final = 3  # 2 is a wrong command line

_KERNELS_OF_THEIR_OWN = ("runsc", "kata", "gvisor")


@dataclass(frozen=True, slots=True)
class Attacked:
    """One hostile cell, and what came of it."""

    name: str
    verdict: Literal["held", "got through", "not on this kernel"]
    seen: str


@dataclass(frozen=True, slots=True)
class Examination:
    """`facts` are names and values for people; `problem` is why nothing, or not all, could be asked."""

    version: str
    facts: Mapping[str, str]
    protections: tuple[Finding, ...] = ()
    allowed: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()
    attacks: tuple[Attacked, ...] | None = None  # None: not asked for
    checks: tuple[Check, ...] = ()  # what lies beside the engine
    versions: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None
    hint: str | None = None

    @property
    def lacking(self) -> tuple[str, ...]:
        """What is required, not seen to be enforced, and not allowed to be missing, by name."""
        return tuple(one.name for one in missing(self.protections) if one.name not in self.allowed)

    @property
    def got_through(self) -> tuple[str, ...]:
        """The attacks that did, by name."""
        return tuple(one.name for one in self.attacks or () if one.verdict == "got through")

    @property
    def wrong(self) -> tuple[str, ...]:
        """The checks that say that something does not work, by name."""
        return tuple(one.name for one in self.checks if one.verdict == "wrong")

    @property
    def exit_code(self) -> int:
        """0 only where everything was asked and everything that is required holds."""
        if self.lacking or self.got_through or self.wrong:
            return EXIT_LACKING
        return EXIT_UNKNOWN if self.problem is not None or not self.protections else EXIT_HOLDS

    def as_json(self) -> dict[str, Any]:
        """The documented schema."""
        return {
            "schema": SCHEMA,
            "version": self.version,
            "exit_code": self.exit_code,
            "lacking": list(self.lacking),
            "facts": dict(self.facts),
            "protections": [
                {
                    "name": one.name,
                    "verdict": one.verdict,
                    "required": one.required,
                    "allowed": one.name in self.allowed,
                    "protection": one.protection,
                    "seen": one.answer,
                    "remedy": one.remedy,
                }
                for one in self.protections
            ],
            "warnings": list(self.warnings),
            "checks": [asdict(one) for one in self.checks],
            "versions": dict(self.versions),
            "attacks": None if self.attacks is None else [asdict(one) for one in self.attacks],
            "problem": None if self.problem is None else {"message": self.problem, "hint": self.hint},
        }

    def lines(self) -> Iterator[str]:
        """The same for people."""
        for name, value in self.facts.items():
            yield f"{name:15} {value}"
        if self.protections:
            yield ""
        for one in self.protections:
            yield f"{self._verdict(one):13} {one.name:18} {one.protection}; seen was {one.answer}"
            if one.remedy:
                yield f"{'':13} what to do: {one.remedy}"
        yield from (f"no boundary   {warning}" for warning in self.warnings)
        yield from self._check_lines()
        if self.attacks is not None:
            yield from self._attack_lines(self.attacks)
        yield ""
        yield from self._conclusion()

    def _check_lines(self) -> Iterator[str]:
        yield ""
        for one in self.checks:
            yield f"{one.verdict if one.verdict == 'fine' else one.verdict.upper():13} {one.name:18} {one.seen}"
            if one.remedy:
                yield f"{'':13} what to do: {one.remedy}"
        if self.versions:
            yield f"{'':13} {'versions':18} {', '.join(f'{name} {number}' for name, number in self.versions.items())}"

    def _verdict(self, finding: Finding) -> str:
        if finding.verdict == "enforced":
            return "enforced"
        if not finding.required:
            return "missing"
        return f"{finding.verdict} *" if finding.name in self.allowed else finding.verdict.upper()

    def _attack_lines(self, attacks: tuple[Attacked, ...]) -> Iterator[str]:
        yield ""
        yield from (
            f"{one.verdict.upper():13} {one.name}; seen was {one.seen}" for one in attacks if one.verdict != "held"
        )
        yield f"{sum(one.verdict == 'held' for one in attacks)} of {len(attacks)} attacks were held."

    def _conclusion(self) -> Iterator[str]:
        if any(one.name in self.allowed for one in missing(self.protections)):
            yield "* The settings allow this one to be missing."
        if self.lacking:
            yield f"Not enforced, or not known to be: {', '.join(self.lacking)}. Nothing is served like that."
            yield f"To serve all the same: ORCHESTRATOR_ALLOW_UNENFORCED={','.join(self.lacking)}"
        if self.got_through:
            yield "Something got through that must not. Please tell the maintainers; docs/threat-model.md says how."
        if self.wrong:
            yield f"Not in order: {', '.join(self.wrong)}."
        if self.problem is not None:
            yield self.problem
            yield from filter(None, [self.hint])
        elif self.exit_code == EXIT_HOLDS:
            look = sum(one.verdict == "look" for one in self.checks)
            yield "Everything that is required is enforced." + (f" Worth a look: {look}." if look else "")


def no_boundaries(info: Mapping[str, Any], *, runtime: str, remapped: bool, plain_tcp: bool) -> tuple[str, ...]:
    """What nobody should take for a boundary on this engine; `info` is the engine's word on itself."""
    options = {str(option).partition(",")[0] for option in info.get("SecurityOptions") or ()}
    return (
        *_of_the_kernel(runtime),
        *(() if remapped else ("User ids: root in a container that breaks out is root on the host (userns-remap).",)),
        *(
            ("Access to this engine is that of one user; the owner has it.",)
            if "name=rootless" in options
            else ("Access to this engine equals root on its machine, and the owner has it (a rootless engine).",)
        ),
        *(("The way to the engine: it is neither encrypted nor proven (TLS).",) if plain_tcp else ()),
        "Disk: how fast a sandbox reads files of its image is not limited.",
        *(str(warning) for warning in info.get("Warnings") or ()),
    )


def _of_the_kernel(runtime: str) -> tuple[str, ...]:
    if any(name in runtime for name in _KERNELS_OF_THEIR_OWN):
        return ()
    others = "ORCHESTRATOR_SANDBOX_RUNTIME=runsc or kata"
    return (f"The kernel: {runtime} shares the host's with all sandboxes ({others}).",)
