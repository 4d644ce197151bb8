"""Settings: one place reads the environment, and whoever sets one wrongly is told which."""

from pathlib import Path

import pytest

from orchestrator import places
from orchestrator.domain.ageing import AgeingPolicy
from orchestrator.domain.hardening import SandboxProfile
from orchestrator.policies import limits_of, pieces_policy_of
from orchestrator.settings import PREFIX, Settings, SettingsError


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*(PREFIX + field.upper() for field in Settings.model_fields), "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_defaults_are_those_that_are_documented() -> None:
    settings = Settings.load()
    assert (settings.default_time_limit, settings.interrupt_grace, settings.owner_linger) == (60, 2, 60)
    assert (settings.queue_limit, settings.max_sandboxes, settings.max_code) == (16, 16, 1024 * 1024)
    assert (settings.output_head, settings.output_tail) == (48 * 1024, 16 * 1024)
    assert settings.profile == SandboxProfile()
    assert (settings.channel, settings.image, settings.docker_host) == ("auto", None, None)


def test_every_setting_says_what_it_is_and_what_its_default_is() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert "Default" in field.description, name


def test_the_environment_is_read_with_sizes_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_SANDBOX_MEMORY", "2GiB")
    monkeypatch.setenv("ORCHESTRATOR_OWNER_LINGER", "0.5")
    monkeypatch.setenv("ORCHESTRATOR_IMAGE", "")
    settings = Settings.load()
    assert settings.profile.memory == 2 * 1024**3
    assert settings.owner_linger == 0.5
    assert settings.image is None


def test_what_is_given_is_above_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATA_DIR", "/elsewhere")
    assert Settings.load(data_dir=tmp_path).data_dir == tmp_path
    assert Settings.load(data_dir=None).data_dir == Path("/elsewhere")


def test_all_faults_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_QUEUE_LIMIT", "0")
    monkeypatch.setenv("ORCHESTRATOR_CHANNEL", "carrier pigeon")
    monkeypatch.setenv("ORCHESTRATOR_DEFAULT_TIME_LIMIT", "nan")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    for name in ("ORCHESTRATOR_QUEUE_LIMIT", "ORCHESTRATOR_CHANNEL", "ORCHESTRATOR_DEFAULT_TIME_LIMIT"):
        assert name in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"INACTIVE_AFTER": "600"},
            "ORCHESTRATOR_INACTIVE_AFTER (600 s) must be more than ORCHESTRATOR_HIBERNATE_AFTER (600 s)",
        ),
        (
            {"INACTIVE_AFTER": "3000000"},
            "ORCHESTRATOR_EXPIRE_AFTER (2592000 s) must be more than ORCHESTRATOR_INACTIVE_AFTER (3000000 s)",
        ),
        (
            {"INACTIVE_AFTER": "0", "EXPIRE_AFTER": "599"},
            "ORCHESTRATOR_EXPIRE_AFTER (599 s) must be more than ORCHESTRATOR_HIBERNATE_AFTER (600 s)",
        ),
        (
            {"SANDBOX_MEMORY": "256MiB"},
            (
                "ORCHESTRATOR_SANDBOX_WORKSPACE (256 MiB) and 64 MiB for /tmp and /dev/shm must be less than "
                "ORCHESTRATOR_SANDBOX_MEMORY (256 MiB), since files live there"
            ),
        ),
        (
            {"SANDBOX_MEMORY": "80MiB", "SANDBOX_WORKSPACE": "60MiB"},
            (
                "ORCHESTRATOR_SANDBOX_WORKSPACE (60 MiB) and 20 MiB for /tmp and /dev/shm must be less than "
                "ORCHESTRATOR_SANDBOX_MEMORY (80 MiB), since files live there"
            ),
        ),
        (
            {"SANDBOX_THREADS": "20", "SANDBOX_PIDS": "32"},
            (
                "ORCHESTRATOR_SANDBOX_THREADS (20) must be at most half of ORCHESTRATOR_SANDBOX_PIDS (32), "
                "which counts threads as well"
            ),
        ),
        (
            {"ALLOW_UNENFORCED": "swap, procesor"},
            "ORCHESTRATOR_ALLOW_UNENFORCED: there is no protection called procesor (is processor meant?)",
        ),
    ],
)
def test_settings_that_cannot_be_meant_together_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], sentence: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"ORCHESTRATOR_{name}", value)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert caught.value.message == f"Wrong settings: {sentence}."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SANDBOX_MEMORY", "63MiB"),
        ("SANDBOX_CPUS", "0.01"),
        ("SANDBOX_CPUS", "nan"),
        ("SANDBOX_PIDS", "8"),
        ("SANDBOX_WORKSPACE", "1KiB"),
        ("SANDBOX_THREADS", "0"),
        ("SANDBOX_RUNTIME", "../runc"),
        ("SANDBOX_USER_NAMESPACE", "maybe"),
    ],
)
def test_a_limit_with_which_no_sandbox_could_run_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"ORCHESTRATOR_{name}", value)
    with pytest.raises(SettingsError, match=f"Wrong settings: ORCHESTRATOR_{name}: "):
        Settings.load()


