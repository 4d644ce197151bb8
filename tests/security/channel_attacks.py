"""Cells that turn on the agent, through its own descriptors and past them."""

from tests.security.attacks import Attack

_MISUSED = "crashed: it closed or misused the descriptor that the agent works through"
_FILES = (
    "mem",
    "environ",
    "maps",
    "fd",
    "io",
    "stack",
    "syscall",
    "auxv",
    "root",
    "cwd",
    "exe",
    "pagemap",
    "smaps",
    "ns/net",
)

FRAMES = (
    Attack("bytes_that_are_no_frame_cost_the_worker", "say(b'nonsense' * 8)\ntime.sleep(60)", _MISUSED),
    Attack("a_frame_of_another_version_costs_the_worker", "say(b'SO\\x02\\0' + bytes(8))\ntime.sleep(60)", _MISUSED),
    Attack("an_oversize_header_costs_the_worker", "say(struct.pack('>2sBxII', b'SO', 1, 1 << 31, 0))\ntime.sleep(60)", _MISUSED),
    Attack("an_oversize_body_costs_the_worker", "say(struct.pack('>2sBxII', b'SO', 1, 2, 1 << 31))\ntime.sleep(60)", _MISUSED),
    Attack("parts_that_do_not_add_up_cost_the_worker", "say(frame({'type': 'done', 'parts': [2**70]}))\ntime.sleep(60)", _MISUSED),
    Attack("a_header_without_end_costs_the_worker", "say(struct.pack('>2sBxII', b'SO', 1, 60_000, 0) + b'[' * 60_000)\ntime.sleep(60)", _MISUSED),
    Attack("a_header_of_another_type_costs_the_worker", "say(frame({'type': 5}))\ntime.sleep(60)", _MISUSED),
    Attack("a_frame_cut_short_costs_the_worker", "say(frame({'type': 'done'})[:6])", _MISUSED),
    Attack("frames_of_two_threads_cost_at_most_the_worker", """
import threading
whole = frame({'type': 'inspecting', 'pid': 1, 'pad': 'x' * 9_000})
def halves():
    for _ in range(400):
        say(whole[:4_000])
        say(whole[4_000:])
writers = [threading.Thread(target=halves) for _ in range(4)]
for one in writers: one.start()
for one in writers: one.join()
time.sleep(60)
""", _MISUSED),
    Attack("a_flood_of_frames_is_dropped", "for _ in range(4_000): say(frame({'type': 'inspecting', 'pid': 1}))", "None"),
    Attack("an_unknown_frame_is_dropped", "say(frame({'type': 'end'}))\nsay(frame({'type': 'claim', 'id': 99, 'session': 'mine', 'incarnation': 99}))", "None"),
    Attack("a_reply_of_ones_own_making_reaches_nobody", "say(frame({'type': 'reply', 'id': 10**6, 'ok': True}))", "None"),
    Attack("a_process_to_be_killed_is_not_taken_on_trust", "for pid in (1, 0, -1, 2**70, 'x', None, zygote()): say(frame({'type': 'inspecting', 'pid': pid}))", "None"),
    Attack("a_second_hello_is_dropped", "say(frame({'type': 'ready', 'pid': 1}))", "None"),
    Attack("a_result_of_another_execution_is_dropped", "say(frame({'type': 'done', 'execution': 99_999, 'status': 'ok', 'variables': 1}))", "None"),
    Attack("a_forged_result_is_a_cells_own", "say(frame({'type': 'done', 'execution': number(), 'status': 'ok', 'variables': 1}))\ntime.sleep(.2)", "None"),
    Attack("a_forged_result_of_no_sense_is_a_cells_own", "say(frame({'type': 'done', 'execution': number(), 'status': {}, 'variables': []}, b''))\ntime.sleep(.2)", "exception None"),
    Attack("a_forged_savepoint_takes_over_nothing", "say(frame({'type': 'forked', 'pid': os.getpid(), 'execution': 1}))\nsay(frame({'type': 'parked', 'pid': os.getpid()}))\nos._exit(3)", "crashed: its process ended itself with exit code 3"),
    Attack("a_forged_save_saves_nothing", "for word in ('saving', 'restoring', 'restored', 'resumed', 'frozen'): say(frame({'type': word, 'save': 1, 'restore': 1, 'pid': 1}))", "None"),
    Attack("what_is_no_number_where_one_is_wanted_costs_at_most_the_worker", "say(frame({'type': 'forked', 'seconds': 'x', 'pid': [], 'execution': {}}))\nsay(frame({'type': 'restoring', 'restore': {}, 'group': []}))", "None"),
    Attack("a_gigabyte_into_the_answers_costs_the_worker", "block = b'x' * 65_536\nfor fd in agents():\n    if stat.S_ISFIFO(os.fstat(fd).st_mode):\n        tried(lambda: [os.write(fd, block) for _ in range(16_384)])\ntime.sleep(60)", _MISUSED),
    Attack("closing_the_agents_descriptors_costs_the_worker", "for fd in agents(): os.close(fd)", _MISUSED),
    Attack("shutting_the_agents_socket_costs_the_worker", "for fd in agents():\n    if stat.S_ISSOCK(os.fstat(fd).st_mode): socket.socket(fileno=os.dup(fd)).shutdown(2)", "None", costs_next=True),
    Attack("replacing_the_agents_descriptors_costs_the_worker", "null = os.open('/dev/null', os.O_RDWR)\nfor fd in agents(): os.dup2(null, fd)\ntime.sleep(60)", ("timeout, kept", _MISUSED), 1.0),
    Attack(
        "descriptors_are_not_passed_to_the_supervisor",
        """
refused = []
for fd in agents():
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        refused.append(tried(socket.send_fds, socket.socket(fileno=os.dup(fd)), [b'x'], [0]))
set(refused)
""",
        "{'EPIPE'}",
    ),
    Attack("signals_of_descriptors_reach_no_supervisor", """
import fcntl
def aim(fd):
    fcntl.fcntl(fd, 10, signal.SIGKILL)  # F_SETSIG
    fcntl.fcntl(fd, fcntl.F_SETOWN, 1)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
for one in pair: aim(one.fileno())
pair[0].send(b'x') + pair[1].send(b'x')
""", "2"),
)  # fmt: skip

