"""What a session may be: whether each answer fits what was sent, answered and told before. Pure."""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos.answers import Answer, Span, State
from tests.chaos.programs import KINDS, SLOTS

# How a step may end because of what was done to its sandbox, its owner or its engine.
FAULTY = frozenset({"crashed", "sandbox_lost", "engine_unavailable", "busy"})
_NOT_RUN = frozenset({"sandbox_lost", "engine_unavailable", "busy"})
_NEVER_ENDS = 2**62


@dataclass(slots=True)
class Step:
    """A number on its way through the session."""

    number: int
    kind: str
    execution: int | None = None  # None: nobody has said
    whole: bool = False  # it has printed its own state: it is in list, array and file
    seen: bool = False  # in a state, its own or a later one
    gone: bool = False  # missing in a state after it was sent, or lost: it must never come back
    saved: bool = False  # by an answer's word: nothing may lose it


@dataclass(slots=True)
class SessionModel:
    """The steps of one session, in their order; the session runs one after the other."""

    steps: dict[int, Step] = field(default_factory=dict)
    told: list[Span] = field(default_factory=list)
    files_told: list[Span] = field(default_factory=list)
    lost: int = 0  # steps that were there, are not, and were told
    unheard: int = 0  # likewise, but told in an answer that never came
    _unheard_since: int | None = None  # the first call since the last state whose answer may have told something

    def sent(self, number: int, kind: str) -> None:
        """A step is on its way."""
        self.steps[number] = Step(number, kind)

    def unanswered(self, number: int, *, may_have_told: bool) -> None:
        """Its answer never came; `may_have_told`: it may have been on its way with all that there was to tell."""
        if may_have_told and self._unheard_since is None:
            self._unheard_since = number

    def answered(self, number: int, answer: Answer) -> list[str]:
        """A sentence for each thing that must not be."""
        step = self.steps[number]
        breaches = [*self._of_the_answer(step, answer)]
        if answer.execution is None:
            step.gone = True
            return breaches
        step.execution = answer.execution
        before = list(self.told)
        self.told += answer.lost
        self.files_told += answer.files_lost
        if answer.left_out:
            self._begin_anew(step)
        if answer.state is not None:
            step.whole = True
            # A call that has cost its process tells in one answer what it saw and that it is lost.
            breaches += self._of_the_state(step, answer.state, before if answer.resumed else self.told)
        if answer.resumed:
            breaches += self._of_the_fall(answer)
        if answer.state is not None:
            self._unheard_since = None
        self._believe(answer)
        return breaches

    # an answer by itself

    def _of_the_answer(self, step: Step, answer: Answer) -> Iterator[str]:
        kind = KINDS[step.kind]
        expected = None if kind.ends == "ok" else kind.ends
        if answer.code != expected and answer.code not in FAULTY and not self._is_taken_for_memory(answer):
            yield f"step {step.number} ({step.kind}) ended with {answer.code or 'ok'}: {answer.message}"
        if answer.execution is None and answer.code not in _NOT_RUN:
            yield f"step {step.number} ended with {answer.code or 'ok'} and was not run"
        if answer.execution is not None and answer.execution <= self._last_execution():
            yield f"step {step.number} has execution {answer.execution}, after {self._last_execution()}"
        if answer.state is None and answer.code in (None, "exception"):
            yield f"step {step.number} was run and has not printed its state"
        yield from (f"an answer has the note {note!r}" for note in answer.strange)

    def _is_taken_for_memory(self, answer: Answer) -> bool:
        """An engine says of a container that ran out of memory once, and was killed later, that it did for memory."""
        filled = any(step.kind == "fills" for step in self.steps.values())
        return filled and answer.code == "oom" and "ended the whole sandbox" in answer.message

    def _last_execution(self) -> int:
        return max((step.execution for step in self.steps.values() if step.execution is not None), default=0)

    # its state, and what was told before

    def _of_the_state(self, step: Step, state: State, claimed: Sequence[Span]) -> Iterator[str]:
        yield from _rising("the list", state.numbers)
        yield from _rising("the file", state.files)
        held, files = set(state.numbers), set(state.files)
        if step.number not in held & files:
            yield f"step {step.number} is not in its own state"
        yield from (f"{number} was never sent" for number in sorted((held | files) - self.steps.keys()))
        present = [one for one in self.steps.values() if one.number in held]
        yield from self._of_what_is_there(present, claimed, files)
        yield from self._of_what_is_missing([one for one in self.steps.values() if one.number not in held])
        yield from _of_the_slots(state, present)

    def _of_what_is_there(
        self, present: Sequence[Step], claimed: Sequence[Span], files: AbstractSet[int]
    ) -> Iterator[str]:
        for one in present:
            one.seen = True
            if one.gone:
                yield f"step {one.number} was gone and is there again"
            if one.execution is not None and _covers(claimed, (one.execution, one.execution)):
                yield f"step {one.number}, execution {one.execution}, was told as lost and is there"
            told = _covers(self.files_told, self._executions_of(one)) or self._may_be_unheard(one)
            if one.whole and one.number not in files and not told:
                yield f"step {one.number} is in the list and not in the file, which nobody told"

    def _of_what_is_missing(self, missing: Sequence[Step]) -> Iterator[str]:
        for one in missing:
            known, one.gone = one.seen and not one.gone, True
            if not known:
                continue  # nobody knows whether it was ever there, or it has been looked at before
            if one.saved:
                yield f"step {one.number}, execution {one.execution}, was saved and is missing"
            if _covers(self.told, self._executions_of(one)):
                self.lost += 1
            elif self._may_be_unheard(one):
                self.unheard += 1
            else:
                yield f"step {one.number}, execution {one.execution}, is missing, which nobody told"

    def _may_be_unheard(self, one: Step) -> bool:
        """Whether what there was to tell of it may have been in an answer that never came."""
        return self._unheard_since is not None and self._unheard_since > one.number

    def _executions_of(self, one: Step) -> Span:
        """Its execution, or all that it may have been."""
        if one.execution is not None:
            return one.execution, one.execution
        known = [(step.number, step.execution) for step in self.steps.values() if step.execution is not None]
        after = max((execution for number, execution in known if number < one.number), default=0)
        before = min((execution for number, execution in known if number > one.number), default=_NEVER_ENDS)
        return after + 1, before - 1

    # where it stands afterwards

    def _of_the_fall(self, answer: Answer) -> Iterator[str]:
        """What came after the execution that the session now stands at is told, in this very answer or before."""
        for one in self.steps.values():
            if one.gone or one.execution is None or one.execution <= answer.resumed_from:
                continue
            one.gone = True
            if _covers(self.told, (one.execution, one.execution)):
                self.lost += one.seen
            elif self._may_be_unheard(one):
                self.unheard += one.seen
            else:
                yield f"it stands at execution {answer.resumed_from}, and nobody told that {one.execution} is lost"

    def _begin_anew(self, step: Step) -> None:
        """The wake before this step has named as lost what all steps before it had left."""
        for one in self.steps.values():
            if one is not step:
                self.lost += one.seen and not one.gone
                one.gone = True

    def _believe(self, answer: Answer) -> None:
        for one in self.steps.values():
            if one.execution is not None and one.execution <= answer.saved_through:
                there = one.seen and not one.gone and not _covers(self.told, (one.execution, one.execution))
                one.saved = one.saved or there


def _covers(spans: Sequence[Span], wanted: Span) -> bool:
    """Whether any of the wanted executions is in one of them."""
    first, last = wanted
    return any(begin <= last and first <= end for begin, end in spans)


def _rising(what: str, numbers: Sequence[int]) -> Iterator[str]:
    yield from (f"{what} has {after} after {before}" for before, after in pairwise(numbers) if after <= before)


def _of_the_slots(state: State, present: Sequence[Step]) -> Iterator[str]:
    """The array is of the same moment as the list: each whole step is counted, and no other."""
    for slot, count in enumerate(state.slots):
        counted = [one for one in present if one.number % SLOTS == slot]
        if not sum(one.whole for one in counted) <= count <= len(counted):
            yield f"slot {slot} of the array has {count}, and the list {len(counted)}"
