"""What is said of a namespace that is gone."""

from orchestrator.domain.losses import MAX_LOSS_NAMES, joined, loss_of
from orchestrator.domain.model import Loss


def test_a_short_loss_lists_every_name() -> None:
    assert loss_of(3, 5, "gone", ["a", "b"]) == Loss(3, 5, "gone", ("a", "b"), unlisted=0)


def test_of_many_names_the_last_bound_are_listed_and_the_rest_is_counted() -> None:
    loss = loss_of(1, 9, "gone", [f"v{i}" for i in range(MAX_LOSS_NAMES + 3)])

    assert len(loss.names) == MAX_LOSS_NAMES
    assert loss.names[0] == "v3"
    assert loss.unlisted == 3


def test_a_first_loss_stands_alone() -> None:
    loss = Loss(1, 2, "gone", ("x",))

    assert joined(None, loss) == loss


def test_joined_losses_span_both_and_list_each_name_once() -> None:
    loss = joined(Loss(1, 2, "oom", ("x", "y"), unlisted=1), Loss(5, 6, "kill", ("y", "z"), unlisted=2))

    assert loss == Loss(1, 6, "oom; kill", ("x", "y", "z"), unlisted=3)


def test_a_second_loss_that_reaches_further_back_is_told_from_there() -> None:
    """First to a savepoint at 7, then to a snapshot at 6: execution 7 has gone, too."""
    assert joined(Loss(8, 8, "crash"), Loss(7, 8, "lost", ("x",))) == Loss(7, 8, "crash; lost", ("x",))


def test_the_same_cause_is_told_once() -> None:
    first = joined(Loss(1, 1, "oom"), Loss(2, 2, "kill"))

    assert joined(first, Loss(3, 3, "oom")).cause == "oom; kill"


def test_causes_do_not_grow_without_end() -> None:
    loss = Loss(1, 1, "a")
    for number in range(2_000):
        loss = joined(loss, Loss(number, number, f"cause {number}"))

    assert len(loss.cause) == 1_000
