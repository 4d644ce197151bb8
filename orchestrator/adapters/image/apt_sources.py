"""Reads the host's apt sources, so that the base image comes from where the host's own packages come from.

Both formats of apt are understood. Third-party sources are left out: what a session runs on should be the
distribution and nothing else.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_OPTION = re.compile(r"\[(?P<options>[^\]]*)\]")
# Files that the distributions themselves write; entries elsewhere must name the distribution's own keyring.
_OWN_FILES = {"sources.list", "debian.sources", "ubuntu.sources"}
_OWN_KEYRINGS = ("debian-archive", "debian-keyring", "ubuntu-archive", "ubuntu-keyring")
_KEPT_OPTIONS = {"Signed-By", "Trusted"}


@dataclass(frozen=True, slots=True)
class AptSource:
    """One source of binary packages; `options` are its kept deb822 fields, such as Signed-By."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    own_file: bool

    def stanza(self) -> str:
        """This source in apt's deb822 format."""
        lines = [
            "Types: deb",
            f"URIs: {' '.join(self.uris)}",
            f"Suites: {' '.join(self.suites)}",
            f"Components: {' '.join(self.components)}",
        ]
        return "\n".join([*lines, *(f"{name}: {value}" for name, value in self.options)]) + "\n"


def host_sources(apt: Path = Path("/etc/apt"), *, codename: str) -> list[AptSource]:
    """The distribution's own sources of this host, for this release."""
    found: list[AptSource] = []
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if path.suffix not in {".list", ".sources"} or not path.is_file():
            continue
        read = parse_deb822 if path.suffix == ".sources" else parse_one_line
        found += read(path.read_text("utf-8"), own_file=path.name in _OWN_FILES)
    return list(own_sources(found, codename))


def own_sources(sources: Iterable[AptSource], codename: str) -> Iterator[AptSource]:
    """Leave out third parties, other releases, and what a base image does not need (backports)."""
    wanted = {codename, f"{codename}-updates", f"{codename}-security", f"{codename}/updates"}
    for source in sources:
        suites = tuple(suite for suite in source.suites if suite in wanted)
        keyring = Path(dict(source.options).get("Signed-By", "").split("\n", 1)[0]).name
        own = keyring.startswith(_OWN_KEYRINGS) if keyring else source.own_file
        if suites and own and "main" in source.components:
            yield AptSource(source.uris, suites, source.components, source.options, source.own_file)


def parse_deb822(text: str, *, own_file: bool) -> list[AptSource]:
    """Parse a `.sources` file."""
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza)
        types = fields.get("types", "").split()
        if "deb" not in types or fields.get("enabled", "yes").lower() in {"no", "false", "0", "off", "without"}:
            continue
        options = tuple((name, fields[name.lower()]) for name in sorted(_KEPT_OPTIONS) if fields.get(name.lower()))
        uris, suites, components = (tuple(fields.get(name, "").split()) for name in ("uris", "suites", "components"))
        found.append(AptSource(uris, suites, components, options, own_file))
    return found


def parse_one_line(text: str, *, own_file: bool) -> list[AptSource]:
    """Parse a `.list` file: `deb [option=value …] uri suite component …`."""
    found = []
    for raw in text.splitlines():
        line = raw.split("#", 1)[0].strip()
        match = _OPTION.search(line)
        words = _OPTION.sub(" ", line, count=1).split()
        if len(words) < 3 or words[0] != "deb":  # noqa: PLR2004 - type, uri, suite
            continue
        pairs = dict(word.split("=", 1) for word in (match["options"].split() if match else []) if "=" in word)
        given = {name.lower(): value for name, value in pairs.items()}
        options = tuple((name, given[name.lower()]) for name in sorted(_KEPT_OPTIONS) if name.lower() in given)
        found.append(AptSource((words[1],), (words[2],), tuple(words[3:]), options, own_file))
    return found


def _fields(stanza: str) -> Mapping[str, str]:
    """The fields of a stanza by lower-case name; a continued field (an embedded key) keeps its lines."""
    fields: dict[str, str] = {}
    last = ""
    for line in stanza.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0].isspace():
            fields[last] = f"{fields.get(last, '')}\n{line}"
            continue
        last, _, value = line.partition(":")
        last = last.strip().lower()
        fields[last] = value.strip()
    return fields
