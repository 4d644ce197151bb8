"""A session that leaves one installation and wakes in another, which trusts the first one by name."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import docker
import pytest

from orchestrator.app import Orchestrator
from orchestrator.domain.access import LOCAL_CALLER
from orchestrator.domain.errors import PermissionDeniedError
from orchestrator.settings import Settings

BEGIN = """
import numpy as np, functools
shared = [1, 2]; alias = shared
def f(x): return x + len(shared)
class Point:
    def __init__(self, x): self.x = x
point = Point(3); part = functools.partial(f, 1)
a = np.arange(12.0).reshape(3, 4); view = a[1]
import os; os.makedirs('data/deep'); open('data/deep/f.txt', 'w').write('kept'); os.symlink('data/deep/f.txt', 'link')
print('said')
"""
PLOT = "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()"
READ = (
    "(alias is shared, f(1), point.x, part(), view.base is a or np.shares_memory(view, a), view.tolist(),"
    " open('link').read())"
)


async def chunked(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def exported(opened: Orchestrator, session_id: str) -> list[bytes]:
    async with aclosing(opened.capsules.exports.export(session_id)) as chunks:
        return [chunk async for chunk in chunks]


async def test_what_a_session_holds_wakes_in_another_installation(
    settings: Settings, engine: docker.APIClient, tmp_path: Path
) -> None:
    assert engine is not None
    elsewhere = Settings.load(
        **{**settings.model_dump(), "data_dir": tmp_path / "other data", "runtime_dir": tmp_path / "other run"}
    )
    async with Orchestrator.open(settings) as one:
        await one.execute(BEGIN, session_id="s")
        # Figures are kept of calls that may be made again.
        await one.on_behalf(LOCAL_CALLER).execute(PLOT, session_id="s", idempotency_key="plot")
        await one.execute("1/0", session_id="s")
        was = (await one.execute(READ, session_id="s")).value
        told = [await one.on_behalf(LOCAL_CALLER).result("s", number) for number in (1, 2, 3, 4)]
        key = one.capsules.trust.own_key()
        capsule = await exported(one, "s")
        assert (await one.execute("point.x = 4", session_id="s")).error is None
        await one.save("s")
        assert (await one.check()).problems == ()

    async with Orchestrator.open(elsewhere) as other:
        with pytest.raises(PermissionDeniedError):
            await other.capsules.imports.bring_in("t", chunked(capsule))
        await other.capsules.trust.add("one", key, by=LOCAL_CALLER)
        report = await other.capsules.imports.bring_in("t", chunked(capsule))
        assert report.signer == "one"
        assert len(report.notes) == 1, report.notes
        woken = await other.execute(READ, session_id="t")
        assert (woken.error, woken.value, woken.execution) == (None, was, 5)
        for before in told:
            after = await other.on_behalf(LOCAL_CALLER).result("t", before.execution)
            assert before.result is not None
            assert after.result is not None
            assert (after.outcome, after.started_at) == (before.outcome, before.started_at)
            assert (after.result.output, after.result.value) == (before.result.output, before.result.value)
            assert (after.result.displays, after.result.error) == (before.result.displays, before.result.error)
        assert told[1].result is not None
        assert told[1].result.displays, "a figure was there to be compared"
        assert (await other.execute("point.x = 9; point.x", session_id="t")).value == "9"
        await other.save("t")
        assert (await other.check()).problems == ()
        again = await exported(other, "t")

    # And back: signed by the other one now.
    async with Orchestrator.open(settings) as back:
        with pytest.raises(PermissionDeniedError):
            await back.capsules.imports.bring_in("u", chunked(again))
        assert (await back.execute("point.x", session_id="s")).value == "4"
