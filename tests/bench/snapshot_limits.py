"""What bench_snapshots.py measures with: cells that make, read and unpickle data, and the raw limits on this side."""

import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from orchestrator.adapters.store.pieces.file import PAGE_BYTES
from orchestrator.domain.snapshots import MAX_PIECE_BYTES

# Random bits of new memory: nothing of it can be packed, or be known already.
FRESH = "import os, numpy as np\ndef fresh(size): return np.frombuffer(os.urandom(size), np.uint8).copy()"
# The bare unpickling in a process of its own, as a wake has one: what it imports belongs to it.
UNPICKLED = """
import subprocess, sys, pickle
with open('/tmp/bare', 'wb') as file: file.write(pickle.dumps(kept, 5))
took = float(subprocess.run([sys.executable, '-c', '''
import pickle, sys, time
data = open("/tmp/bare", "rb").read(); began = time.perf_counter(); kept = pickle.loads(data)
print(time.perf_counter() - began)'''], capture_output=True, check=True, text=True).stdout)
took
"""
# One read of all of it through the digest that the agent uses, on a warm page table.
HASHED = """
import sys, time
sys.path.insert(0, "/opt/agent")
from agent.snapshot.libraries import xxhash
began = time.perf_counter()
for memory in arrays:
    for start in range(0, len(memory), 1 << 20): xxhash.xxh3_128_digest(memory[start:start + (1 << 20)], 1)
time.perf_counter() - began
"""
VALUES = {
    "records": "kept = [{'id': i, 'name': f'name {i}', 'tags': [str(i), i * 0.5]} for i in range(95_000)]",
    "arrays": "import numpy as np; kept = [np.random.default_rng(i).random(125_000) for i in range(10)]",
    "text": "import random; kept = [random.randbytes(5_000).hex() for i in range(1_000)]",
}
SPIN = """
import time
def timed(work, count):
    began, used = time.perf_counter(), time.thread_time()
    work(count)
    return [time.perf_counter() - began, time.thread_time() - used]
def spin(count):
    total = 0
    for i in range(count): total += i
def write(count):
    for i in range(count): arrays[i % 10][(i * 7919 << 12) % 100_000_000] = i % 251
"""


def memcpy_s(data: bytes) -> float:
    """A copy into memory that is there already."""
    target = memoryview(bytearray(data))
    began = time.perf_counter()
    target[:] = data
    return time.perf_counter() - began


def sqlite_s(data: bytes) -> float:
    """The same bytes in rows as long as the product's, its page size, journal and syncing; all in one transaction."""
    view = memoryview(data)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        began = time.perf_counter()
        with closing(sqlite3.connect(f"{directory}/raw", isolation_level=None)) as raw:
            for pragma in (f"page_size = {PAGE_BYTES}", "journal_mode = TRUNCATE", "synchronous = FULL"):
                raw.execute(f"PRAGMA {pragma}").fetchall()
            raw.execute("CREATE TABLE pieces (id INTEGER PRIMARY KEY, data BLOB NOT NULL)")
            raw.execute("BEGIN IMMEDIATE")
            rows = ((view[start : start + MAX_PIECE_BYTES],) for start in range(0, len(data), MAX_PIECE_BYTES))
            raw.executemany("INSERT INTO pieces (data) VALUES (?)", rows)
            raw.execute("COMMIT")
        return time.perf_counter() - began
