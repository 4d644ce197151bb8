"""The reference of all settings, made from the code: their kinds, ranges, defaults and descriptions."""

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from annotated_types import Ge, Gt, Le
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from orchestrator.http_settings import HttpSettings
from orchestrator.reloading import RELOADABLE
from orchestrator.setting_sources import variable_of
from orchestrator.settings import Settings
from orchestrator.tenant_settings import TenantSettings

_IN_WORDS: Final = {
    "data_dir": "`session-orchestrator` in `$XDG_DATA_HOME` or `~/.local/share`",
    "runtime_dir": "`session-orchestrator` in the user's runtime directory; `/run` for root",
}
_UNITS: Final = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"), (10**9, "GB"), (10**6, "MB"))
_HEAD: Final = """# Configuration

Every setting, made from the code (`orchestrator config reference`); a test holds this page to it. `orchestrator config
show` prints what counts here and where it comes from, `orchestrator config check` all that is wrong.

A setting is given in one of three places, each above the next one:

1. where the command line or a program names it,
2. as an environment variable: `ORCHESTRATOR_` and its name in capitals,
3. in the configuration file: the one that `ORCHESTRATOR_CONFIG` names, else `session-orchestrator/config.toml` in
   `$XDG_CONFIG_HOME` or `~/.config`, else `/etc/session-orchestrator/config.toml`.

The file is TOML. A key is the setting's name; what it begins with may be a table of its own, so that these say the
same:

```toml
sandbox_memory = "2GiB"

[sandbox]
memory = "2GiB"
```

Times are in seconds. Sizes are in bytes, or written as `64KiB`, `10MB`, `1GiB`. A text of several parts with commas
between them may be a list. The file must be its reader's or root's, and nobody else's to write. A variable that begins
with `ORCHESTRATOR_`, or a key, that is no setting is refused, so that no limit is set in vain.

`SIGHUP` makes a server, or the owner behind `orchestrator mcp`, read file and environment again. Settings that are
marked with *reload* count from then on, and the certificate is read anew; for others the log says that they wait for a
restart. Where anything is wrong, nothing changes, and the log says what.
"""
_PARTS: Final = (
    ("Sessions and sandboxes", Settings, ""),
    ("The server", HttpSettings, "They count for `orchestrator serve`."),
    (
        "Tenants",
        TenantSettings,
        (
            "They count where [several share an installation](tenants.md). Of each quota, 0 means no limit; a tenant "
            "may have its own\nin place of it. The local tenant, whose machine it is, has none unless it is given one."
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One of them, for readers."""

    name: str
    kind: str  # what may be given, with its range
    default: str
    reload: bool
    description: str

    @property
    def variable(self) -> str:
        """In the environment."""
        return variable_of(self.name)


def settings_of(owner: type[Any]) -> Iterator[Setting]:
    """Those that this class brings, in the order in which it does."""
    own = owner.__annotations__
    for name, field in Settings.model_fields.items():
        if name in own:
            default = _IN_WORDS.get(name) or _told(field.get_default(call_default_factory=False), field)
            text = " ".join((field.description or "").split())
            yield Setting(name, _kind(field), default, name in RELOADABLE, text)


def reference() -> str:
    """The page, in Markdown."""
    return "\n".join((_HEAD, *(line for part in _PARTS for line in _part(*part))))


def _part(title: str, owner: type[Any], text: str) -> Iterator[str]:
    yield from (f"## {title}", "", *((text, "") if text else ()))
    yield from ("| setting | what may be given | default | what it is |", "|---|---|---|---|")
    for setting in settings_of(owner):
        told = setting.description.replace("|", "\\|") + (" *Reload.*" if setting.reload else "")
        yield f"| `{setting.name}` | {setting.kind} | {setting.default} | {told} |"
    yield ""


def _kind(field: FieldInfo) -> str:
    plain, _ = _plain(field.annotation)
    if typing.get_origin(plain) is Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(plain))
    word = {ByteSize: "size", int: "whole number", float: "number", Path: "path", str: "text"}[plain]
    least = next((f"from {_told(m.ge, field)}" for m in field.metadata if isinstance(m, Ge)), None)
    above = next((f"above {_told(m.gt, field)}" for m in field.metadata if isinstance(m, Gt)), None)
    most = next((f"to {_told(m.le, field)}" for m in field.metadata if isinstance(m, Le)), None)
    return " ".join((word, *(part for part in (least, above, most) if part)))


def _plain(annotation: Any) -> tuple[Any, bool]:  # noqa: ANN401 - an annotation may be anything
    """The type behind what wraps it, and whether None is one of its values."""
    optional = False
    while (origin := typing.get_origin(annotation)) is not None and origin is not Literal:
        if origin in (typing.Union, types.UnionType):
            optional = True
        annotation = typing.get_args(annotation)[0]
    return annotation, optional


def _told(value: object, field: FieldInfo) -> str:
    if value is None:
        return "none"
    if _plain(field.annotation)[0] is ByteSize and isinstance(value, int) and value:
        return next((f"{value // size:,} {unit}" for size, unit in _UNITS if value % size == 0), f"{value:,} B")
    if isinstance(value, int | float):
        return f"{value:,.15g}"
    return f"`{value}`"
