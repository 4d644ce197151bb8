"""Cells that spoil the process that they run in: what it may, what it hooks, what a fork of it would get."""

from tests.security.attacks import Attack

_SELF = "import resource, ctypes, sys\n"
_LIMIT = _SELF + "resource.setrlimit(resource.RLIMIT_{0}, ({1}, {1}))"
_ALL_MEMORY = (
    _SELF
    + """
for line in open('/proc/self/maps'):
    start, end = (int(one, 16) for one in line.split()[0].split('-'))
    if 'rw-p' in line and 'stack' not in line: libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), {0})
"""
)

LIMITS = (
    Attack("a_process_that_may_start_no_other_goes_on", _LIMIT.format("NPROC", 0), "None"),
    Attack("a_process_whose_files_may_not_grow_goes_on", _LIMIT.format("FSIZE", 0), "None"),
    Attack("a_process_without_signals_to_queue_goes_on", _LIMIT.format("SIGPENDING", 0), "None"),
    Attack("a_process_with_hardly_a_stack_goes_on", _LIMIT.format("STACK", 4096), "None"),
    Attack("a_process_without_addresses_costs_itself", _LIMIT.format("AS", 1 << 20), "None", costs_next=True),
    Attack(
        "a_process_without_time_costs_itself",
        _LIMIT.format("CPU", 1) + "\nwhile True: pass",
        "crashed: its process was ended by SIGKILL",
    ),
    Attack(
        "a_process_that_locks_itself_in_further_goes_on",
        "fd = libc.syscall(444, struct.pack('QQQ', (1 << 16) - 1, 0, 0), 24, 0)\nlibc.syscall(446, fd, 0)",
        ("0", "-1"),  # without Landlock there is nothing to do it with
    ),
    Attack(
        "a_process_that_nobody_may_look_into_meets_the_memory_all_the_same",
        "libc.prctl(4, 0, 0, 0, 0)\nheld = []\nwhile True: held.append(bytearray(b'x' * 10_000_000))",
        "oom, killed",
    ),
)

HOOKS = (
    Attack(
        "a_child_whose_first_thread_has_ended_ends_with_its_session",
        """
import threading
if os.fork() == 0:
    threading.Thread(target=time.sleep, args=(600,)).start()
    libc.pthread_exit(None)
time.sleep(.5)
os._exit(9)
""",
        "crashed: its process ended itself with exit code 9",
    ),
    Attack(
        "an_audit_hook_that_exits_costs_its_process",
        "import sys\nsys.addaudithook(lambda *_: os._exit(9))\nopen('/dev/null')",
        "crashed: its process ended itself with exit code 9",
    ),
    Attack(
        "an_audit_hook_that_hangs_is_killed",
        "import sys\ndef hang(*_):\n    while True: pass\nsys.addaudithook(hang)\nopen('/dev/null')",
        "timeout, killed",
        0.5,
    ),
    Attack("a_hook_before_forks_that_hangs_goes_on", "os.register_at_fork(before=lambda: time.sleep(1000))", "None"),
    Attack(
        "a_hook_in_forks_that_hangs_goes_on", "os.register_at_fork(after_in_child=lambda: time.sleep(1000))", "None"
    ),
    Attack("a_hook_in_forks_that_forks_goes_on", "os.register_at_fork(after_in_child=os.fork)", "None"),
    Attack(
        "a_trace_that_hangs_is_interrupted",
        "import sys\ndef hang(*_):\n    while True: pass\nsys.settrace(hang)\n(lambda: 1)()",
        "timeout, kept",
        0.5,
    ),
    Attack(
        "a_dump_that_was_asked_for_ends_its_process",
        "import faulthandler\nfaulthandler.dump_traceback_later(0.1, exit=True)\ntime.sleep(60)",
        "crashed: its process ended itself with exit code 1",
    ),
    Attack(
        "a_timer_that_nobody_handles_costs_its_process_at_most",
        "signal.setitimer(signal.ITIMER_PROF, .01, .01)",
        ("(0.0, 0.0)", "crashed: its process was ended by SIGPROF"),
        costs_next=True,
    ),
    Attack(
        "modules_that_are_forgotten_are_not_ours",
        "import sys\nsys.modules.clear(); sys.meta_path.clear(); sys.path.clear()",
        "None",
    ),
)

MEMORY = (
    Attack("memory_that_no_fork_gets_goes_on", _ALL_MEMORY.format(10), "None"),
    Attack("memory_that_forks_get_empty_goes_on", _ALL_MEMORY.format(18), "None"),
    Attack(
        "an_interpreter_that_is_over_costs_its_process",
        "ctypes.pythonapi.Py_FinalizeEx()",
        "crashed: its process was ended by SIGSEGV",
    ),
    Attack(
        "a_mapping_of_a_file_that_was_cut_costs_its_process",
        "held = open('/workspace/m', 'w+b')\nheld.truncate(1 << 20)\n"
        "mapped = mmap.mmap(held.fileno(), 1 << 20)\nheld.truncate(0)\nmapped[5]",
        "crashed: its process was ended by SIGBUS",
    ),
)

OWN_PROCESS = (*LIMITS, *HOOKS, *MEMORY)
