"""The chaos test's judge: it sees what must not be, and lets pass what was told."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.chaos.answers import Answer, State, answer_of
from tests.chaos.model import SessionModel

ALL_OF = "Lost: the effects of executions {} to {}, because a cell reached the memory limit. They had left: log."


@dataclass(slots=True)
class Session:
    """Answers to a model, each the number and the execution that come next."""

    model: SessionModel = field(default_factory=SessionModel)
    number: int = 0
    execution: int = 0

    def answer(
        self,
        numbers: Sequence[int] | None,
        *,
        files: Sequence[int] | None = None,
        slots: Sequence[int] | None = None,
        kind: str = "plain",
        **more: Any,  # noqa: ANN401 - fields of the answer
    ) -> list[str]:
        """The breaches that the model sees in an answer with that list; the file is like it, and so is the array."""
        self.number += 1
        self.execution += 1
        self.model.sent(self.number, kind)
        counted = [sum(number % 8 == slot for number in numbers or ()) for slot in range(8)]
        state = None if numbers is None else State(numbers, slots or counted, files if files is not None else numbers)
        return self.model.answered(self.number, plain(self.execution, state, **more))

    def unanswered(self, *, may_have_told: bool = True) -> None:
        self.number += 1
        self.execution += 1
        self.model.sent(self.number, "plain")
        self.model.unanswered(self.number, may_have_told=may_have_told)


def plain(execution: int | None, state: State | None, **more: Any) -> Answer:  # noqa: ANN401 - fields of it
    base = Answer(
        execution=execution,
        code=None,
        message="",
        state=state,
        lost=[],
        files_lost=[],
        left_out=False,
        resumed=False,
        resumed_from=0,
        saved_through=0,
        strange=[],
        value=None,
        notes=[],
    )
    return replace(base, **more)


KILLED: dict[str, Any] = {"code": "crashed", "resumed": True, "resumed_from": 1, "kind": "segfaults"}


def test_a_session_that_keeps_everything_is_right() -> None:
    session = Session()
    assert [session.answer(range(1, end + 1)) for end in (1, 2, 3)] == [[], [], []]


def test_a_step_that_ran_twice_is_seen_in_the_list_and_in_the_file() -> None:
    session = Session()
    assert session.answer([1, 1], files=[1], slots=[0, 1, 0, 0, 0, 0, 0, 0]) == ["the list has 1 after 1"]
    assert session.answer([1, 2], files=[1, 1, 2]) == ["the file has 1 after 1"]


def test_a_number_that_nobody_sent_is_seen() -> None:
    assert "7 was never sent" in Session().answer([1, 7])


def test_a_step_that_is_missing_without_a_word_is_seen_once() -> None:
    session = Session()
    session.answer([1])
    assert session.answer([2]) == ["step 1, execution 1, is missing, which nobody told"]
    assert session.answer([2, 3]) == []


def test_a_step_that_was_told_as_lost_may_be_missing_and_never_comes_back() -> None:
    session = Session()
    session.answer([1])
    session.answer([1, 2])
    assert session.answer([1, 3], files=[1, 2, 3], lost=[(2, 2)]) == []
    assert session.model.lost == 1
    assert session.answer([1, 2, 3, 4]) == [
        "step 2 was gone and is there again",
        "step 2, execution 2, was told as lost and is there",
    ]


def test_a_loss_that_is_told_of_what_is_still_there_is_seen() -> None:
    session = Session()
    session.answer([1])
    assert session.answer([1, 2], lost=[(1, 1)]) == ["step 1, execution 1, was told as lost and is there"]


def test_what_was_saved_by_an_answers_word_may_not_be_lost_even_if_that_is_told() -> None:
    session = Session()
    session.answer([1])
    session.answer([1, 2], saved_through=1)
    assert session.answer([3], lost=[(1, 2)]) == ["step 1, execution 1, was saved and is missing"]


def test_a_killed_cell_prints_what_was_there_and_tells_what_is_lost() -> None:
    session = Session()
    session.answer([1])
    session.answer([1, 2])
    assert session.answer([1, 2, 3], lost=[(2, 3)], **KILLED) == []
    assert session.model.lost == 2
    assert session.answer([1, 4], files=[1, 2, 3, 4]) == []


def test_a_killed_cell_that_does_not_tell_all_that_came_after_where_it_stands_is_seen() -> None:
    session = Session()
    session.answer([1])
    session.answer([1, 2])
    assert session.answer(None, lost=[(3, 3)], **KILLED) == ["it stands at execution 1, and nobody told that 2 is lost"]


def test_a_loss_may_have_been_told_in_an_answer_that_was_cut_off_and_is_counted_apart() -> None:
    session = Session()
    session.answer([1])
    session.unanswered()
    assert session.answer([3]) == []
    assert (session.model.lost, session.model.unheard) == (0, 1)


def test_a_call_that_its_client_gave_up_excuses_nothing() -> None:
    session = Session()
    session.answer([1])
    session.unanswered(may_have_told=False)
    assert session.answer([3]) == ["step 1, execution 1, is missing, which nobody told"]


def test_a_step_without_an_answer_may_be_there_in_part_or_not_and_never_appears_late() -> None:
    session = Session()
    session.unanswered()
    assert session.answer([1, 2], files=[2], slots=[0, 0, 1, 0, 0, 0, 0, 0]) == []
    session.unanswered()
    assert session.answer([1, 2, 4], files=[2, 4], slots=[0, 0, 1, 0, 1, 0, 0, 0]) == []
    assert session.answer([1, 2, 3, 4, 5], files=[2, 4, 5], slots=[0, 0, 1, 0, 1, 1, 0, 0]) == [
        "step 3 was gone and is there again"
    ]


def test_a_step_whose_execution_nobody_knows_is_told_by_any_that_it_may_have_been() -> None:
    session = Session()
    session.answer([1])
    session.unanswered(may_have_told=False)
    session.answer([1, 2, 3])
    assert session.answer([1, 4], files=[1, 2, 3, 4], lost=[(2, 3)]) == []


def test_an_array_of_another_moment_than_the_list_is_seen() -> None:
    session = Session()
    session.answer([1])
    assert session.answer([1, 2], slots=[0, 1, 0, 0, 0, 0, 0, 0]) == ["slot 2 of the array has 0, and the list 1"]


def test_a_file_that_lacks_what_the_list_has_must_have_been_told() -> None:
    session = Session()
    session.answer([1])
    assert session.answer([1, 2], files=[2]) == ["step 1 is in the list and not in the file, which nobody told"]
    assert session.answer([1, 2, 3], files=[2, 3], files_lost=[(1, 1)]) == []


def test_a_call_that_was_not_run_leaves_nothing() -> None:
    session = Session()
    session.answer([1])
    session.number += 1
    session.model.sent(2, "plain")
    assert session.model.answered(2, plain(None, None, code="busy")) == []
    session.execution = 1
    assert session.answer([1, 3]) == []


def test_an_execution_number_that_comes_again_is_seen() -> None:
    session = Session()
    session.answer([1])
    session.execution = 0
    assert session.answer([1, 2]) == ["step 2 has execution 1, after 1"]


def test_a_failure_that_nothing_explains_is_seen() -> None:
    assert Session().answer([1], code="exception", message="NameError") == [
        "step 1 (plain) ended with exception: NameError"
    ]
    assert Session().answer(None) == ["step 1 was run and has not printed its state"]


def test_a_container_that_was_killed_after_a_cell_had_filled_its_memory_may_be_told_as_out_of_memory() -> None:
    ended: dict[str, Any] = {
        "code": "oom",
        "message": "The cell needed more, which ended the whole sandbox.",
        "resumed": True,
    }
    session = Session()
    assert session.answer(None, lost=[(1, 1)], **ended) != []
    session.answer(None, kind="fills", lost=[(2, 2)], **{**ended, "message": "The cell needed more."})
    assert session.answer(None, lost=[(3, 3)], **ended) == []


def test_an_answer_is_read_from_its_fields() -> None:
    fields = {
        "error": {"code": "oom", "message": "The cell needed more."},
        "notes": [ALL_OF.format(4, 6), "Lost: what execution 3 did to files in /workspace; they are older."],
        "resumed_from": {"rung": "snapshot", "execution": 3},
        "execution": 6,
        "output": 'xx\nSTATE [[1, 2], [0, 1], ["1"]]\nyy',
        "saved_through": None,
        "value": None,
    }
    answer = answer_of(fields)
    assert (answer.code, answer.lost, answer.files_lost, answer.resumed_from) == ("oom", [(4, 6)], [(3, 3)], 3)
    assert answer.state == State([1, 2], [0, 1], [1])
    assert not answer.strange


def test_what_a_wake_left_out_is_strange_unless_its_process_was_killed() -> None:
    fields = {"error": None, "resumed_from": None, "execution": 1, "output": "", "saved_through": None, "value": None}
    killed = "Not restored: numpy (importing 'numpy': loading it ended the process: by SIGKILL)."
    assert not answer_of({**fields, "notes": [killed]}).strange
    assert answer_of({**fields, "notes": ["Not restored: log (loading raised KeyError)."]}).left_out
    assert answer_of({**fields, "notes": ["Not restored: log (loading raised KeyError)."]}).strange
    assert answer_of({**fields, "notes": ["Not saved: log (list): it hangs."]}).strange
