"""The configuration file: what it says counts below the environment, and what is wrong in it is told in one go."""

import os
import stat
from pathlib import Path

import pytest

from orchestrator import places
from orchestrator.configuration import ConfigurationError, read_configuration
from orchestrator.settings import PREFIX, Settings, SettingsError


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    names = (*Settings.model_fields, "config")
    for name in (*(PREFIX + name.upper() for name in names), "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(places, "SYSTEM_CONFIG", str(tmp_path / "etc.toml"))
    path = tmp_path / ".config" / "session-orchestrator" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


def test_keys_stand_alone_or_in_tables(config: Path) -> None:
    config.write_text('default_time_limit = 5\nhttp_names = ["a.example", "b.example"]\n[sandbox]\nmemory = "2GiB"\n')
    settings = Settings.load()
    assert (settings.default_time_limit, int(settings.sandbox_memory)) == (5.0, 2 * 1024**3)
    assert settings.names == ("a.example", "b.example")


def test_the_environment_is_above_the_file_and_what_is_given_above_both(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("queue_limit = 2\nmax_sandboxes = 3\nsandbox_pids = 64\n")
    monkeypatch.setenv("ORCHESTRATOR_MAX_SANDBOXES", "4")
    monkeypatch.setenv("ORCHESTRATOR_SANDBOX_PIDS", "65")
    settings, sources = Settings.loaded(sandbox_pids=66)
    assert (settings.queue_limit, settings.max_sandboxes, settings.sandbox_pids) == (2, 4, 66)
    assert sources.origin("queue_limit") == ("file", str(config))
    assert sources.origin("max_sandboxes") == ("variable", "ORCHESTRATOR_MAX_SANDBOXES")
    assert sources.origin("sandbox_pids") == ("given", None)
    assert sources.origin("image") == ("default", None)


def test_a_named_file_counts_in_place_of_the_usual_ones(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("queue_limit = 2\n")
    other = config.with_name("other.toml")
    other.write_text("max_sandboxes = 3\n")
    monkeypatch.setenv("ORCHESTRATOR_CONFIG", str(other))
    assert (Settings.load().queue_limit, Settings.load().max_sandboxes) == (16, 3)
    monkeypatch.setenv("ORCHESTRATOR_CONFIG", str(other.with_name("absent.toml")))
    with pytest.raises(SettingsError, match=r"absent\.toml cannot be read: No such file"):
        Settings.load()


def test_the_machines_file_counts_where_the_user_has_none(config: Path, tmp_path: Path) -> None:
    (tmp_path / "etc.toml").write_text("queue_limit = 2\n")
    assert Settings.load().queue_limit == 2
    config.write_text("queue_limit = 3\n")
    assert Settings.load().queue_limit == 3


def test_all_faults_are_told_at_once_each_with_its_place(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('queue_limit = 0\nchannnel = "unix"\nsandbox_pids = true\ninactive_after = 5\nhttp_host = "::"\n')
    monkeypatch.setenv("ORCHESTRATOR_CHANNEL", "pigeon")
    monkeypatch.setenv("ORCHESTRATOR_QEUE_LIMIT", "1")
    monkeypatch.setenv("ORCHESTRATOR_JWT_ISSUER", "https://issuer.example")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    told = "\n".join(caught.value.faults)
    for sentence in (
        f"queue_limit in {config}: input should be greater than or equal to 1",
        f"channnel in {config}: there is no such setting (is channel meant?)",
        f"sandbox_pids in {config}: True is no value of any setting",
        "ORCHESTRATOR_CHANNEL: input should be ",
        "ORCHESTRATOR_QEUE_LIMIT: there is no such setting (is ORCHESTRATOR_QUEUE_LIMIT meant?)",
        (
            "ORCHESTRATOR_INACTIVE_AFTER (5 s) must be more than ORCHESTRATOR_HIBERNATE_AFTER (600 s) "
            f"(inactive_after in {config})"
        ),
        "set ORCHESTRATOR_HTTP_CERTIFICATE, or ",
        f"by which clients reach it (http_host in {config})",
        "ORCHESTRATOR_JWT_KEYS must be set together",
    ):
        assert sentence in told
    assert len(caught.value.faults) == 9


def test_directories_are_found_alike_by_relays_and_by_the_settings(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config.write_text(f'[data]\ndir = "~/sessions"\n[runtime]\ndir = "{tmp_path}/run"\n')
    settings = Settings.load()
    assert (str(settings.data_dir), str(settings.runtime_dir)) == (f"{tmp_path}/sessions", f"{tmp_path}/run")
    assert (places.data_directory(), places.runtime_directory()) == (f"{tmp_path}/sessions", f"{tmp_path}/run")
    monkeypatch.setenv("ORCHESTRATOR_DATA_DIR", str(tmp_path / "else"))
    assert places.data_directory() == str(Settings.load().data_dir) == str(tmp_path / "else")


def test_a_relay_says_what_is_wrong_with_the_file(config: Path) -> None:
    config.write_text("data_dir = \n")
    with pytest.raises(places.PlaceError, match=r"config\.toml is no TOML: .*line 1"):
        places.data_directory()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('[sandbox]\nmemory = 1\n[other]\n"x" = 2\n[sandbox.memory2]\n', None),
        ("sandbox_pids = 1\n[sandbox]\npids = 2\n", "says sandbox_pids twice, the second time as sandbox.pids"),
        ("x = 1\nx = 2\n", "is no TOML: "),
        ("\x00", "is no TOML: "),
        ("x = " + "[" * 100_000, "is no TOML: "),
        ("#" * (1024 * 1024 + 1), "has more than 1024 KiB"),
    ],
)
def test_what_cannot_be_read_is_named(config: Path, content: str, fault: str | None) -> None:
    config.write_text(content)
    if fault is None:
        assert read_configuration(str(config)) == {"sandbox_memory": 1, "other_x": 2}
    else:
        with pytest.raises(ConfigurationError, match=fault):
            read_configuration(str(config))


def test_a_file_that_others_may_write_is_not_believed(config: Path) -> None:
    config.write_text("queue_limit = 2\n")
    config.chmod(0o664)
    with pytest.raises(SettingsError, match=r"can be written by others \(mode 0664\)"):
        Settings.load()
    config.chmod(0o644)
    assert Settings.load().queue_limit == 2
    if os.geteuid() == 0:
        os.chown(config, 12_345, 0)
        with pytest.raises(SettingsError, match="belongs to user 12345"):
            Settings.load()


def test_a_pipe_is_no_file_and_holds_nobody_up(config: Path) -> None:
    os.mkfifo(config, stat.S_IRUSR | stat.S_IWUSR)
    with pytest.raises(SettingsError, match=r"config\.toml is no file"):
        Settings.load()
