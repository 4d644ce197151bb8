"""Images that nothing needs are found and removed; what a container uses, and every environment, stays."""

import io
import json
from contextlib import suppress
from datetime import UTC, datetime
from secrets import token_hex

import docker
from typer.testing import CliRunner

from orchestrator.adapters.image.inventory import HeldImage, held_images, remove_image, superfluous
from orchestrator.domain.images import LABEL_KIND, LEFTOVER
from orchestrator.faces.cli import app


def held(tag: str, kind: str = "sandbox", containers: int = 0) -> HeldImage:
    return HeldImage(tag, kind, "3.11.2", "e", "a", 1, datetime(2026, 1, 1, tzinfo=UTC), containers)


def test_only_old_agents_that_no_container_has_are_superfluous() -> None:
    images = [
        *(held("default"), held("old"), held("used", containers=1), held("stage", LEFTOVER)),
        *(held("environment", "environment"), held("libraries", "agent-libraries"), held("base", "base")),
    ]
    assert [image.tag for image in superfluous(images, "default")] == ["old", "stage"]
    assert "default" in [image.tag for image in superfluous(images, None)]


def test_an_image_is_listed_and_goes_but_not_under_a_container(engine: docker.APIClient) -> None:
    tag = f"session-orchestrator/test:{token_hex(6)}"
    text = f'FROM scratch\nLABEL {LABEL_KIND}={LEFTOVER}\nCMD ["/none"]\n'
    for _ in engine.build(fileobj=io.BytesIO(text.encode()), tag=tag, rm=True, decode=True):
        pass
    container = engine.create_container(tag)["Id"]
    try:
        (image,) = [one for one in held_images(engine) if one.tag == tag]
        assert (image.kind, image.containers) == (LEFTOVER, 1)
        assert superfluous([image], None) == []
        assert remove_image(engine, tag) is False
        listed = [json.loads(line) for line in CliRunner().invoke(app, ["image", "list", "--json"]).stdout.splitlines()]
        assert tag in [one["tag"] for one in listed]
        engine.remove_container(container)
        said = CliRunner().invoke(app, ["image", "prune", "--dry-run"])
        assert f"would remove {tag}" in said.stderr
        assert remove_image(engine, tag) is True
        assert remove_image(engine, tag) is True, "it is gone already"
    finally:
        with suppress(docker.errors.APIError):
            engine.remove_container(container)
        with suppress(docker.errors.APIError):
            engine.remove_image(tag)
