"""The plan of the house, as data: which layer may import what, and what must never be found where."""

import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

FOLDERS = ("orchestrator", "sandbox-image")
STANDARD = sys.stdlib_module_names | {"_sha2", "_sha256"}  # either, by the version of Python

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
LONGER_FUNCTIONS = {
    "orchestrator/domain/hardening.py: container_spec": "one create request in one place, so that it is reviewed as one"
}

# The libraries that pyproject.toml names, and what of each is imported: some bring parts under other names.
LIBRARIES: Mapping[str, frozenset[str]] = {
    "aiosqlite": frozenset({"aiosqlite"}),
    "cryptography": frozenset({"cryptography"}),  # signs capsules; comes with pyjwt[crypto] too
    "docker": frozenset({"docker", "requests"}),  # the SDK lets the failures of its transport through
    "httptools": frozenset({"httptools"}),
    # the SDK's types are packaged apart, it runs on anyio, and its HTTP side is made of starlette's parts
    "mcp": frozenset({"mcp", "mcp_types", "anyio", "starlette"}),
    "opentelemetry-api": frozenset({"opentelemetry"}),  # its SDK is optional, and lies in the same package
    "prompt-toolkit": frozenset({"prompt_toolkit"}),
    "prometheus-client": frozenset({"prometheus_client"}),
    "pydantic": frozenset({"pydantic", "pydantic_core", "annotated_types"}),  # its constraints are packaged apart
    "pydantic-settings": frozenset({"pydantic_settings"}),
    "pyjwt[crypto]": frozenset({"jwt"}),
    "rich": frozenset({"rich"}),
    "tenacity": frozenset({"tenacity"}),
    "typer": frozenset({"typer"}),
    "uvicorn": frozenset({"uvicorn"}),
    "uvloop": frozenset({"uvloop"}),
    "cloudpickle": frozenset({"cloudpickle"}),
    "xxhash": frozenset({"xxhash"}),
    "zstandard": frozenset({"zstandard"}),
}
# The session's own, in its environment: nothing of ours needs them to be there.
SESSION_LIBRARIES = frozenset({"matplotlib", "numpy", "pandas"})
LIBRARY_OF = {name: library for library, names in LIBRARIES.items() for name in names} | {
    name: name for name in SESSION_LIBRARIES
}
AGENT_LIBRARIES = frozenset({"cloudpickle", "xxhash", "zstandard"})

# What can be had without touching anything outside the process.
PURE = frozenset(
    {
        "base64",
        "collections",
        "contextlib",
        "dataclasses",
        "datetime",
        "enum",
        "hashlib",
        "hmac",
        "json",
        "re",
        "struct",
        "typing",
    }
    | {"difflib", "itertools", "math", "types", "typing", "unicodedata"}
    | {"io"}  # for BytesIO: memory that is written once and handed on as it lies
)
# Services wait and log; everything else that they do goes through a port.
SERVING = frozenset(
    {"asyncio", "collections", "contextlib", "dataclasses", "datetime", "functools", "logging", "math", "re"}
    | {"types", "typing"}
)


@dataclass(frozen=True, slots=True)
class Layer:
    """What the files of a layer may import."""

    layers: tuple[str, ...]
    libraries: AbstractSet[str] = frozenset()
    standard: AbstractSet[str] = STANDARD
    libraries_a_file: int | None = None  # None: as many as it needs


