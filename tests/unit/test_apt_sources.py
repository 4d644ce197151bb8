"""The base image comes from the distribution's own archive as this host knows it, and from nobody else's."""

from pathlib import Path

from orchestrator.adapters.image.apt_sources import host_sources, parse_deb822, parse_one_line

DEBIAN = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
"""


def write(apt: Path, name: str, text: str) -> None:
    path = apt / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_deb822_file_of_the_distribution_is_read(tmp_path: Path) -> None:
    write(tmp_path, "sources.list.d/debian.sources", DEBIAN)
    main, security = host_sources(tmp_path, codename="bookworm")
    assert main.suites == ("bookworm", "bookworm-updates")
    assert main.options == (("Signed-By", "/usr/share/keyrings/debian-archive-keyring.gpg"),)
    assert security.uris == ("http://mirror.example/debian-security",)


def test_one_line_sources_are_read_with_their_options(tmp_path: Path) -> None:
    key = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
    write(tmp_path, "sources.list", f"deb [arch=amd64 signed-by={key}] http://m/ubuntu noble main universe # x\n")
    (only,) = host_sources(tmp_path, codename="noble")
    assert only.components == ("main", "universe")
    assert only.stanza() == (
        f"Types: deb\nURIs: http://m/ubuntu\nSuites: noble\nComponents: main universe\nSigned-By: {key}\n"
    )


def test_third_parties_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "sources.list", "deb http://m/debian bookworm main\ndeb http://docker/debian bookworm stable\n")
    write(tmp_path, "sources.list.d/ppa.list", "deb http://ppa/x/ubuntu bookworm main\n")
    write(tmp_path, "sources.list.d/node.sources", DEBIAN.replace("debian-archive-keyring", "node"))
    write(tmp_path, "sources.list.d/off.sources.disabled", DEBIAN)
    assert [source.uris for source in host_sources(tmp_path, codename="bookworm")] == [("http://m/debian",)]


def test_another_file_counts_when_the_distribution_signs_it(tmp_path: Path) -> None:
    write(tmp_path, "sources.list.d/company.sources", DEBIAN.split("\n\n", maxsplit=1)[0])
    assert len(host_sources(tmp_path, codename="bookworm")) == 1


def test_other_releases_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "sources.list", "deb http://m/debian trixie main\n")
    assert host_sources(tmp_path, codename="bookworm") == []


def test_disabled_stanzas_and_source_packages_are_left_out() -> None:
    assert parse_deb822("Types: deb\nEnabled: no\nURIs: u\nSuites: s\nComponents: main\n", own_file=True) == []
    assert parse_deb822("Types: deb-src\nURIs: u\nSuites: s\nComponents: main\n", own_file=True) == []
    assert parse_one_line("deb-src http://m s main\n# deb http://m s main\ndeb broken\n", own_file=True) == []


def test_an_embedded_key_keeps_its_lines() -> None:
    text = "Types: deb\nURIs: u\nSuites: s\nComponents: main\nSigned-By:\n -----BEGIN-----\n .\n abc\n"
    (only,) = parse_deb822(text, own_file=True)
    assert only.stanza().endswith("Signed-By: \n -----BEGIN-----\n .\n abc\n")
