"""One target under atheris: `python -m tests.fuzz.one TARGET [libFuzzer's options] CORPUS`."""

import importlib
import sys
from typing import Any

atheris: Any = importlib.import_module("atheris")  # an extra: not where there are no wheels of it

with atheris.instrument_imports(include=["orchestrator.domain", "orchestrator.adapters.channel", "orchestrator.faces"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
