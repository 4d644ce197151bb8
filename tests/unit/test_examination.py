"""What the doctor says, to people and to programs; its exit code is 0 only where all that is required holds."""

import json
from dataclasses import replace

import pytest

from orchestrator.domain.attacking import judged_cell, judged_trial, plan_attack
from orchestrator.domain.examination import Attacked, Examination, no_boundaries
from orchestrator.domain.hostile_cells import CELLS, TRIALS
from orchestrator.domain.model import CellReport
from orchestrator.domain.probes import PROBES
from orchestrator.domain.probing import Finding, Verdict

SOUND = Examination(
    "1.0",
    {"engine": "Docker Engine 26"},
    tuple(Finding(probe.name, "enforced", probe.protection, "1", None, probe.required) for probe in PROBES),
)


def lacking(name: str, verdict: Verdict = "not enforced") -> Examination:
    """Sound but for that one."""
    rows = [replace(one, verdict=verdict, remedy="mend it") if one.name == name else one for one in SOUND.protections]
    return replace(SOUND, protections=tuple(rows))


def report(outcome: str, value: str | None = None) -> CellReport:
    """Of a cell that printed nothing."""
    fields = dict.fromkeys(CellReport.__dataclass_fields__)
    return CellReport(**{**fields, "outcome": outcome, "value": value})  # type: ignore[arg-type]


def test_all_that_is_required_holds() -> None:
    assert (SOUND.exit_code, SOUND.lacking) == (0, ())
    assert list(SOUND.lines())[-1] == "Everything that is required is enforced."


@pytest.mark.parametrize("verdict", ["not enforced", "unknown"])
def test_one_that_is_missing_or_unknown_is_told_with_what_to_do(verdict: Verdict) -> None:
    found = lacking("swap", verdict)
    assert (found.exit_code, found.lacking) == (1, ("swap",))
    told = "\n".join(found.lines())
    assert f"{verdict.upper()}" in told
    assert "what to do: mend it" in told
    assert "ORCHESTRATOR_ALLOW_UNENFORCED=swap" in told


def test_one_that_is_allowed_by_name_to_be_missing_is_told_and_no_failure() -> None:
    found = replace(lacking("swap"), allowed=frozenset({"swap"}))
    assert (found.exit_code, found.lacking) == (0, ())
    told = "\n".join(found.lines())
    assert "not enforced *" in told
    assert "The settings allow this one to be missing." in told
    assert replace(found, allowed=frozenset({"network"})).exit_code == 1


def test_what_is_not_required_may_be_missing() -> None:
    found = lacking("landlock")
    assert found.exit_code == 0
    assert any(line.startswith("missing") for line in found.lines())


def test_where_nothing_or_not_all_could_be_asked_nothing_is_said_to_hold() -> None:
    silent = Examination("1.0", {}, problem="No engine answers.", hint="Start one.")
    assert silent.exit_code == 3
    assert list(silent.lines())[-2:] == ["No engine answers.", "Start one."]
    assert replace(SOUND, problem="The sandbox was lost.").exit_code == 3
    assert Examination("1.0", {}).exit_code == 3


def test_an_attack_that_gets_through_is_a_failure_and_named() -> None:
    attacks = (Attacked("a", "held", "'EPERM'"), Attacked("b", "got through", "'done'"))
    found = replace(SOUND, attacks=attacks)
    assert (found.exit_code, found.got_through) == (1, ("b",))
    told = "\n".join(found.lines())
    assert "GOT THROUGH   b; seen was 'done'" in told
    assert "1 of 2 attacks were held." in told
    assert replace(SOUND, attacks=attacks[:1]).exit_code == 0
    assert replace(SOUND, attacks=(Attacked("c", "not on this kernel", ""),)).exit_code == 0


def test_programs_get_the_documented_fields() -> None:
    found = replace(lacking("swap"), allowed=frozenset({"swap"}), attacks=(Attacked("a", "held", "'EPERM'"),))
    told = json.loads(json.dumps(found.as_json()))
    assert list(told) == [
        *("schema", "version", "exit_code", "lacking", "facts", "protections", "warnings"),
        *("checks", "versions", "attacks", "problem"),
    ]
    assert (told["schema"], told["exit_code"], told["problem"]) == (1, 0, None)
    row = next(one for one in told["protections"] if one["name"] == "swap")
    assert row == {
        "name": "swap",
        "verdict": "not enforced",
        "required": True,
        "allowed": True,
        "protection": "no memory goes to the disk",
        "seen": "1",
        "remedy": "mend it",
    }
    assert told["attacks"] == [{"name": "a", "verdict": "held", "seen": "'EPERM'"}]
    problem = Examination("1.0", {}, problem="No engine.", hint=None).as_json()["problem"]
    assert problem == {"message": "No engine.", "hint": None}


def test_what_is_no_boundary_depends_on_the_engine() -> None:
    rootful = {"SecurityOptions": ["name=seccomp,profile=default"], "Warnings": ["WARNING: No swap limit support"]}
    plain = " ".join(no_boundaries(rootful, runtime="runc", remapped=False, plain_tcp=True))
    for told in ("The kernel: runc", "User ids", "equals root", "encrypted", "Disk", "No swap limit support"):
        assert told in plain
    rootless = {"SecurityOptions": ["name=seccomp", "name=rootless"], "Warnings": None}
    better = " ".join(no_boundaries(rootless, runtime="runsc", remapped=True, plain_tcp=False))
    for told in ("The kernel", "User ids", "equals root", "encrypted"):
        assert told not in better


def test_an_attack_leaves_out_what_this_kernel_cannot_close_and_says_so() -> None:
    full = plan_attack(machine="x86_64", landlock=7)
    assert (full.cells, full.left_out) == (CELLS, ())
    older = plan_attack(machine="aarch64", landlock=4)
    assert {one.name for one in older.left_out} == {"pid_1_is_not_signalled", "the_zygote_is_not_signalled"}
    assert all(cell.machine is None for cell in older.cells)
    without = plan_attack(machine="x86_64", landlock=0)
    assert {cell.without for cell in full.cells if cell not in without.cells} == {"no landlock"}
    assert all(cell.landlock for cell in CELLS if cell.without == "no landlock")


def test_only_the_exact_answer_of_a_cell_has_held() -> None:
    cell = CELLS[0]
    assert judged_cell(cell, report("ok", repr(cell.answer))).verdict == "held"
    for other in (report("ok", "'done'"), report("ok", "'ENOSYS'"), report("exception"), report("crashed")):
        assert judged_cell(cell, other).verdict == "got through"


def test_a_trial_has_to_end_as_it_may_and_the_sandbox_to_answer_afterwards() -> None:
    trial = TRIALS[0]
    answering, silent = report("ok", "42"), report("timeout")
    assert judged_trial(trial, report("timeout"), answering).verdict == "held"
    assert judged_trial(trial, report("ok"), answering).seen == "it ended as ok"
    assert judged_trial(trial, report("timeout"), silent).seen == "the next cell ended as timeout"