def test_protections_that_may_be_missing_are_named_with_commas_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().allowed == frozenset()
    monkeypatch.setenv("ORCHESTRATOR_ALLOW_UNENFORCED", " swap,,user-namespace, ")
    assert Settings.load().allowed == {"swap", "user-namespace"}
    monkeypatch.setenv("ORCHESTRATOR_ALLOW_UNENFORCED", "everything")
    with pytest.raises(SettingsError, match=r"no protection called everything \(they are .*no-new-privileges, "):
        Settings.load()


def test_an_age_of_zero_is_never_reached() -> None:
    assert limits_of(Settings.load()).ageing == AgeingPolicy()
    never = Settings.load(inactive_after=0, expire_after=0, delete_after=0)
    assert limits_of(never).ageing == AgeingPolicy(None, None, None)


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SettingsError, match="ORCHESTRATOR_LINGR"):
        Settings.load(lingr=1)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("ORCHESTRATOR_SANDBOX_MEMROY", "ORCHESTRATOR_SANDBOX_MEMORY"),
        ("ORCHESTRATOR_MEMORY", "ORCHESTRATOR_SANDBOX_MEMORY"),
        ("orchestrator_max_sandbox", "ORCHESTRATOR_MAX_SANDBOXES"),
        ("ORCHESTRATOR_LINGER", "ORCHESTRATOR_OWNER_LINGER"),
        ("ORCHESTRATOR_DOCKERHOST", "ORCHESTRATOR_DOCKER_HOST"),
    ],
)
def test_a_variable_that_is_no_setting_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert f"{variable}: there is no such setting (is {meant} meant?)" in caught.value.message


def test_a_variable_like_none_of_ours_is_named_beside_all_other_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_QUEUE_LIMIT", "0")
    monkeypatch.setenv("ORCHESTRATOR_XYZ", "secret")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert "ORCHESTRATOR_QUEUE_LIMIT: " in caught.value.message
    assert caught.value.message.endswith("; ORCHESTRATOR_XYZ: there is no such setting.")
    assert "secret" not in str(caught.value)


def test_an_empty_variable_and_one_without_our_prefix_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_XYZ", "")
    monkeypatch.setenv("ORCHESTRATORS", "3")
    monkeypatch.setenv("orchestrator_queue_limit", "3")
    assert Settings.load().queue_limit == 3


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"XDG_DATA_HOME": "/data"},
        {"XDG_DATA_HOME": "relative/is/ignored"},
        {"ORCHESTRATOR_DATA_DIR": "~/mine", "ORCHESTRATOR_RUNTIME_DIR": "/run/../run/mine"},
        {"ORCHESTRATOR_DATA_DIR": "", "ORCHESTRATOR_RUNTIME_DIR": ""},
        {"ORCHESTRATOR_DATA_DIR": "relative"},
    ],
)
def test_relay_and_owner_read_the_same_places(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert str(settings.data_dir) == places.data_directory()
    assert str(settings.runtime_dir) == places.runtime_directory()
    assert str(settings.owner_socket) == places.socket_path(places.runtime_directory(), places.data_directory())


def test_a_sessions_file_is_bounded_by_the_limits_of_what_it_holds() -> None:
    default = Settings.load()
    assert default.most_of_a_save > 2 * (default.session_limit + default.sandbox_workspace)
    assert default.most_of_a_file == 7 * default.most_of_a_save
    assert pieces_policy_of(default).limit_bytes == default.most_of_a_file
    assert limits_of(default).saving.most_bytes == default.most_of_a_save

    large = Settings.load(session_limit=10**10, sandbox_memory=2**31, sandbox_workspace=10**9, snapshot_history=2)
    assert large.most_of_a_save > 2 * 10**10 + 3 * 10**9
    assert large.most_of_a_file == 4 * large.most_of_a_save
    assert pieces_policy_of(Settings.load(session_file_limit=10**9)).limit_bytes == 10**9
