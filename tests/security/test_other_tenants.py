"""What one tenant's cell can reach of another's, whose session has the same name: nothing."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import closing

import pytest

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from orchestrator.domain.errors import OrchestratorError, SessionNotFoundError
from orchestrator.domain.hardening import LABEL_INSTALLATION, LABEL_SANDBOX
from tests.security.arena import ATTACKER, SECRET, SESSION, Arena
from tests.security.attacks import Attack, ending
from tests.security.conftest import Inside

KIND = "other tenants"

# What the bystander does first; what the attacker tries then; how that ends.
REACHED_FOR = (
    ("a_variable_of_the_same_name_is_not_there", "shared = 1", Attack("", "shared", "exception NameError")),
    ("a_file_of_the_workspace_is_not_there", "open('/workspace/one', 'w').close()", Attack("", "read('/workspace/one')", "'ENOENT'")),
    ("a_temporary_file_is_not_there", "open('/tmp/one', 'w').close()", Attack("", "read('/tmp/one')", "'ENOENT'")),
    ("shared_memory_is_not_there", "open('/dev/shm/one', 'w').close()", Attack("", "read('/dev/shm/one')", "'ENOENT'")),
    (
        "shared_memory_by_name_is_not_there",
        "import _posixshmem, os\nblock = _posixshmem.shm_open('/block', os.O_CREAT | os.O_RDWR, 0o600)",
        Attack("", "import _posixshmem\ntried(_posixshmem.shm_open, '/block', os.O_RDWR, 0o600)", "'ENOENT'"),
    ),
    (
        "an_abstract_socket_is_not_there",
        "import socket\nlistening = socket.socket(socket.AF_UNIX)\nlistening.bind('\\0one')\nlistening.listen()",
        Attack("", "tried(socket.socket(socket.AF_UNIX).connect, '\\0one')", "'ECONNREFUSED'"),
    ),
    (
        "an_abstract_name_that_another_has_is_free",
        "import socket\nbound = socket.socket(socket.AF_UNIX)\nbound.bind('\\0two')",
        Attack("", "tried(socket.socket(socket.AF_UNIX).bind, '\\0two')", "'done'"),
    ),
    (
        "a_port_is_not_there",
        "import socket\nserving = socket.create_server(('127.0.0.1', 40_123))",
        Attack("", "tried(socket.create_connection, ('127.0.0.1', 40_123))", "'ECONNREFUSED'"),
    ),
    (
        "a_port_that_another_has_is_free",
        "import socket\nserving = socket.create_server(('127.0.0.1', 40_124))",
        Attack("", "tried(socket.create_server, ('127.0.0.1', 40_124))", "'done'"),
    ),
    (
        "a_process_is_not_listed",
        "import subprocess\nsleeping = subprocess.Popen(['sleep', '4321'])",
        Attack("", "any(b'4321' in open(f'/proc/{p}/cmdline', 'rb').read() for p in os.listdir('/proc') if p.isdigit())", "False"),
    ),
    (
        "a_lock_on_a_file_of_the_image_holds_up_nobody",
        "import fcntl\nlocked = open('/etc/passwd')\nfcntl.flock(locked, fcntl.LOCK_EX)",
        Attack("", "import fcntl\nmine = open('/etc/passwd')\ntried(fcntl.flock, mine, fcntl.LOCK_EX | fcntl.LOCK_NB)", "'done'"),
    ),
)  # fmt: skip
ALL_GONE = """
for held in ("listening", "bound", "serving", "locked"):
    if held in globals(): globals()[held].close()
