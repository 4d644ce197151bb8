"""An installation for what speaks over stdio."""

from collections.abc import Iterator

import pytest

from tests.mcp.harness import Installation


@pytest.fixture
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One that leaves no owner behind."""
    made = Installation(tmp_path_factory.mktemp("i"))
    yield made
    made.stop_owner()