_EVERYWHERE = ("orchestrator", "orchestrator.places", "orchestrator.domain")
_ROOTS = (
    *(
        "orchestrator.setting_sources",
        "orchestrator.setting_reference",
        "orchestrator.settings",
        "orchestrator.app",
        "orchestrator.provisioning",
    ),
    *("orchestrator.leftovers", "orchestrator.doctor", "orchestrator.support_bundle", "orchestrator.tenancy"),
    *("orchestrator.offline", "orchestrator.purging"),
)
LAYERS: Mapping[str, Layer] = {
    "orchestrator": Layer(()),  # the package itself: its version
    "orchestrator.configuration": Layer(()),
    "orchestrator.places": Layer(("orchestrator.configuration",)),
    "orchestrator.setting_sources": Layer((*_EVERYWHERE, "orchestrator.configuration")),
    "orchestrator.domain": Layer(("orchestrator.domain",), standard=PURE),
    "orchestrator.services": Layer(("orchestrator.domain", "orchestrator.services"), standard=SERVING),
    "orchestrator.adapters": Layer(
        (*_EVERYWHERE, "orchestrator.adapters"),
        libraries=frozenset(
            {
                "aiosqlite",
                "cryptography",
                "docker",
                "opentelemetry-api",
                "prometheus-client",
                "pyjwt[crypto]",
                "tenacity",
                "xxhash",
            }
        ),
        libraries_a_file=1,
    ),
    "orchestrator.adapters.host_memory": Layer(()),  # a setting of the whole process, for who owns it
    "orchestrator.faces": Layer(
        (*_EVERYWHERE, "orchestrator.services", "orchestrator.faces"),
        libraries=frozenset({"mcp", "pydantic", "uvicorn"}),
    ),
    # Composition roots: each sees what it puts together, and no more.
    "orchestrator.http_settings": Layer(
        ("orchestrator.places", "orchestrator.setting_sources"), libraries=frozenset({"pydantic"})
    ),
    "orchestrator.tenant_settings": Layer(
        (*_EVERYWHERE, "orchestrator.setting_sources"), libraries=frozenset({"pydantic", "pydantic-settings"})
    ),
    "orchestrator.settings": Layer(
        (
            *_EVERYWHERE,
            *("orchestrator.http_settings", "orchestrator.tenant_settings", "orchestrator.setting_sources"),
        ),
        libraries=frozenset({"pydantic", "pydantic-settings"}),
    ),
    "orchestrator.setting_reference": Layer(
        (
            *("orchestrator.settings", "orchestrator.http_settings", "orchestrator.tenant_settings"),
            *("orchestrator.setting_sources", "orchestrator.reloading"),
        ),
        libraries=frozenset({"pydantic"}),
    ),
    "orchestrator.reloading": Layer(
        (
            *_EVERYWHERE,
            *("orchestrator.settings", "orchestrator.policies", "orchestrator.tenancy", "orchestrator.services"),
        ),
        libraries=frozenset({"pydantic"}),
    ),
    "orchestrator.logs": Layer(()),
    "orchestrator.tenancy": Layer(
        (*_EVERYWHERE, "orchestrator.settings", "orchestrator.services", "orchestrator.adapters")
    ),
    "orchestrator.stored": Layer((*_EVERYWHERE, "orchestrator.adapters")),
    "orchestrator.offline": Layer((*_EVERYWHERE, "orchestrator.adapters")),
    "orchestrator.purging": Layer(
        (*_EVERYWHERE, "orchestrator.adapters", "orchestrator.settings", "orchestrator.provisioning"),
        libraries=frozenset({"docker"}),
    ),
    "orchestrator.app": Layer(
        (
            *_EVERYWHERE,
            "orchestrator.settings",
            "orchestrator.services",
            "orchestrator.adapters",
            "orchestrator.policies",
            "orchestrator.provisioning",
            "orchestrator.reloading",
            "orchestrator.observing",
            "orchestrator.stored",
            "orchestrator.tenancy",
        )
    ),
    "orchestrator.policies": Layer(
        (*_EVERYWHERE, "orchestrator.settings", "orchestrator.services", "orchestrator.adapters")
    ),
    "orchestrator.observing": Layer((*_EVERYWHERE, "orchestrator.settings", "orchestrator.adapters")),
    "orchestrator.provisioning": Layer(
        (*_EVERYWHERE, "orchestrator.settings", "orchestrator.adapters"), libraries=frozenset({"docker"})
    ),
    "orchestrator.leftovers": Layer(
        (*_EVERYWHERE, "orchestrator.settings", "orchestrator.adapters", "orchestrator.app")
    ),
    "orchestrator.checkup": Layer((*_EVERYWHERE, "orchestrator.settings", "orchestrator.adapters")),
    "orchestrator.support_bundle": Layer(
        (*_EVERYWHERE, "orchestrator.settings", "orchestrator.setting_sources", "orchestrator.adapters")
    ),
    "orchestrator.doctor": Layer(
        (
            *_EVERYWHERE,
            "orchestrator.checkup",
            "orchestrator.settings",
            "orchestrator.services",
            "orchestrator.adapters",
            "orchestrator.provisioning",
        )
    ),
    "orchestrator.owner_process": Layer(
        (*_EVERYWHERE, "orchestrator.settings", "orchestrator.adapters.host_memory", "orchestrator.faces")
    ),
    "orchestrator.serve_process": Layer(
        (
            *_EVERYWHERE,
            "orchestrator.settings",
            "orchestrator.faces",
            "orchestrator.logs",
            "orchestrator.owner_process",
        ),
        libraries=frozenset({"mcp", "uvloop"}),
    ),
    # Commands may call the roots, and are no part of what the server serves.
    "orchestrator.faces.cli": Layer(
        (
            *_EVERYWHERE,
            *_ROOTS,
            "orchestrator.doctor",
            "orchestrator.owner_process",
            "orchestrator.serve_process",
            "orchestrator.faces",
            "orchestrator.faces.cli",
        ),
        libraries=frozenset({"mcp", "prompt-toolkit", "rich", "typer"}),
    ),
    "orchestrator.__main__": Layer(("orchestrator.faces", "orchestrator.faces.cli")),
    "agent": Layer(("agent", "agent.snapshot"), libraries=AGENT_LIBRARIES),
    # Takes apart and makes again what the session's own libraries hold, and only what the session has loaded.
    "agent.snapshot": Layer(("agent", "agent.snapshot"), libraries=AGENT_LIBRARIES | SESSION_LIBRARIES),
    "attack": Layer(()),
    "build": Layer(()),
    "seccomp": Layer(()),
}


