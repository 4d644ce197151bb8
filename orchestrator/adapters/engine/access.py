"""Blocking calls to the engine; found when first needed, and looked for again after nobody answered."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import docker
from docker.errors import NotFound

from orchestrator.adapters.channel.attach_stream import attach
from orchestrator.adapters.engine.endpoint import Probe, api_client, dial
from orchestrator.adapters.engine.failures import (
    EngineConflictError,
    EngineFaltersError,
    EngineUnreachableError,
    engine_failures,
)
from orchestrator.adapters.engine.retry import repeat
from orchestrator.domain.errors import EngineUnavailableError

T = TypeVar("T")

READ_SECONDS: Final = 30.0  # of the SDK: for each read, not for the call
GONE_SECONDS: Final = 30.0
REMOVE_AGAIN_SECONDS: Final = 2.0  # a container that is there for so long is asked to go once more
_POLL_SECONDS: Final = 0.02


class EngineAccess:
    """Used from many threads at once, as the SDK's client allows."""

    def __init__(self, find: Callable[[], Probe]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._found: tuple[Probe, docker.APIClient] | None = None
        self._closed = False

    def ask(self, doing: str, function: Callable[[docker.APIClient], T]) -> T:
        """What may be asked again after any passing failure: reading, and removing."""
        return repeat(
            lambda: self._once(doing, function),
            on=(EngineUnreachableError, EngineFaltersError),
            attempts=3,
            within_seconds=10,
        )

    def change(self, doing: str, function: Callable[[docker.APIClient], T]) -> T:
        """What may be asked again only where it is known that nothing was done."""
        return repeat(lambda: self._once(doing, function), on=(EngineUnreachableError,), attempts=3, within_seconds=10)

    def inspect(self, name: str) -> dict[str, Any] | None:
        """The container, or None where there is none."""

        def look(api: docker.APIClient) -> dict[str, Any] | None:
            try:
                return dict(api.inspect_container(name))
            except NotFound:
                return None

        return self.ask("Looking at a sandbox", look)

    def ran_out_of_memory(self, handle: str, *, until: float) -> tuple[list[float], float | None]:
        """When memory has run out in that container, and how far back the engine remembers anything: it keeps some
        hundred events of all containers together. None where it does not say.
        """

        def look(api: docker.APIClient) -> tuple[list[float], float | None]:
            # As texts, which the engine takes with fractions and the types of the SDK do not know.
            events = list(api.events(since="1", until=f"{until:.3f}", decode=True))  # type: ignore[call-overload]
            ran_out = [one for one in events if one.get("Action") == "oom" and one["Actor"]["ID"] == handle]
            oldest = min((one["timeNano"] / 1e9 for one in events), default=None)
            return [one["timeNano"] / 1e9 for one in ran_out], oldest

        try:
            return self._once("Asking when memory ran out", look)
        except EngineUnavailableError:
            return [], None

    def update(self, name: str, limits: Mapping[str, int]) -> None:
        """Change what a container may use; the same again changes nothing."""

        def change(api: docker.APIClient) -> None:
            # The SDK's own method knows nothing of NanoCpus, and CpuQuota is refused beside it.
            url = f"{api.base_url}/v{api.api_version}/containers/{name}/update"
            answer = api.post(url, json=dict(limits), timeout=READ_SECONDS)
            api._raise_for_status(answer)  # type: ignore[attr-defined] # noqa: SLF001 - else no error of the SDK's

        self.ask("Limiting a sandbox", change)

    def remove(self, name: str, labels: Mapping[str, str]) -> bool:
        """Remove the container of that name and wait until the engine has forgotten it. False where one without these
        labels bears the name: it is somebody else's, and stays.
        """
        found = self.inspect(name)
        if found is None:
            return True
        if not labels.items() <= (found["Config"]["Labels"] or {}).items():
            return False
        handle, deadline = found["Id"], time.monotonic() + GONE_SECONDS

        def remove(api: docker.APIClient) -> None:
            with contextlib.suppress(NotFound):
                api.remove_container(handle, force=True, v=True)

        while time.monotonic() < deadline:
            # A conflict: somebody else's removal of it is under way, or the engine said so and gave it up.
            with contextlib.suppress(EngineConflictError):
                self.ask("Removing a sandbox", remove)
            again = time.monotonic() + REMOVE_AGAIN_SECONDS
            while time.monotonic() < min(again, deadline):
                if self.inspect(handle) is None:
                    return True
                time.sleep(_POLL_SECONDS)
        raise EngineUnavailableError(
            f"The engine still has the container {name} after its removal.", hint="Look at the engine's log."
        )

    def attach(self, name: str, deadline: float) -> socket.socket:
        """The raw attach stream of that container."""
        found, _ = self._client()
        return attach(
            lambda until: dial(found.endpoint, until),
            api_version=found.api_version,
            container=name,
            deadline=deadline,
        )

    def close(self) -> None:
        """Close the client; nothing is asked any more."""
        with self._lock:
            self._closed = True
        self._forget(self._found)

    def _once(self, doing: str, function: Callable[[docker.APIClient], T]) -> T:
        found = self._client()
        try:
            with engine_failures(doing):
                return function(found[1])
        except EngineUnreachableError:
            self._forget(found)
            raise

    def _client(self) -> tuple[Probe, docker.APIClient]:
        with self._lock:
            if self._closed:
                raise EngineUnavailableError("The connection to the engine was closed.")
            if self._found is None:
                found = self._find()
                self._found = found, api_client(found, timeout_seconds=READ_SECONDS)
            return self._found

    def _forget(self, found: tuple[Probe, docker.APIClient] | None) -> None:
        with self._lock:
            if found is None or found is not self._found:
                return
            self._found = None
        found[1].close()
