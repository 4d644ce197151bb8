"""Pickles aimed at whoever loads them: they run in a sandbox or nowhere, while they are saved, listed, kept and woken."""

import pickle
from pathlib import Path

import pytest

from tests.conftest import UnpickledError, _refuse_unpickling
from tests.security.arena import ATTACKER, SESSION, Arena

KIND = "pickles"

# Each is loaded wherever `aimed` is; it writes into {path}, if that is there.
AIMED = {
    "a_call_of_the_shell": "class Aimed:\n    def __reduce__(self): return os.system, ('touch {path}',)",
    "a_call_of_python": "class Aimed:\n    def __reduce__(self): return eval, (\"open('{path}', 'w').close()\",)",
    "a_call_by_a_modules_own_name": (
        "class Aimed:\n    def __reduce__(self): return subprocess.call, (['touch', '{path}'],)"
    ),
    "a_state_that_runs": "class Aimed:\n    def __setstate__(self, _): os.system('touch {path}')\n    def __getstate__(self): return 1",
    "a_name_of_the_hosts_own_modules": (
        "class Aimed:\n    def __reduce__(self):\n"
        "        module = type(sys)('orchestrator.app')\n        module.Orchestrator = lambda: 0\n"
        "        sys.modules['orchestrator'] = sys.modules['orchestrator.app'] = module\n"
        "        return module.Orchestrator, ()"
    ),
    "bytes_that_are_a_pickle": "import pickle\nclass Shell:\n    def __reduce__(self): return os.system, ('touch {path}',)\nAimed = lambda: pickle.dumps(Shell())",
    "a_name_that_is_a_pickle": "Aimed = dict\nglobals()['cposix\\nsystem\\n(Vtouch {path}\\ntR.'] = 1",
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("aimed", AIMED)
async def test_pickle(aimed: str, arena: Arena, tmp_path: Path) -> None:
    """Saved, listed, put to sleep and woken: the host hands bytes on, and an audit hook stands where it would not."""
    touched = tmp_path / "touched"
    await arena.reset()
    await arena.value(AIMED[aimed].replace("{path}", str(touched)) + "\naimed, kept = Aimed(), [1]")
    sessions = arena.orchestrator.sessions
    await arena.orchestrator.histories.save(SESSION, tenant=ATTACKER)
    await sessions.list_variables(SESSION, tenant=ATTACKER)
    assert await (await sessions.find(SESSION, tenant=ATTACKER)).hibernate()
    assert {row.name for row in (await sessions.list_variables(SESSION, tenant=ATTACKER)).variables} >= {"kept"}
    await arena.orchestrator.histories.history(SESSION, tenant=ATTACKER)
    assert (await arena.orchestrator.check()).problems == ()
    assert await arena.value("kept") == "[1]"
    assert not touched.exists()


def test_the_hook_that_watched_would_have_fired() -> None:
    code = compile("import pickle\npickle.loads(data)", "host.py", "exec")
    namespace = {"__name__": "orchestrator.services.planted", "data": pickle.dumps(AIMED.__class__)}
    with pytest.raises(UnpickledError):
        exec(code, namespace)  # noqa: S102 - as if the host did
    assert callable(_refuse_unpickling)
