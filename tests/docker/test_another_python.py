"""A session that falls asleep on one Python and wakes on another, and back: what is portable comes, the rest is named.

The other Python is that of the distribution's next release, whose packages come from where the host's own come from; a
minute or two for the first run, and some seconds where its base image is there already.
"""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from orchestrator.adapters.image import debian_base
from orchestrator.adapters.image.build_steps import has_image, import_archive
from orchestrator.adapters.image.builder import ImageBuilder
from orchestrator.adapters.image.sources import read_image_files
from orchestrator.app import Orchestrator
from orchestrator.domain.images import LABEL_ENVIRONMENT, LABEL_KIND, tag
from orchestrator.domain.ports import SandboxImage
from orchestrator.settings import Settings

pytestmark = pytest.mark.usefixtures("alone_among_images")

NEXT = {"bookworm": "trixie"}  # Python 3.11 and 3.13
LINES = """
import collections, datetime, decimal, enum, functools, random, re
import numpy as np
shared = [1, 2]; alias = shared; held = {'s': shared, 't': {3, 'x'}}
a = np.arange(12.0).reshape(3, 4); view = a[1]; structured = np.array([(1, 2.5)], dtype=[('n', 'i4'), ('x', 'f8')])
plain = (10**100, 1.5, 'é', b'x' * 100, decimal.Decimal('1.10'), datetime.datetime(2030, 1, 2), re.compile('a+'),
         range(3), slice(1, 2), frozenset([1]), collections.Counter('aab'), ValueError('odd'))
random.seed(5); np.random.seed(5); generator = np.random.default_rng(3)
open('f', 'w').write('kept')
class Colour(enum.Enum):
    RED = 1
colour = Colour.RED
""".strip()
CODE = """
def f(x): return x + len(shared)
class Point:
    def __init__(self, x): self.x = x
    def twice(self): return 2 * self.x
point = Point(3); mixed = [1, point]; part = functools.partial(f, 1); largest = functools.partial(max, 1)
""".strip()
# Random states go on: they are read once in each life.
READ = (
    "(alias is shared is held['s'], sorted(map(str, held['t'])), view.base is a.base or np.shares_memory(view, a),"
    " view.tolist(), structured['x'].tolist(), repr(plain), open('f').read(), colour is Colour.RED, largest(5))"
)
GONE = ("f", "Point", "point", "mixed", "part")
THERE = f"[name for name in {GONE!r} if name in globals()]"


@pytest.fixture(scope="module")
def another(engine: docker.APIClient) -> Iterator[SandboxImage]:
    """An image with that Python and numpy."""
    files = read_image_files()
    base = _base(engine)
    (numpy,) = re.findall(rb"^numpy==(?:.*\\\n)*.*\n", files.requirements, re.MULTILINE)
    made = ImageBuilder(engine, replace(files, requirements=numpy), print).build(base)
    yield made
    for image in engine.images(filters={"label": [f"{LABEL_ENVIRONMENT}={made.environment}"]}):
        for name in image["RepoTags"]:
            engine.remove_image(name, force=True)


def _base(engine: docker.APIClient) -> str:
    release = debian_base.codename()
    if release not in NEXT:
        pytest.skip(f"no later release than {release!r} is known here")
    sources = [
        replace(source, suites=tuple(suite.replace(release, NEXT[release]) for suite in source.suites))
        for source in debian_base.base_sources()
    ]
    base = tag("base", debian_base.base_identity(sources))
    if not has_image(engine, base):
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
            patched.setattr(debian_base, "codename", lambda: NEXT[release])
            archive = Path(folder) / "base.tar"
            try:
                debian_base.make_base(sources, archive, print)
            except debian_base.NoBaseError as failure:
                pytest.skip(f"{NEXT[release]} cannot be had here: {failure}")
            repository, _, version = base.rpartition(":")
            import_archive(engine, archive, repository, version, {LABEL_KIND: "base"})
    return base


async def test_a_session_sleeps_on_one_python_and_wakes_on_another_and_back(
    settings: Settings, another: SandboxImage, engine: docker.APIClient
) -> None:
    assert engine is not None
    elsewhere = Settings.load(**{**settings.model_dump(), "image": another.tag})

    async with Orchestrator.open(settings) as usual:
        for code in (LINES, CODE):
            assert (await usual.execute(code, session_id="s")).error is None
        was = await usual.execute(READ, session_id="s")
        assert (await usual.execute(f"f(1), point.twice(), {THERE}", session_id="s")).value == f"(3, 6, {list(GONE)!r})"
        python = (await usual.execute("__import__('sys').version_info[:2]", session_id="s")).value
        first = (await usual.save("s")).sequence

    async with Orchestrator.open(elsewhere) as other:
        woken = await other.execute(READ, session_id="s")
        assert (woken.error, woken.value) == (None, was.value)
        told = "\n".join(woken.notes)
        assert f"with Python {another.python} instead of" in told
        assert all(f"{name} (" in told for name in GONE), told
        assert (await other.execute(THERE, session_id="s")).value == "[]"
        there = await other.execute("__import__('sys').version_info[:2]", session_id="s")
        assert there.value not in (python, None)
        assert (await other.execute("random.random(), np.random.rand(), generator.random()", session_id="s")).value
        assert (await other.execute("def g(): return 1\nnew = [g(), shared]", session_id="s")).error is None
        assert (await other.check()).problems == ()

    async with Orchestrator.open(settings) as back:
        again = await back.execute(READ, session_id="s")
        assert (again.error, again.value) == (None, was.value)
        assert "g (its byte code is of" in "\n".join(again.notes)
        assert (await back.execute("new[1] is shared, 'g' in globals()", session_id="s")).value == "(True, False)"
        # What only the first Python can hold was kept in the history.
        await back.roll_back("s", first)
        assert (await back.execute(f"f(1), point.twice(), {THERE}", session_id="s")).value == f"(3, 6, {list(GONE)!r})"
        assert (await back.check()).problems == ()