PID_1 = (
    *(
        Attack(f"pid_1_takes_no_{name.lower()}", f"tried(os.kill, 1, signal.{name})", "'EPERM'")
        for name in ("SIGKILL", "SIGSTOP", "SIGTERM", "SIGINT", "SIGSEGV", "SIGCHLD", "SIGCONT")
    ),
    Attack("pid_1_takes_no_signal_with_a_word", "tried(lambda: libc.sigqueue(1, signal.SIGRTMIN, 0) and 1 / 0)", "exception ZeroDivisionError"),
    Attack("pid_1_takes_no_signal_by_its_descriptor", "tried(signal.pidfd_send_signal, os.pidfd_open(1), signal.SIGKILL)", "'EPERM'"),
    Attack("threads_of_pid_1_take_no_signal", "call('tgkill', 1, 1, 9)", "'EPERM'"),
    Attack("pid_1_is_not_traced", "call('ptrace', 16, 1, 0, 0)", "'EPERM'"),
    Attack("the_zygote_is_not_traced", "call('ptrace', 16, zygote(), 0, 0)", "'EPERM'"),
    Attack("memory_of_pid_1_is_not_copied", "call('process_vm_readv', 1, 0, 0, 0, 0, 0)", "'EPERM'"),
    Attack("memory_of_pid_1_is_not_written", "call('process_vm_writev', 1, 0, 0, 0, 0, 0)", "'EPERM'"),
    Attack("descriptors_of_pid_1_are_not_taken", "call('pidfd_getfd', os.pidfd_open(1), 0, 0)", "'EPERM'"),
    Attack("memory_of_pid_1_is_not_advised", "call('process_madvise', os.pidfd_open(1), 0, 0, 21, 0)", "'EPERM'"),
    *(
        Attack(f"{what.replace('/', '_')}_of_{who}_is_not_looked_at", f"look(f'/proc/{{{pid}}}/{what}')", "'EACCES'")
        for who, pid in (("pid_1", "1"), ("the_zygote", "zygote()"))
        for what in _FILES
    ),
    Attack("the_environment_of_pid_1_is_not_in_its_command_line", "b'SO_' in open('/proc/1/cmdline', 'rb').read()", "False"),
    Attack("the_secret_is_in_no_environment", "[name for name in os.environ if name.startswith('SO_')]", "[]"),
    Attack("the_secret_is_in_no_object_of_the_worker", """
import gc
[type(one).__name__ for one in gc.get_objects() if type(one).__module__ in ('agent.channel', 'agent.supervisor', 'agent.start')]
""", "[]"),
    Attack("the_channels_directory_is_not_listed", "tried(os.listdir, '/run/channel')", "'EACCES'"),
    Attack("nothing_is_made_in_the_channels_directory", "tried(os.mkdir, '/run/channel/mine')", "'EROFS'"),
    Attack("the_channels_socket_is_not_guessed", """
answers = set()
for number in range(2_000):
    answers.add(tried(socket.socket(socket.AF_UNIX).connect, f'/run/channel/{number:032x}'))
answers
""", "{'ENOENT'}"),
    Attack("the_agents_code_is_not_changed", "tried(open, '/opt/agent/agent/worker.py', 'w')", "'EROFS'"),
    Attack("a_killed_savepoint_costs_what_it_held", """
for name in os.listdir('/proc'):
    if name.isdigit() and open(f'/proc/{name}/comm').read().startswith('savepoint'): os.kill(int(name), 9)
os._exit(3)
""", "crashed: its process ended itself with exit code 3"),
    Attack("everything_that_can_be_killed_at_once_is_the_worker_alone", "os.kill(-1, signal.SIGKILL)\ntime.sleep(.2)\nos.kill(os.getpid(), 9)", "crashed: its process was ended by SIGKILL"),
)  # fmt: skip

CHANNEL = (*FRAMES, *PID_1)