@dataclass(frozen=True, slots=True)
class Hurried:
    """Where milliseconds or secrets count: what may be imported on the way, directly or not, before anything runs."""

    why: str
    starts: tuple[str, ...]
    others: AbstractSet[str] | None = None  # what may be imported that is not ours; None: anything
    never: AbstractSet[str] = frozenset()  # modules of ours


_RELAY = frozenset({"hashlib", "os", "signal", "socket", "stat", "struct", "sys", "threading"})
_HELLO = frozenset(
    {"_collections", "_collections_abc", "_io", "_json", "_operator", "_sha2", "_sha256", "_socket"}
    | {"os", "select", "struct", "sys", "time"}
    | {"builtins"}  # loaded before anything else
)
HURRIED = (
    Hurried("an editor waits for the relay", ("orchestrator.__main__", "orchestrator.faces.relay"), _RELAY),
    Hurried(
        "an editor waits for the relay that starts an owner",
        ("orchestrator.faces.relay_start",),
        _RELAY | {"errno", "fcntl", "json", "select", "time"},
    ),
    Hurried("the host waits for the hello", ("agent.__main__", "agent.start"), _HELLO),
    Hurried(
        "PID 1 imports little, and nothing that runs or describes user code",
        ("agent.supervisor",),
        _HELLO | {"collections", "ctypes", "fcntl", "json", "resource", "signal", "socket", "typing"},
        frozenset({"agent.worker", "agent.execution", "agent.inspection", "agent.displays", "agent.zygote"})
        | {"agent.save_child", "agent.worker_saves", "agent.worker_restores", "agent.snapshot"},
    ),
    Hurried(
        "the process that user code is forked from has never seen the channel",
        ("agent.zygote",),
        never=frozenset({"agent.start", "agent.channel", "agent.supervisor", "agent.executions", "agent.workers"})
        | {"agent.saves", "agent.save", "agent.save_pipe", "agent.restores", "agent.piece_feed"},
    ),
)

# The host never loads what a sandbox wrote, and has no way to: not one of these words stands in its code.
LOADERS = frozenset(
    {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "eval", "exec"}
    | {"__import__", "import_module"}
)

CLOCK = "orchestrator/adapters/system_clock.py"
WALL_CLOCKS: Mapping[str, AbstractSet[str]] = {
    "time": {"time", "time_ns"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}

ENVIRONMENT = frozenset({"environ", "environb", "getenv"})  # of the module os
# Settings come from one place, so that nobody wonders what a variable does. Who else looks at the environment, and why:
ENVIRONMENT_READERS: Mapping[str, str] = {
    "orchestrator/settings.py": "every setting of ours, through pydantic-settings",
    "orchestrator/places.py": "configuration and directories, for the relay, which has no time for pydantic",
    "orchestrator/adapters/engine/endpoint.py": "DOCKER_HOST and its kin, as docker's own tools read them",
    "orchestrator/adapters/engine/install.py": "where dockerd may be",
    "orchestrator/adapters/host_packages.py": "handed on to the host's own commands",
    "orchestrator/adapters/image/build_lock.py": "where the desktop standard puts caches",
    "orchestrator/faces/cli/demo.py": "handed on to the server that the demo starts",
    "orchestrator/faces/cli/engine.py": "handed on through sudo",
}
