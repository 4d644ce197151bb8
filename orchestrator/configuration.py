"""The configuration file: TOML with the names of settings as keys, alone or in tables. The environment is above it.

`sandbox_memory = "2GiB"` and `[sandbox]` with `memory = "2GiB"` say the same. Only the standard library is imported
here, since a relay may have to find its data directory with it.
"""

import os
import stat
import tomllib
from collections.abc import Iterator, Mapping

MAX_BYTES = 1024 * 1024
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class ConfigurationError(Exception):
    """The file cannot be used: a sentence without a full stop that names it and says why."""


def read_configuration(path: str) -> Mapping[str, object]:
    """What the file says, by the names of settings. A list of texts is one text, with commas between them.

    Whoever can write to it decides which programs run as its reader, so it must be this user's or root's, and nobody
    else's to write. Raises ConfigurationError.
    """
    settings: dict[str, object] = {}
    for key, name, value in _flat(_read(path), ()):
        if name in settings:
            raise ConfigurationError(f"{path} says {name} twice, the second time as {key}")
        settings[name] = value
    return settings


def _read(path: str) -> Mapping[str, object]:
    try:
        # Not to wait for who would write to a pipe.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - no pathlib in a relay
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigurationError(f"{path} is no file")
            if found.st_uid not in (0, os.geteuid()):
                raise ConfigurationError(f"{path} belongs to user {found.st_uid}, who would decide what is run here")
            if found.st_mode & _OTHERS_MAY_WRITE:
                raise ConfigurationError(
                    f"{path} can be written by others (mode {stat.S_IMODE(found.st_mode):04o}): `chmod go-w` closes it"
                )
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ConfigurationError(f"{path} has more than {MAX_BYTES // 1024} KiB")
        return tomllib.loads(content.decode())
    except OSError as failure:
        raise ConfigurationError(f"{path} cannot be read: {failure.strerror}") from failure
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as failure:
        raise ConfigurationError(f"{path} is no TOML: {failure}") from failure


def _flat(table: Mapping[str, object], above: tuple[str, ...]) -> Iterator[tuple[str, str, object]]:
    """Each value, with its key as it is written and the name of the setting."""
    for key, value in table.items():
        names = (*above, key)
        if isinstance(value, dict):
            yield from _flat(value, names)
        elif isinstance(value, list) and all(isinstance(part, str) for part in value):
            yield ".".join(names), "_".join(names), ",".join(value)
        else:
            yield ".".join(names), "_".join(names), value
