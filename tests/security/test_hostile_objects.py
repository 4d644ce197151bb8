"""Objects that turn on whoever looks at them: listings and saves outlive each, and the innocent beside it are kept."""

import asyncio

import pytest

from orchestrator.domain.snapshots import SaveFailedError
from tests.security.arena import ATTACKER, SESSION, Arena
from tests.security.hostile_objects import LISTED, SAVED, Hostile

LISTING_SECONDS = 10.0
SAVING_SECONDS = 60.0


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("hostile", [*LISTED, *SAVED], ids=lambda hostile: hostile.outcome)
@pytest.mark.parametrize("kind", ["hostile objects"])
async def test_object(kind: str, hostile: Hostile, arena: Arena) -> None:
    assert kind
    await arena.reset()
    await arena.value(f"before = [1]\n{hostile.code}\nafter = [2]")
    async with asyncio.timeout(LISTING_SECONDS):
        listed = await arena.orchestrator.sessions.list_variables(SESSION, tenant=ATTACKER)
    rows = {variable.name: variable for variable in listed.variables}
    assert {"before", "after", "hostile"} <= rows.keys()
    assert rows["before"].size_bytes is not None
    assert rows["hostile"].type[: len(hostile.type)] == hostile.type
    if hostile.outcome.endswith("not_told"):
        assert rows["hostile"].size_bytes is None

    async with asyncio.timeout(SAVING_SECONDS):
        await arena.orchestrator.histories.save(SESSION, tenant=ATTACKER)
    told = await arena.run("before, after, os.path.exists('/workspace/finalized')")
    assert told.value == "([1], [2], False)", told
    refused = {
        note.removeprefix("Not saved: ").partition(" (")[0]: note
        for note in told.notes
        if note.startswith("Not saved: ")
    }
    assert not {"before", "after"} & refused.keys()
    if hostile.refused is not None and "hostile" not in refused:
        # On a busy machine what hangs cannot be told from what is slow: it is kept then, and that is told.
        assert "when_loaded" in hostile.outcome
        assert [note for note in told.notes if "hostile" in note]
    elif hostile.refused is not None:
        assert hostile.refused in refused["hostile"]
    else:
        assert "hostile" not in refused
    await arena.orchestrator.sessions.clear(SESSION, tenant=ATTACKER)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("hostile", "why"),
    [
        (
            "class Hostile:\n    def __reduce__(self):\n        os.kill(-1, 9)\nhostile = Hostile()",
            "the worker was ended|what saves has ended",
        ),
        (
            "class Meta(type):\n    def __eq__(self, _): pass\nclass Hostile(metaclass=Meta): pass\nhostile = Hostile()",
            "unhashable type: 'Meta'",
        ),
    ],
    ids=["what_kills_all_it_can_reach_costs_its_session_a_save", "a_class_without_a_hash_costs_its_session_a_save"],
)
@pytest.mark.parametrize("kind", ["hostile objects"])
async def test_session(kind: str, hostile: str, why: str, arena: Arena) -> None:
    assert kind
    await arena.reset()
    await arena.value(hostile)
    with pytest.raises(SaveFailedError, match=why):
        await arena.orchestrator.histories.save(SESSION, tenant=ATTACKER)
    await arena.run("'the worker may be gone'")
    assert await arena.value("6 * 7") == "42"
