"""Cells that take more than their share: of processes, memory, files, descriptors, processors, and of what is heard."""

from tests.security.attacks import Attack

_SOCKETS = "crashed: there were more than 1024 TCP and UDP sockets in the sandbox, whose buffers no memory limit counts"

PROCESSES = (
    Attack(
        "a_fork_bomb_meets_the_limit_of_processes",
        """
children, refused = 0, None
while refused is None:
    try:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        children += 1
    except OSError as error:
        refused = errno.errorcode[error.errno]
200 < children < 256, refused
""",
        "(True, 'EAGAIN')",
    ),
    Attack(
        "a_fork_bomb_that_never_stops_is_ended_whole",
        "while True:\n    try: os.fork()\n    except OSError: pass",
        ("timeout, killed", "timeout, kept"),
        limit=1.0,
    ),
    Attack(
        "a_fork_bomb_in_c_is_ended_whole",
        "while True: libc.syscall(NUMBERS[platform.machine()]['clone'], 17, 0, 0, 0, 0)",
        ("timeout, killed", "timeout, kept"),
        limit=1.0,
    ),
    Attack(
        "processes_that_leave_their_group_and_parent_end_with_their_session",
        """
def flee():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            while True: time.sleep(60)
        os._exit(0)
    os.wait()
for _ in range(20): flee()
len([pid for pid in os.listdir('/proc') if pid.isdigit()]) >= 23
""",
        "True",
    ),
    Attack(
        "zombies_meet_the_limit_of_processes",
        """
def litter():
    while True:
        if os.fork() == 0: os._exit(0)
tried(litter)
""",
        "'EAGAIN'",
    ),
    Attack(
        "threads_meet_the_limit_of_processes",
        """
import threading
def sleepers():
    for _ in range(300):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
sleepers()
""",
        "exception RuntimeError",
    ),
)

