"""Which images of the product an engine has, whose agent they carry, and which of them nothing needs."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

import docker

from orchestrator.domain.images import LABEL_AGENT, LABEL_ENVIRONMENT, LABEL_KIND, LABEL_PYTHON, LEFTOVER

_IN_USE = 409  # as the engine says it: Conflict


@dataclass(frozen=True, slots=True)
class HeldImage:
    """An image with our label. `bytes` counts layers that it shares with others, too."""

    tag: str  # its id where it has none
    kind: str
    python: str | None
    environment: str | None
    agent: str | None
    bytes: int
    created_at: datetime
    containers: int  # that were made of it, in whatever state and of whatever installation


def held_images(api: docker.APIClient) -> list[HeldImage]:
    """All of them, newest first. Raises what the SDK raises."""
    used = Counter(str(one["ImageID"]) for one in api.containers(all=True))
    found = []
    for image in api.images(filters={"label": LABEL_KIND}):
        labels = image.get("Labels") or {}
        tags = [tag for tag in image.get("RepoTags") or () if not tag.startswith("<none>")]
        found.append(
            HeldImage(
                tag=tags[0] if tags else str(image["Id"]),
                kind=labels[LABEL_KIND],
                python=labels.get(LABEL_PYTHON),
                environment=labels.get(LABEL_ENVIRONMENT),
                agent=labels.get(LABEL_AGENT),
                bytes=int(image["Size"]),
                created_at=datetime.fromtimestamp(image["Created"], UTC),
                containers=used[str(image["Id"])],
            )
        )
    return sorted(found, key=lambda image: image.created_at, reverse=True)


def superfluous(images: list[HeldImage], default: str | None) -> list[HeldImage]:
    """Sandbox images beside the default one that no container was made of, and what builds have left.

    An environment stays, and with it every session that began on it: the present agent is put on it again in a second.
    Pure.
    """
    return [
        image
        for image in images
        if not image.containers and (image.kind == LEFTOVER or (image.kind == "sandbox" and image.tag != default))
    ]


def remove_image(api: docker.APIClient, tag: str) -> bool:
    """Whether it is gone; False where a container has come to use it meanwhile."""
    try:
        api.remove_image(tag)
    except docker.errors.ImageNotFound:
        return True
    except docker.errors.APIError as error:
        if error.status_code == _IN_USE:
            return False
        raise
    return True
