"""Orders of operators over HTTP: who may give which, and how a refusal looks."""

import json
from pathlib import Path

import pytest

from orchestrator.faces.web.pages import SiteBounds
from tests.web.harness import ADMIN_KEY, KEY, READ_KEY, serving


async def test_an_operator_looks_and_is_answered_in_lines(tmp_path: Path) -> None:
    async with serving(tmp_path) as place:
        got = await place.request("POST", "/admin/v1/read.it", body={"a": 1}, key=ADMIN_KEY)
        assert got.status == 200
        lines = [json.loads(line) for line in got.body.splitlines()]
        assert lines == [{"answer": {"order": "read.it", "a": 1}}, {"done": True}]


@pytest.mark.parametrize(
    ("method", "order", "key", "body", "status"),
    [
        ("POST", "read.it", None, {}, 401),
        ("POST", "read.it", "so_zz_wrong", {}, 401),
        ("POST", "read.it", KEY, {}, 403),
        ("POST", "read.it", READ_KEY, {}, 403),
        ("POST", "change.it", ADMIN_KEY, {}, 403),
        ("POST", "unknown", ADMIN_KEY, {}, 404),
        ("POST", "unknown", None, {}, 401),
        ("GET", "read.it", ADMIN_KEY, None, 405),
        ("POST", "refuse", ADMIN_KEY, {}, 400),
        ("POST", "read.it", ADMIN_KEY, [1], 400),
        ("POST", "read.it", ADMIN_KEY, {"x": "y" * 70_000}, 413),
    ],
)
async def test_each_refusal_has_its_status(
    method: str, order: str, key: str | None, *, body: object, status: int, tmp_path: Path
) -> None:
    async with serving(tmp_path, bounds=SiteBounds(body=65_536)) as place:
        path = f"/admin/v1/{order}"
        got = await place.request(method, path, body=body, key=key)
        assert got.status == status


async def test_what_changes_something_needs_to_be_allowed(tmp_path: Path) -> None:
    async with serving(tmp_path, bounds=SiteBounds(admin="all")) as place:
        got = await place.request("POST", "/admin/v1/change.it", body={}, key=ADMIN_KEY)
        assert got.status == 200


async def test_where_it_is_off_there_is_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, bounds=SiteBounds(admin="off")) as place:
        got = await place.request("POST", "/admin/v1/read.it", body={}, key=ADMIN_KEY)
        assert got.status == 404