MEMORY = (
    Attack(
        "memory_meets_its_limit",
        "held = []\nwhile True: held.append(bytearray(b'x' * 10_000_000))",
        "oom, killed",
    ),
    Attack("memory_of_a_mapping_meets_the_limit", "mmap.mmap(-1, 2 << 30).write(b'x' * (1 << 30))", "oom, killed"),
    Attack("an_array_over_the_limit_is_killed", "import numpy\nnumpy.ones(1 << 28)", "oom, killed"),
    Attack(
        "memory_of_a_child_is_the_cells",
        "subprocess.run([sys.executable, '-c', 'x = []\\nwhile True: x.append(bytearray(b\"x\" * 10_000_000))']).returncode",
        "-9",
    ),
    Attack(
        "memory_of_sockets_is_counted",
        """
def used():
    counted = ('/sys/fs/cgroup/memory/memory.usage_in_bytes', '/sys/fs/cgroup/memory.current')
    return int(open(next(filter(os.path.exists, counted))).read())
held, sent, before = [], 0, used()
for _ in range(400):
    held.append(socket.socketpair())
    held[-1][0].setblocking(False)
    try:
        while True: sent += held[-1][0].send(bytes(1 << 16))
    except BlockingIOError: pass
used() - before > sent > 20_000_000
""",
        "True",
    ),
    Attack(
        "memory_of_pipes_is_bounded_by_user",
        """
import fcntl
held = []
def fill():
    while True:
        held.append(os.pipe())
        fcntl.fcntl(held[-1][1], fcntl.F_SETPIPE_SZ, 1 << 20)
        os.write(held[-1][1], bytes(1 << 20))
tried(fill), len(held) < 200
""",
        "('EPERM', True)",
    ),
    Attack(
        "memory_of_connections_is_bounded_by_their_number",
        """
def flood():
    held, server = [], socket.create_server(('127.0.0.1', 0), backlog=100)
    for _ in range(480):
        held += [socket.create_connection(server.getsockname()), server.accept()[0]]
    for one in held: one.setblocking(False)
    while True:
        for one in held: tried(one.send, bytes(1 << 16))
for _ in range(4):
    if os.fork() == 0: flood()
time.sleep(60)
""",
        _SOCKETS,
    ),
    Attack(
        "memory_of_connections_that_nobody_takes_is_bounded_by_their_number",
        """
def ask(server):
    held = []
    while len(held) < 450:
        held.append(socket.create_connection(server.getsockname()[:2]))
        held[-1].setblocking(False)
        tried(held[-1].send, bytes(1 << 16))
    time.sleep(60)
for host in (socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1'):
    server = socket.create_server((host[1], 0), family=host[0], backlog=4_000)
    if os.fork() == 0: ask(server)
time.sleep(60)
""",
        _SOCKETS,
    ),
    Attack(
        "memory_of_datagrams_is_bounded_by_the_number_of_sockets",
        """
def flood():
    held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(800)]
    for one in held: one.bind(('127.0.0.1', 0))
    while True:
        for one in held: tried(held[0].sendto, b'x', one.getsockname())
for _ in range(2):
    if os.fork() == 0: flood()
time.sleep(60)
""",
        _SOCKETS,
    ),
    Attack("shared_memory_meets_its_size", "fill('/dev/shm/fill')", "'ENOSPC'"),
    Attack("shared_memory_meets_its_inodes", "files('/dev/shm', 1_100)", "'ENOSPC'"),
    Attack("temporary_files_meet_their_size", "fill('/tmp/fill')", "'ENOSPC'"),
    Attack("files_of_the_workspace_meet_their_size", "fill('/workspace/fill')", "'ENOSPC'"),
    Attack("files_of_the_workspace_meet_their_inodes", "files('/workspace', 17_000)", "'ENOSPC'"),
    Attack("directories_meet_the_inodes", "tried(lambda: [os.mkdir(f'/tmp/{n}') for n in range(9_000)])", "'ENOSPC'"),
    Attack("links_meet_the_inodes", "tried(lambda: [os.symlink('x', f'/tmp/{n}') for n in range(9_000)])", "'ENOSPC'"),
    Attack(
        "a_full_workspace_is_told_as_such",
        "with open('/workspace/fill', 'wb') as file:\n    while True: file.write(bytes(1 << 20))",
        "disk_full, killed",
    ),
    Attack(
        "all_file_systems_at_once_stay_inside_the_memory",
        "[fill(f'{path}/fill') for path in ('/workspace', '/tmp', '/dev/shm')]",
        "['ENOSPC', 'ENOSPC', 'ENOSPC']",
    ),
    Attack("a_sparse_giant_meets_the_size_of_a_file", "tried(os.truncate, giant(), 1 << 40)", "'EFBIG'"),
    Attack(
        "a_write_far_out_meets_the_size_of_a_file",
        "tried(os.pwrite, os.open(giant(), os.O_RDWR), b'x', 1 << 40)",
        "'EFBIG'",
    ),
    Attack(
        "an_allocation_far_out_meets_a_limit",
        "tried(os.posix_fallocate, os.open(giant(), os.O_RDWR), 0, 1 << 29)",
        "'ENOSPC'",
    ),
    Attack("many_mappings_meet_the_kernels_limit", "mappings()", "'ENOMEM'"),
)

