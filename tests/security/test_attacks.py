"""Hostile cells in a session as users get it: each ends exactly as it is named, and nobody else notices."""

import pytest

from tests.security.arena import ATTACKER, SESSION, Arena
from tests.security.attacks import Attack, ending
from tests.security.channel_attacks import CHANNEL
from tests.security.exhaustion import EXHAUSTION
from tests.security.lock_attacks import LOCKS
from tests.security.self_attacks import OWN_PROCESS
from tests.security.time_attacks import TIME

ATTACKS = {"agent and channel": CHANNEL, "exhaustion": (*EXHAUSTION, *LOCKS), "own process": OWN_PROCESS, "time": TIME}
CASES = [
    pytest.param(kind, attack, id=f"{kind.replace(' ', '-')}-{attack.outcome}")
    for kind, attacks in ATTACKS.items()
    for attack in attacks
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("kind", "attack"), CASES)
async def test_attack(kind: str, attack: Attack, arena: Arena) -> None:
    assert attack in ATTACKS[kind]
    await arena.reset()
    result = await arena.run(attack.code, limit=attack.limit)
    answers = (attack.answer,) if isinstance(attack.answer, str) else attack.answer
    assert ending(result) in answers, result
    if result.error is None and attack.output_bytes is not None:
        assert result.output_bytes == attack.output_bytes
    if attack.costs_next:
        await arena.run("6 * 7")
    assert await arena.value("6 * 7") == "42"
    await arena.orchestrator.sessions.clear(SESSION, tenant=ATTACKER)
