"""The hook that fails any host code that unpickles is there, and bites."""

import pickle
import types
from collections import OrderedDict

import pytest

from tests.conftest import UnpickledError


def test_host_code_that_unpickles_fails() -> None:
    host = types.ModuleType("orchestrator.planted")
    exec("import pickle\ndef load(data):\n    return pickle.loads(data)", host.__dict__)  # noqa: S102
    data = pickle.dumps(OrderedDict())
    assert pickle.loads(data) == OrderedDict()  # noqa: S301 - a test tool's own
    with pytest.raises(UnpickledError):
        host.load(data)
