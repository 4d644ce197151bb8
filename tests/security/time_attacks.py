"""Cells that would not end, and cells that would have others wait."""

from tests.security.attacks import Attack

_SPINNING = "while True: pass"

TIME = (
    Attack("a_loop_is_interrupted_and_keeps_the_namespace", _SPINNING, "timeout, kept", 0.5),
    Attack(
        "a_cell_that_masks_all_signals_is_killed",
        f"signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n{_SPINNING}",
        "timeout, killed",
        0.5,
    ),
    Attack(
        "a_cell_that_ignores_signals_is_killed",
        f"signal.signal(signal.SIGINT, signal.SIG_IGN)\n{_SPINNING}",
        "timeout, killed",
        0.5,
    ),
    Attack(
        "a_cell_that_handles_signals_itself_is_killed",
        "signal.signal(signal.SIGINT, lambda *_: None)\nwhile True: time.sleep(60)",
        "timeout, killed",
        0.5,
    ),
    Attack(
        "a_cell_that_catches_everything_is_killed",
        "while True:\n    try: time.sleep(60)\n    except BaseException: pass",
        "timeout, killed",
        0.5,
    ),
    Attack(
        "a_cell_whose_clean_up_never_ends_is_killed",
        "try: time.sleep(60)\nfinally:\n    while True: time.sleep(0)",
        "timeout, killed",
        0.5,
    ),
    Attack(
        "an_await_that_takes_no_cancellation_is_killed",
        """
import asyncio
async def stubborn():
    while True:
        try: await asyncio.sleep(60)
        except BaseException: pass
await stubborn()
""",
        "timeout, killed",
        0.5,
    ),
    Attack("a_loop_in_c_is_killed", "sum(range(10**12))", "timeout, killed", 0.5),
    Attack("a_power_without_end_is_interrupted", "7 ** 10**10", "timeout, kept", 0.5),
    Attack(
        "an_endless_iterator_in_c_is_killed",
        "import collections, itertools\ncollections.deque(itertools.repeat(1), 0)",
        "timeout, killed",
        0.5,
    ),
    Attack("an_endless_match_is_interrupted", "import re\nre.match(r'(a|a)*$', 'a' * 64 + 'b')", "timeout, kept", 0.5),
    Attack(
        "a_native_call_that_gives_the_lock_away_is_killed",
        "import hashlib\nhashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**9)",
        "timeout, killed",
        0.5,
    ),
    Attack(
        "native_threads_that_spin_end_with_their_worker",
        """
import hashlib, threading
for _ in range(8):
    threading.Thread(target=hashlib.pbkdf2_hmac, args=('sha256', b'x', b'y', 10**9), daemon=True).start()
len(os.listdir('/proc/self/task')) >= 9
""",
        "True",
    ),
    Attack(
        "native_threads_beside_a_loop_end_with_their_session",
        """
import hashlib, threading
for _ in range(8):
    threading.Thread(target=hashlib.pbkdf2_hmac, args=('sha256', b'x', b'y', 10**9)).start()
sum(range(10**12))
""",
        ("timeout, killed", "timeout, kept"),
        0.5,
    ),
    Attack(
        "threads_that_never_give_the_lock_away_are_killed",
        """
import ctypes, threading
sleep = ctypes.PyDLL(None).sleep
threading.Thread(target=lambda: sleep(60), daemon=True).start()
time.sleep(60)
""",
        "timeout, killed",
        0.5,
    ),
    Attack("a_cell_that_stops_itself_is_killed", "os.kill(os.getpid(), signal.SIGSTOP)", "timeout, killed", 0.5),
    Attack(
        "a_cell_that_stops_everything_it_can_reach_is_killed",
        "os.kill(-1, signal.SIGSTOP)\nos.kill(os.getpid(), signal.SIGSTOP)",
        "timeout, killed",
        0.5,
    ),
    Attack(
        "a_child_that_holds_its_parent_in_the_kernel_is_killed",
        "libc.syscall(NUMBERS[platform.machine()]['clone'], 0x4111, 0, 0, 0, 0) or libc.pause()",
        ("timeout, killed", "EPERM", "crashed: its process was ended by SIGSEGV"),
        0.5,
    ),
    Attack(
        "a_storm_of_timers_holds_up_nobody",
        "signal.signal(signal.SIGALRM, lambda *_: None)\nsignal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)\nwhile True: pass",
        ("timeout, killed", "timeout, kept"),
        0.5,
    ),
    Attack(
        "children_that_spin_leave_the_supervisor_its_turn",
        "for _ in range(200):\n    if os.fork() == 0:\n        while True: pass\nwhile True: pass",
        "timeout, kept",
        1.0,
    ),
    Attack(
        "a_child_that_outlives_its_cell_ends_with_its_session",
        "os.posix_spawn('/bin/sleep', ['sleep', '600'], {}) > 1",
        "True",
    ),
    Attack("priority_is_not_raised", "tried(os.nice, -1)", "'EPERM'"),
    Attack("turns_of_real_time_are_not_had", "call('sched_setscheduler', 0, 1, struct.pack('i', 1))", "'EPERM'"),
    Attack("clocks_are_not_set", "tried(time.clock_settime, time.CLOCK_REALTIME, 0)", "'EPERM'"),
    Attack(
        "a_leap_of_the_cells_own_clock_moves_nothing",
        "time.time = time.monotonic = lambda: 1e12\nwhile True: pass",
        "timeout, kept",
        0.5,
    ),
    Attack(
        "an_exit_handler_that_hangs_holds_up_nobody",
        "import atexit\natexit.register(time.sleep, 600)\nos.kill(os.getpid(), signal.SIGTERM)",
        "crashed: its process was ended by SIGTERM",
    ),
    Attack(
        "a_process_that_ends_itself_is_told_by_its_code",
        "os._exit(7)",
        "crashed: its process ended itself with exit code 7",
    ),
    Attack(
        "a_broken_pointer_is_told_by_its_signal", "ctypes.string_at(1)", "crashed: its process was ended by SIGSEGV"
    ),
    Attack("an_abort_is_told_by_its_signal", "os.abort()", "crashed: its process was ended by SIGABRT"),
)
