"""Files that a cell has made to spoil a save: it is made, bounded, and wakes again, with what was beside them."""

import asyncio

import pytest

from orchestrator.domain.snapshots import SaveFailedError
from tests.security.arena import ATTACKER, SESSION, Arena
from tests.security.attacks import Attack, ending
from tests.security.file_attacks import FILES

SAVING_SECONDS = 60.0


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("attack", FILES, ids=lambda attack: attack.outcome)
@pytest.mark.parametrize("kind", ["hostile files"])
async def test_file(kind: str, attack: Attack, arena: Arena) -> None:
    assert kind
    await arena.reset()
    await arena.value("with open('/workspace/kept', 'w') as file: file.write('kept')")
    result = await arena.run(attack.code, limit=attack.limit)
    answers = (attack.answer,) if isinstance(attack.answer, str) else attack.answer
    assert ending(result) in answers, result
    async with asyncio.timeout(SAVING_SECONDS):
        await arena.orchestrator.histories.save(SESSION, tenant=ATTACKER)
    assert await arena.value("open('/workspace/kept').read()") == "'kept'"
    await arena.orchestrator.sessions.clear(SESSION, tenant=ATTACKER)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("kind", ["hostile files"])
async def test_a_workspace_without_rights_costs_saves_until_it_has_them_again(kind: str, arena: Arena) -> None:
    assert kind
    await arena.reset()
    await arena.value("os.chmod('/workspace', 0)")
    with pytest.raises(SaveFailedError, match="Permission denied: '/workspace'"):
        await arena.orchestrator.histories.save(SESSION, tenant=ATTACKER)
    await arena.value("os.chmod('/workspace', 0o700)")
    await arena.orchestrator.histories.save(SESSION, tenant=ATTACKER)
