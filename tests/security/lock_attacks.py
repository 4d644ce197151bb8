"""Cells that lock ranges of files, which is memory of the kernel's that no limit counts; and cells that hide it."""

from tests.security.attacks import Attack

_TOO_MANY = "crashed: there were more than 4096 locks on ranges of files in the sandbox, which no memory limit counts"
_HIDDEN = (
    "crashed: a process in the sandbox hid its descriptors for seconds, and with them how many locks on files it held"
)
_LOCKS = """
import fcntl
def lock(files, each):
    held = []
    for number in range(files):
        held.append(open(f'/tmp/{os.getpid()}-{number}', 'wb'))
        for start in range(each): fcntl.lockf(held[-1], fcntl.LOCK_EX, 1, 2 * start)
    return held
def sleeping(act, *arguments):
    child = os.fork()
    if child == 0:
        held = act(*arguments)
        time.sleep(60)
        os._exit(0)
    return child
"""

LOCKS = (
    Attack("locks_on_ranges_of_files_are_bounded", _LOCKS + "held = lock(900, 1000)\ntime.sleep(60)", _TOO_MANY),
    Attack(
        "locks_of_many_processes_are_counted_together",
        _LOCKS + "for _ in range(60): sleeping(lock, 10, 10)\ntime.sleep(60)",
        _TOO_MANY,
    ),
    Attack(
        "locks_among_hundreds_of_thousands_of_descriptors_are_found",
        _LOCKS
        + """
def many():
    held = [os.dup(1) for _ in range(900)]
    return held
for _ in range(200): sleeping(many)
held = [os.dup(1) for _ in range(900)] + lock(5, 1000)
time.sleep(60)
""",
        _TOO_MANY,
        limit=60.0,
    ),
    Attack(
        "locks_of_a_process_whose_first_thread_has_ended_are_counted",
        _LOCKS
        + """
import threading
def headless():
    threading.Thread(target=lambda: (lock(10, 500), time.sleep(60))).start()
    libc.pthread_exit(None)
sleeping(headless)
time.sleep(60)
""",
        _TOO_MANY,
    ),
    Attack(
        "locks_that_outlast_a_cell_are_counted",
        _LOCKS + "held = lock(2, 4000)\nNone",
        ("None", _TOO_MANY),
        costs_next=True,
    ),
    Attack(
        "a_process_that_hides_its_locks_is_ended",
        _LOCKS + "sleeping(lambda: (libc.prctl(4, 0, 0, 0, 0), lock(10, 500)))\ntime.sleep(60)",
        _HIDDEN,
    ),
    Attack("a_cell_that_hides_is_ended", "libc.prctl(4, 0, 0, 0, 0)\ntime.sleep(60)", _HIDDEN),
    Attack(
        "a_program_that_hides_by_its_mode_is_ended",
        """
shutil.copy('/bin/sleep', '/workspace/hidden')
os.chmod('/workspace/hidden', 0o111)
subprocess.run(['/workspace/hidden', '60'])
""",
        _HIDDEN,
    ),
    Attack(
        "locks_that_are_taken_and_dropped_harm_nobody",
        _LOCKS + "until = time.monotonic() + 4\nwhile time.monotonic() < until: lock(4, 900)\nNone",
        "None",
    ),
)
