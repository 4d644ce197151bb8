"""What saving and restoring a namespace cost inside a sandbox, beside what they can't do without: reading the memory.

Run by `make bench`. The script runs in the real image; all ratios are of one run.
"""

from contextlib import closing
from pathlib import Path

from orchestrator.adapters.engine.endpoint import api_client, find_engine
from tests.docker.sandboxed import run_python

FOLDER = Path(__file__).parent / "snapshot_agent"
BOUND_S = 300

if __name__ == "__main__":
    with closing(api_client(find_engine())) as engine:
        print(run_python(engine, FOLDER, ["/cases/measure.py"], bound_s=BOUND_S), end="")