if "sleeping" in globals(): sleeping.kill(), sleeping.wait()
if "block" in globals(): os.close(block)
for held in ("listening", "bound", "serving", "locked", "sleeping", "block", "shared"): globals().pop(held, None)
"""


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("prepared", "attack"), [row[1:] for row in REACHED_FOR], ids=[row[0] for row in REACHED_FOR])
async def test_reached_for(prepared: str, attack: Attack, arena: Arena) -> None:
    await arena.reset()
    await arena.bystander(prepared)
    assert ending(await arena.run(attack.code)) == attack.answer
    await arena.bystander(ALL_GONE)


Act = Callable[[Arena, str, str], Awaitable[object]]
ACTS: dict[str, Act] = {
    "list": lambda arena, name, tenant: arena.orchestrator.sessions.list_variables(name, tenant=tenant),
    "clear": lambda arena, name, tenant: arena.orchestrator.sessions.clear(name, tenant=tenant),
    "delete": lambda arena, name, tenant: arena.orchestrator.sessions.delete(name, tenant=tenant),
    "history": lambda arena, name, tenant: arena.orchestrator.histories.history(name, tenant=tenant),
    "save": lambda arena, name, tenant: arena.orchestrator.histories.save(name, tenant=tenant),
    "roll back": lambda arena, name, tenant: arena.orchestrator.histories.roll_back(name, 1, tenant=tenant),
    "fork": lambda arena, name, tenant: arena.orchestrator.histories.fork(name, "mine", tenant=tenant),
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("act", ACTS)
async def test_a_session_of_another_is_answered_as_one_that_is_not_there(act: str, arena: Arena) -> None:
    """By whoever guesses its name."""
    answers = []
    for name in (SESSION, "nowhere"):
        with pytest.raises(SessionNotFoundError) as refused:
            await ACTS[act](arena, name, "a third tenant")
        answers.append((refused.value.message.replace(f"'{name}'", "…"), refused.value.hint))
    assert answers[0] == answers[1]
    assert await arena.orchestrator.sessions.list_sessions(tenant="a third tenant") == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ["s ", "\u200bs", "s\0", "s\u202e", "", "s" * 129])
async def test_a_name_that_only_looks_like_anothers_is_refused(name: str, arena: Arena) -> None:
    with pytest.raises(OrchestratorError):
        await arena.orchestrator.sessions.list_variables(name, tenant=ATTACKER)


@pytest.mark.asyncio(loop_scope="module")
async def test_user_ids_secrets_and_directories_are_apart(arena: Arena) -> None:
    await arena.reset()
    assert await arena.value("os.getuid()") != await arena.bystander("__import__('os').getuid()")
    with closing(api_client(find_engine())) as api:
        found = api.containers(filters={"label": [f"{LABEL_INSTALLATION}={arena.installation}"]})
        secrets = {tuple(api.inspect_container(row["Id"])["Config"]["Env"]) for row in found}
    assert len(secrets) == 2
    # What the engine has to show of a bind mount is the attacker's own; nothing names the other's.
    names = [row["Labels"][LABEL_SANDBOX] for row in found]
    seen = str(await arena.value("open('/proc/self/mountinfo').read() + repr(dict(os.environ)) + os.uname().nodename"))
    assert sum(name in seen for name in names) <= 1
    assert str(arena.settings.data_dir) not in seen
    assert SECRET not in seen


@pytest.mark.asyncio(loop_scope="module")
async def test_processes_of_another_take_no_signal(arena: Arena) -> None:
    await arena.reset()
    with closing(api_client(find_engine())) as api:
        found = api.containers(filters={"label": [f"{LABEL_INSTALLATION}={arena.installation}"]})
        inits = [int(api.inspect_container(row["Id"])["State"]["Pid"]) for row in found]
    answers = await arena.value(f"[tried(os.kill, pid, 9) for pid in {[*inits, os.getpid(), os.getppid()]}]")
    assert set(str(answers).strip("[]").split(", ")) == {"'ESRCH'"}


@pytest.mark.asyncio(loop_scope="module")
async def test_what_the_kernel_counts_by_user_is_left_for_others(arena: Arena, inside: Inside) -> None:
    """Two sandboxes under one user id would take these from each other: so the cell is shown to take all there are."""
    await arena.reset()
    taking = "hunger(lambda: watch())"
    assert await arena.value(taking) == "('EMFILE', True)"
    here = "__import__('ctypes').CDLL(None).inotify_init() >= 0"
    assert await arena.bystander(here) == "True"
    alike = await inside(None)  # a sandbox of its own again
    assert await alike.value("watch() > 0") == "True"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_network_that_is_shared_would_show_what_is_hidden(inside: Inside) -> None:
    """That the sockets above are not there proves something: with the host's network they are."""
    first, name = await inside("host's network"), f"\\x00{os.urandom(8).hex()}"
    await first.value(f"listening = socket.socket(socket.AF_UNIX)\nlistening.bind('{name}')\nlistening.listen()\n1")
    code = f"import socket\nsocket.socket(socket.AF_UNIX).connect('{name}')"
    process = await asyncio.create_subprocess_exec("python3", "-c", code)
    assert await process.wait() == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_a_sandbox_is_never_another_sessions_again(arena: Arena) -> None:
    await arena.reset()
    await arena.value("open('/tmp/trace', 'w').close()\nopen('/dev/shm/trace', 'w').close()")
    before = await arena.value("os.getuid()")
    await arena.orchestrator.sessions.delete(SESSION, tenant=ATTACKER)
    code = "import os\n[os.path.exists(f'{place}/trace') for place in ('/tmp', '/dev/shm', '/workspace')], os.getuid()"
    again = await arena.value(code)
    assert again is not None
    assert again.startswith("([False, False, False], ")
    assert not again.endswith(f" {before})")
