"""What honest sessions do, each named by its outcome, with its answer: the libraries at real work, and every corner of
Python that asks the kernel for something. A cell ends with an expression.
"""

WORK: dict[str, tuple[str, str]] = {
    "numpy_multiplies_and_decomposes": (
        """\
import numpy as np
a = np.random.default_rng(1).normal(size=(300, 300))
bool(np.allclose(np.linalg.inv(a) @ a, np.eye(300), atol=1e-6)), np.linalg.svd(a)[1].shape, np.fft.fft(a[0]).shape
""",
        "(True, (300,), (300,))",
    ),
    "openblas_runs_in_threads_of_ones_own": (
        """\
import concurrent.futures, numpy as np
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    done = list(pool.map(lambda n: (np.full((200, 200), n) @ np.eye(200)).sum(), range(8)))
[int(one) for one in done] == [40000 * n for n in range(8)]
""",
        "True",
    ),
    "openblas_runs_with_threads_of_its_own": (
        """\
import os, subprocess, sys
code = '''
import os, numpy as np
a = np.ones((800, 800))
print(int((a @ a).sum()), len(os.listdir('/proc/self/task')) > 1)
'''
environment = {**os.environ, 'OPENBLAS_NUM_THREADS': '4'}
subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True).stdout
""",
        "'512000000 True\\n'",
    ),
    "numpy_maps_a_file": (
        """\
import numpy as np
mapped = np.memmap('mapped.bin', dtype='f8', mode='w+', shape=(1000,))
mapped[:] = 2
mapped.flush()
float(np.memmap('mapped.bin', dtype='f8', mode='r').sum())
""",
        "2000.0",
    ),
    "pandas_groups_and_writes": (
        """\
import pandas as pd
frame = pd.DataFrame({'a': [1, 2, 3] * 100, 'b': range(300)})
frame.to_csv('frame.csv', index=False)
int(pd.read_csv('frame.csv').groupby('a').b.sum().sum()), frame.describe().shape
""",
        "(44850, (8, 2))",
    ),
    "matplotlib_draws_and_saves": (
        """\
import matplotlib.pyplot as plt
figure, axes = plt.subplots()
axes.plot([1, 2, 3])
figure.savefig('figure.png')
plt.close(figure)
open('figure.png', 'rb').read(4)
""",
        "b'\\x89PNG'",
    ),
    "scipy_solves": (
        """\
import scipy.integrate, scipy.optimize, scipy.sparse
lowest = scipy.optimize.minimize(lambda x: (x[0] - 3) ** 2, [0]).x[0]
round(float(lowest), 3), round(scipy.integrate.quad(lambda x: x, 0, 1)[0], 3)
""",
        "(3.0, 0.5)",
    ),
    "sklearn_clusters": (
        """\
import numpy as np
from sklearn.cluster import KMeans
points = np.r_[np.zeros((50, 2)), np.ones((50, 2))]
sorted(int(x) for x in np.bincount(KMeans(2, n_init=2, random_state=0).fit(points).labels_))
""",
        "[50, 50]",
    ),
    "sklearn_boosts_with_openmp": (
        """\
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
x = np.arange(400.0).reshape(-1, 1)
float(HistGradientBoostingClassifier(max_iter=10).fit(x, x[:, 0] > 200).score(x, x[:, 0] > 200))
""",
        "1.0",
    ),
    "sklearn_runs_jobs_in_processes": (
        """\
import joblib
joblib.Parallel(2)(joblib.delayed(pow)(n, 2) for n in range(4))
""",
        "[0, 1, 4, 9]",
    ),
    "pillow_draws": (
        """\
from PIL import Image, ImageDraw
image = Image.new('RGB', (20, 20))
ImageDraw.Draw(image).line((0, 0, 19, 19), fill='white')
image.save('image.webp')
Image.open('image.webp').size
""",
        "(20, 20)",
    ),
    "sqlite_commits_to_a_file": (
        """\
import sqlite3
with sqlite3.connect('base.db') as base:
    base.execute('PRAGMA journal_mode=WAL')
    base.execute('CREATE TABLE t (x)')
    base.executemany('INSERT INTO t VALUES (?)', [(n,) for n in range(100)])
base.execute('SELECT sum(x) FROM t').fetchone()
""",
        "(4950,)",
    ),
    "sqlite_is_shared_by_threads_processes_and_many_connections": (
        """\
import os, sqlite3, threading
def connect(): return sqlite3.connect('shared.db', timeout=30)
def write():
    base = connect()
    for number in range(10):
        with base: base.execute('INSERT INTO t VALUES (?)', (number,))
    base.close()
with connect() as base:
    base.execute('PRAGMA journal_mode=WAL')
    base.execute('CREATE TABLE t (x)')
threads = [threading.Thread(target=write) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
for _ in range(2):
    if os.fork() == 0:
        write()
        os._exit(0)
for _ in range(2): os.wait()
held = [connect() for _ in range(150)]
{one.execute('BEGIN').execute('SELECT count(*), sum(x) FROM t').fetchone() for one in held}
""",
        "{(60, 270)}",
    ),
    "subprocesses_run_and_are_piped": (
        """\
import subprocess
subprocess.run('echo $((6 * 7)) | tr 4 5', shell=True, capture_output=True, text=True, start_new_session=True).stdout
""",
        "'52\\n'",
    ),
    "subprocesses_time_out_and_are_killed": (
        """\
import subprocess
try:
    subprocess.run(['sleep', '60'], timeout=0.2)
except subprocess.TimeoutExpired as error:
    late = type(error).__name__
late
""",
        "'TimeoutExpired'",
    ),
    "processes_are_forked": (
        """\
import multiprocessing
with multiprocessing.get_context('fork').Pool(3) as pool:
    squares = pool.starmap(pow, [(n, 2) for n in range(5)])
squares
""",
        "[0, 1, 4, 9, 16]",
    ),
    "processes_are_spawned": (
        """\
import multiprocessing, operator
with multiprocessing.get_context('spawn').Pool(2) as pool:
    total = pool.starmap(operator.add, [(1, 2), (3, 4)])
total
""",
        "[3, 7]",
    ),
    "processes_share_locks_queues_and_values": (
        """\
import multiprocessing
context = multiprocessing.get_context('fork')
value, queue, lock = context.Value('i', 0), context.Queue(), context.Lock()
def work():
    with lock:
        value.value += 1
    queue.put(value.value)
children = [context.Process(target=work) for _ in range(3)]
[child.start() for child in children]
taken = sorted(queue.get() for _ in children)
[child.join() for child in children]
value.value, taken
""",
        "(3, [1, 2, 3])",
    ),
    "managers_share_over_sockets": (
        """\
import multiprocessing
with multiprocessing.get_context('fork').Manager() as manager:
    shared = manager.dict(a=1)
    shared['b'] = 2
    copied = dict(shared)
copied
""",
        "{'a': 1, 'b': 2}",
    ),
    "shared_memory_is_shared": (
        """\
from multiprocessing import shared_memory
block = shared_memory.SharedMemory(create=True, size=4096)
block.buf[:2] = b'ab'
other = shared_memory.SharedMemory(block.name)
seen = bytes(other.buf[:2])
other.close(); block.close(); block.unlink()
seen
""",
        "b'ab'",
    ),
    "threads_wait_for_each_other": (
        """\
import threading, queue
q, done = queue.Queue(), threading.Event()
threads = [threading.Thread(target=lambda: q.put(threading.get_native_id() > 0)) for _ in range(20)]
[thread.start() for thread in threads]; [thread.join(10) for thread in threads]
q.qsize(), done.wait(0.01)
""",
        "(20, False)",
    ),
    "asyncio_runs_subprocesses": (
        """\
import asyncio
async def echoed():
    child = await asyncio.create_subprocess_exec('cat', stdin=-1, stdout=-1)
    return (await child.communicate(b'through'))[0]
await echoed()
""",
        "b'through'",
    ),
    "asyncio_serves_tcp_over_the_loopback": (
        """\
import asyncio
async def served(host):
    async def answer(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(answer, host, 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b'hello\\n')
    line = await reader.read()
    writer.close()
    server.close()
    return line
await served('127.0.0.1')
""",
        "b'HELLO\\n'",
    ),
    "files_and_datagrams_are_sent": (
        """\
import socket
one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
one.bind(('127.0.0.1', 0))
other.sendto(b'datagram', one.getsockname())
received = one.recvfrom(100)[0]
one.close(); other.close()
a, b = socket.socketpair()
open('sent.txt', 'w').write('sent')
a.sendfile(open('sent.txt', 'rb'))
received, b.recv(10)
""",
        "(b'datagram', b'sent')",
    ),
    "http_is_served_and_fetched": (
        """\
import http.server, threading, urllib.request
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
open('page.txt', 'w').write('page')
with urllib.request.urlopen(f'http://127.0.0.1:{server.server_port}/page.txt') as page:
    fetched = page.read()
server.shutdown(); server.server_close()
fetched
""",
        "b'page'",
    ),
    "unix_sockets_pass_descriptors": (
        """\
import os, socket
a, b = socket.socketpair()
socket.send_fds(a, [b'x'], [os.open('/dev/null', os.O_RDONLY)])
received = socket.recv_fds(b, 1, 1)[1]
[os.close(fd) for fd in received]
len(received)
""",
        "1",
    ),
    "temporary_files_come_and_go": (
        """\
import os, tempfile
with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir=folder) as named:
    with tempfile.TemporaryFile() as file:
        file.write(b'x' * 10_000)
        there = os.path.exists(named.name), file.tell()
there
""",
        "(True, 10000)",
    ),
    "trees_are_copied_moved_and_packed": (
        """\
import os, shutil
os.makedirs('tree/below')
open('tree/below/leaf', 'w').write('leaf')
shutil.copytree('tree', 'copied')
shutil.move('copied', 'moved')
shutil.make_archive('packed', 'zip', 'moved')
shutil.unpack_archive('packed.zip', 'unpacked')
shutil.make_archive('packed', 'gztar', 'moved')
shutil.unpack_archive('packed.tar.gz', 'again')
open('unpacked/below/leaf').read(), open('again/below/leaf').read(), shutil.disk_usage('.').total > 0
""",
        "('leaf', 'leaf', True)",
    ),
    "files_are_moved_from_tmp": (
        """\
import os, shutil
open('/tmp/from', 'w').write('moved')
shutil.move('/tmp/from', 'to')
shutil.copy2('to', '/dev/shm/copy')
os.makedirs('elsewhere')
os.link('to', 'linked'); os.symlink('to', 'pointing'); os.rename('linked', 'elsewhere/renamed'); os.mkfifo('pipe')
[open(name).read() for name in ('elsewhere/renamed', 'pointing', '/dev/shm/copy')]
""",
        "['moved', 'moved', 'moved']",
    ),
    "zip_files_are_written_and_read": (
        """\
import io, zipfile
data = io.BytesIO()
with zipfile.ZipFile(data, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('a', 'x' * 1000)
zipfile.ZipFile(data).read('a') == b'x' * 1000
""",
        "True",
    ),
    "memory_is_mapped_advised_and_flushed": (
        """\
import mmap
open('m', 'wb').write(bytes(8192))
with open('m', 'r+b') as file, mmap.mmap(file.fileno(), 0) as mapped:
    mapped[:2] = b'ab'
    mapped.flush()
    mapped.madvise(mmap.MADV_DONTNEED)
    mapped.resize(16384)
    seen = bytes(mapped[:2]), len(mapped)
seen
""",
        "(b'ab', 16384)",
    ),
    "files_are_synced_locked_and_resized": (
        """\
import fcntl, os
with open('synced', 'w') as file:
    file.write('x'); file.flush()
    os.fsync(file.fileno()); os.fdatasync(file.fileno())
    fcntl.flock(file, fcntl.LOCK_EX); fcntl.lockf(file, fcntl.LOCK_UN)
    os.posix_fallocate(file.fileno(), 0, 4096); os.ftruncate(file.fileno(), 100)
    for advice in (os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_DONTNEED):
        os.posix_fadvise(file.fileno(), 0, 0, advice)
os.sync()
os.stat('synced').st_size
""",
        "100",
    ),
    "signals_and_timers_arrive": (
        """\
import signal, time
seen = []
before = signal.signal(signal.SIGALRM, lambda *_: seen.append('alarm'))
signal.setitimer(signal.ITIMER_REAL, 0.05)
signal.pause()
signal.signal(signal.SIGALRM, before)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); signal.raise_signal(signal.SIGUSR1)
got = signal.sigtimedwait([signal.SIGUSR1], 1).si_signo == signal.SIGUSR1
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
seen, got
""",
        "(['alarm'], True)",
    ),
    "one_knows_who_and_where_one_is": (
        """\
import getpass, os, pathlib, platform, socket, time
(os.getcwd(), getpass.getuser(), str(pathlib.Path.home()), socket.gethostname(), time.tzname[0], os.cpu_count() > 0,
 len(os.sched_getaffinity(0)) > 0, platform.system(), os.getpriority(os.PRIO_PROCESS, 0) > 0)
""",
        "('/workspace', 'sandbox', '/workspace', 'sandbox', 'UTC', True, True, 'Linux', True)",
    ),
    "a_process_binds_and_limits_itself": (
        """\
import os, resource
os.sched_setaffinity(0, os.sched_getaffinity(0)); os.nice(1)
soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
resource.setrlimit(resource.RLIMIT_STACK, (hard, hard)); resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
soft, hard
""",
        "(8388608, 67108864)",
    ),
    "a_terminal_is_made_and_used": (
        """\
import os, pty, subprocess, termios
ours, theirs = pty.openpty()
termios.tcgetattr(theirs); termios.tcdrain(theirs); termios.tcflow(theirs, termios.TCOON)
said = subprocess.Popen(['sh', '-c', 'test -t 1 && echo terminal'], stdin=theirs, stdout=theirs, start_new_session=True)
said.wait()
answer = os.read(ours, 1000)
os.close(ours); os.close(theirs)
b'terminal' in answer
""",
        "True",
    ),
    "recursion_goes_deep_in_a_thread_with_a_large_stack": (
        """\
import sys, threading
sys.setrecursionlimit(60_000)
threading.stack_size(512 * 1024 * 1024)
def deep(n): return 0 if n == 0 else 1 + deep(n - 1)
answers = []
thread = threading.Thread(target=lambda: answers.append(deep(50_000)))
thread.start(); thread.join(); threading.stack_size(0); sys.setrecursionlimit(1000)
answers
""",
        "[50000]",
    ),
    "code_is_compiled_into_the_workspace_and_imported": (
        """\
import importlib, sys
open('module_of_mine.py', 'w').write('answer = 42')
importlib.invalidate_caches()
import module_of_mine
module_of_mine.answer, module_of_mine.__cached__.startswith('/workspace')
""",
        "(42, True)",
    ),
    "programs_run_from_the_workspace": (
        """\
import os, subprocess
open('run', 'w').write('#!/bin/sh\\necho ran')
os.chmod('run', 0o755)
subprocess.run('./run', capture_output=True, text=True).stdout
""",
        "'ran\\n'",
    ),
    "ctypes_calls_back": (
        """\
import ctypes
pointer = ctypes.POINTER(ctypes.c_int)
compare = ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer)(lambda a, b: a[0] - b[0])
numbers = (ctypes.c_int * 3)(3, 1, 2)
ctypes.CDLL(None).qsort(numbers, 3, 4, compare)
list(numbers)
""",
        "[1, 2, 3]",
    ),
    "addresses_are_looked_up": (
        """\
import socket
socket.getaddrinfo('127.0.0.1', 80, type=socket.SOCK_STREAM)[0][4]
""",
        "('127.0.0.1', 80)",
    ),
}
