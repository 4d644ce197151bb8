"""The profile and the rest of the spec are in nobody's way who does what Python sessions are for."""

import pytest

from tests.security.conftest import Inside
from tests.security.stack import WORK

KIND = "honest work"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("outcome", WORK)
async def test_work(outcome: str, inside: Inside) -> None:
    code, answer = WORK[outcome]
    report = await (await inside(None)).run(code, limit=120)
    assert (report.outcome, report.value) == ("ok", answer), (report.traceback, report.output_head)
