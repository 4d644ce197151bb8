"""Where the value of each setting comes from: given by the caller, a variable, the configuration file, or a default."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from orchestrator import places
from orchestrator.configuration import ConfigurationError, read_configuration
from orchestrator.domain import together
from orchestrator.domain.errors import InvalidRequestError

PREFIX = "ORCHESTRATOR_"
Kind = Literal["given", "variable", "file", "default"]  # in the order in which they count
_CONFIG = "config"  # the one variable that is no setting


class SettingsError(InvalidRequestError):
    """One or more settings are wrong; the message names each, and `faults` has them one by one."""

    def __init__(self, *faults: str, hint: str = "Correct or unset what is named.") -> None:
        super().__init__(f"Wrong settings: {'; '.join(faults)}.", hint=hint)
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Sources:
    """What is said of settings, and by whom."""

    fields: Collection[str]
    path: str | None  # of the configuration file
    given: Mapping[str, object]
    variables: Mapping[str, str]  # names of settings to names of variables
    file: Mapping[str, object]
    faults: tuple[str, ...]  # each a sentence without a full stop

    @classmethod
    def look(cls, fields: Collection[str], overrides: Mapping[str, object], environ: Mapping[str, str]) -> "Sources":
        """Read the environment and the file. An override that is None, and an empty variable, say nothing."""
        given = {name: value for name, value in overrides.items() if value is not None}
        upper = {variable.upper(): variable for variable, value in environ.items() if value}
        variables = {name: upper[variable_of(name)] for name in fields if variable_of(name) in upper}
        faults = list(together.unknown_variables(environ, {*fields, _CONFIG}, PREFIX))
        path, file = places.config_file(), dict[str, object]()
        if path is not None:
            try:
                file = dict(read_configuration(path))
            except ConfigurationError as failure:
                faults.append(str(failure))
            faults += together.unknown_keys(file, fields, path)
            faults += [
                f"{name} in {path}: {value} is no value of any setting" for name, value in file.items() if _bool(value)
            ]
        return cls(fields, path, given, variables, file, tuple(faults))

    @property
    def initial(self) -> dict[str, object]:
        """What stands above the environment, or where it says nothing."""
        told = {name: value for name, value in self.file.items() if name in self.fields and not _bool(value)}
        return {**{name: value for name, value in told.items() if name not in self.variables}, **self.given}

    def origin(self, name: str) -> tuple[Kind, str | None]:
        """Who has said the value of a setting: the kind, and the variable or the file."""
        if name in self.given:
            return "given", None
        if name in self.variables:
            return "variable", self.variables[name]
        return ("file", self.path) if name in self.file else ("default", None)

    def named(self, name: str) -> str:
        """A setting as whoever has set it knows it."""
        kind, where = self.origin(name)
        return f"{name} in {where}" if kind == "file" else variable_of(name)

    def placed(self, fault: str) -> str:
        """A fault of several settings, with the file of those that stand in one."""
        found = {name: None for name in _names(fault) if self.origin(name)[0] == "file"}
        return f"{fault} ({', '.join(found)} in {self.path})" if found else fault


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def masked(value: object) -> object:
    """A setting's value without a password that an address may hold."""
    if isinstance(value, str) and "://" in value and urlsplit(value).password is not None:
        parts = urlsplit(value)
        return parts._replace(netloc=f"{parts.username}:***@{parts.netloc.rpartition('@')[2]}").geturl()
    return value


def _names(fault: str) -> Iterator[str]:
    for variable in re.findall(rf"{PREFIX}([A-Z_]+)", fault):
        yield variable.lower()


def _bool(value: object) -> bool:
    """No setting is one, and Python takes them for numbers."""
    return isinstance(value, bool)