DESCRIPTORS = (
    Attack("descriptors_meet_their_limit", "hunger(lambda: os.open('/dev/null', os.O_RDONLY))", "('EMFILE', True)"),
    Attack("sockets_meet_the_limit_of_descriptors", "hunger(socket.socket)", "('EMFILE', True)"),
    Attack("pipes_meet_the_limit_of_descriptors", "hunger(os.pipe)", "('EMFILE', True)"),
    Attack("the_limit_of_descriptors_is_not_raised", "limit_raised('RLIMIT_NOFILE')", "'EPERM'"),
    Attack("the_size_of_a_file_is_not_raised", "limit_raised('RLIMIT_FSIZE')", "'EPERM'"),
    Attack("core_dumps_are_not_raised", "limit_raised('RLIMIT_CORE')", "'EPERM'"),
    # With 0 a crash starts a program of the host's, where that has named one for crashes.
    Attack("core_dumps_are_not_forbidden_altogether", "call('setrlimit', resource.RLIMIT_CORE, bytes(16))", "'EPERM'"),
    Attack(
        "core_dumps_are_not_forbidden_by_the_newer_call",
        "call('prlimit64', 0, resource.RLIMIT_CORE, bytes(16), None)",
        "'EPERM'",
    ),
    Attack(
        "terminals_are_bounded",
        "held = [os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY) for _ in range(900)]\ntime.sleep(60)",
        "crashed: there were more than 64 terminals in the sandbox, of which all have one pool",
    ),
    Attack("watches_of_files_are_bounded", "hunger(lambda: watch())", "('EMFILE', True)"),
    Attack("queued_signals_are_bounded", "queued_signals()", "'EAGAIN'"),
    Attack(
        "descriptors_in_flight_are_bounded",
        """
held = []
def send():
    while True:
        one, other = socket.socketpair()
        held.append((one, other))
        socket.send_fds(one, [b'x'], [1] * 200)
tried(send)
""",
        "'ETOOMANYREFS'",
    ),
)

HEARD = (
    Attack(
        "ten_gigabytes_of_output_are_counted_and_cut",
        "block = b'x' * (1 << 20)\nfor _ in range(10_000): os.write(1, block)",
        ("None", "timeout, kept"),
        limit=10.0,
        output_bytes=10_000 << 20,
    ),
    Attack(
        "millions_of_tiny_writes_are_counted",
        "write_one = os.write\nfor _ in range(2_000_000): write_one(1, b'x')",
        ("None", "timeout, kept"),
        limit=4.0,
        output_bytes=2_000_000,
    ),
    Attack(
        "a_flood_of_lines_from_children_is_cut",
        "subprocess.run('yes', shell=True)",
        ("timeout, kept", "timeout, killed"),
        limit=1.0,
    ),
    Attack(
        "figures_by_the_thousand_are_counted",
        """
import matplotlib.pyplot as plt, warnings
warnings.simplefilter('ignore')
for _ in range(1000): plt.figure(figsize=(.1, .1))
""",
        ("None", "timeout, kept"),
        limit=20.0,
    ),
    Attack(
        "a_figure_over_the_memory_costs_its_own_process",
        "import matplotlib.pyplot as plt\nplt.figure(figsize=(600, 600))\nNone",
        ("oom, killed", "None", "exception ValueError", "exception MemoryError"),
        limit=20.0,
    ),
    Attack(
        "a_value_of_half_a_gigabyte_is_cut",
        "class Large:\n    def __repr__(self): return 'x' * 400_000_000\nLarge()",
        "x" * 80,
    ),
    Attack("a_message_of_half_a_gigabyte_is_cut", "raise ValueError('x' * 300_000_000)", "exception ValueError"),
    Attack(
        "a_traceback_without_end_is_cut",
        "def deeper(depth): deeper(depth + 1)\nsys.setrecursionlimit(100_000)\ndeeper(0)",
        "exception RecursionError",
    ),
    Attack(
        "recursion_in_c_costs_its_own_process",
        "sys.setrecursionlimit(10**9)\nvalue = []\nfor _ in range(10**6): value = [value]\nrepr(value)",
        "crashed: its process was ended by SIGSEGV",
    ),
    Attack(
        "a_million_names_are_counted",
        "globals().update({f'name{number}': number for number in range(1_000_000)})",
        "None",
    ),
    Attack(
        "a_hundred_thousand_warnings_are_cut",
        "import warnings\nwarnings.simplefilter('always')\nfor n in range(100_000): warnings.warn('w' * 100)",
        ("None", "timeout, kept"),
    ),
)

EXHAUSTION = (*PROCESSES, *MEMORY, *DESCRIPTORS, *HEARD)
