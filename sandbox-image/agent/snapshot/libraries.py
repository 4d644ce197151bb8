"""The agent's own libraries, which no session can see, miss or shadow.

They lie in /opt/agent/lib, which is on nobody's path. The zygote imports this module before it forks anything: each
library is imported from there once, and taken out of `sys.modules` again. A session that imports the same name gets its
own copy from its environment, or an ImportError.
"""

import importlib
import os
import sys
from types import ModuleType
from typing import Any

from agent import pristine

__builtins__ = pristine.BUILTINS  # type: ignore[assignment]

_NAMES = ("xxhash", "zstandard")


def _folder() -> str:
    agent = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.path.join(os.path.dirname(agent), "lib")


def _import_apart(names: tuple[str, ...]) -> list[Any]:
    folder = _folder()
    if not os.path.isdir(folder):
        return [importlib.import_module(name) for name in names]  # a checkout: its own environment has them
    before: dict[str, ModuleType] = dict(sys.modules)
    sys.path.insert(0, folder)
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - set(before):
            if name.partition(".")[0] in names:
                del sys.modules[name]


xxhash, zstandard = _import_apart(_NAMES)
