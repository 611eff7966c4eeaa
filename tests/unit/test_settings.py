from __future__ import annotations

from pathlib import Path

import pytest

from callboard import settings
from callboard.errors import InvalidSetting

DOCS = Path(__file__).parents[2] / "docs"


def fault(**env: str) -> str:
    with pytest.raises(InvalidSetting) as caught:
        settings.load({f"CALLBOARD_{name}": value for name, value in env.items()})
    return str(caught.value)


def test_an_empty_environment_gives_the_defaults() -> None:
    loaded = settings.load({})
    assert loaded.redis_url is None
    assert loaded.namespace == "cb"
    assert (loaded.api_host, loaded.api_port) == ("127.0.0.1", 8000)
    assert loaded.apps is None
    assert loaded.worker_lease_seconds == 20


def test_values_are_read_and_lists_split() -> None:
    loaded = settings.load(
        {
            "CALLBOARD_REDIS_URL": "rediss://u:p@h:6379/1",
            "CALLBOARD_WORKER_QUEUES": "parsing, ai,,parsing",
            "CALLBOARD_APPS": "none",
            "CALLBOARD_LOG_LEVEL": "DEBUG",
            "CALLBOARD_WORKER_SLOTS": "3",
            "CALLBOARD_DURABILITY": "",
            "HOME": "/nowhere",
        }
    )
    assert loaded.redis_url == "rediss://u:p@h:6379/1"
    assert loaded.worker_queues == ("parsing", "ai")
    assert loaded.apps == ()
    assert loaded.log_level == "debug"
    assert loaded.worker_slots == 3
    assert loaded.durability == "fast"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError):
        settings.load({}).namespace = "other"  # type: ignore[misc]


def test_a_bad_value_says_which_what_it_got_and_what_it_expected() -> None:
    assert fault(API_PORT="eighty") == (
        "CALLBOARD_API_PORT: expected a whole number, 0 to 65,535; got 'eighty'."
    )
    assert (
        fault(DURABILITY="quick") == "CALLBOARD_DURABILITY: expected fast, synced or replicated; got 'quick'."
    )
    assert fault(URL="localhost:8000").startswith("CALLBOARD_URL: expected an http:// or https:// URL; got ")


@pytest.mark.parametrize(
    ("name", "value"),
    [("API_PORT", "70000"), ("WORKER_SLOTS", "0"), ("WORKER_DRAIN_SECONDS", "inf"), ("EVENTS_HOURS", "0"),
     ("NAMESPACE", "a b"), ("NAMESPACE", "{x}"), ("LOG_FORMAT", "xml"), ("RETENTION_COMPLETED_DAYS", "nan")],
)  # fmt: skip
def test_values_out_of_range_are_refused(name: str, value: str) -> None:
    assert fault(**{name: value}).startswith(f"CALLBOARD_{name}: expected ")


def test_an_unknown_setting_names_the_nearest() -> None:
    assert (
        fault(REDIS_ULR="redis://x")
        == "CALLBOARD_REDIS_ULR is not a setting. Did you mean 'CALLBOARD_REDIS_URL'?"
    )
    assert fault(PORT="8000").startswith("CALLBOARD_PORT is not a setting.")
    assert fault(ZEBRA_CROSSING="1") == "CALLBOARD_ZEBRA_CROSSING is not a setting."


def test_all_faults_are_told_at_once() -> None:
    lines = fault(API_PORT="x", NAMESPAC="y", LOG_FORMAT="z").splitlines()
    assert len(lines) == 3


def test_what_kubernetes_injects_for_a_service_is_ignored() -> None:
    loaded = settings.load(
        {
            "CALLBOARD_SERVICE_HOST": "10.0.0.1",
            "CALLBOARD_SERVICE_PORT": "8000",
            "CALLBOARD_SERVICE_PORT_HTTP": "8000",
            "CALLBOARD_PORT": "tcp://10.0.0.1:8000",
            "CALLBOARD_PORT_8000_TCP": "tcp://10.0.0.1:8000",
            "CALLBOARD_PORT_8000_TCP_ADDR": "10.0.0.1",
            "CALLBOARD_PORT_8000_TCP_PROTO": "tcp",
            "CALLBOARD_API_SERVICE_HOST": "10.0.0.2",
            # A Service called callboard-api sets the very name of a setting.
            "CALLBOARD_API_PORT": "tcp://10.0.0.2:8000",
        }
    )
    assert loaded == settings.load({})


def test_a_secret_can_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("cb_0123456789abcdef\n")
    loaded = settings.load({"CALLBOARD_ADMIN_KEY_FILE": str(file)})
    assert loaded.admin_key is not None
    assert loaded.admin_key.get_secret_value() == "cb_0123456789abcdef"
    file.write_text("redis://:pw@h/0")
    assert settings.load({"CALLBOARD_REDIS_URL_FILE": str(file)}).redis_url == "redis://:pw@h/0"


def test_a_secret_file_that_is_missing_empty_or_one_too_many_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert fault(KEY_FILE="/no/such/file").startswith(
        "CALLBOARD_KEY_FILE: expected a file that holds the value"
    )
    assert "it is empty" in fault(KEY_FILE=str(empty))
    assert (
        fault(KEY="a", KEY_FILE=str(empty)) == "CALLBOARD_KEY_FILE and CALLBOARD_KEY are both set; set one."
    )
    assert "not a setting" in fault(NAMESPACE_FILE="x")


def test_secrets_are_never_shown() -> None:
    loaded = settings.load(
        {
            "CALLBOARD_REDIS_URL": "redis://user:hunter2@h:6379/0",
            "CALLBOARD_ADMIN_KEY": "hunter2hunter2hunter2",
            "CALLBOARD_KEY": "hunter2hunter2",
        }
    )
    assert "hunter2" not in f"{loaded!r} {loaded}"
    assert "redis://user:***@h:6379/0" in repr(loaded)
    assert "hunter2" not in fault(ADMIN_KEY="hunter2")
    assert "hunter2" not in fault(REDIS_URL="http://:hunter2@h")
    assert settings.without_password("redis://h/0?password=hunter2&db=1") == "redis://h/0?password=***&db=1"


def test_the_memory_marks_must_be_in_order() -> None:
    assert fault(MEMORY_SUBMIT_PERCENT="90", MEMORY_FOLLOWUP_PERCENT="85").startswith(
        "CALLBOARD_MEMORY_SUBMIT_PERCENT (90)"
    )


@pytest.mark.parametrize(
    "url",
    ["redis://h", "rediss://h:6380/0", "unix:///run/redis.sock", "redis+cluster://a,b:7000", "rediss+cluster://a",
     "redis+sentinel://a,b/main/0"],
)  # fmt: skip
def test_every_documented_form_of_redis_url_is_taken(url: str) -> None:
    assert settings.load({"CALLBOARD_REDIS_URL": url}).redis_url == url


def test_a_child_gets_the_environment_with_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_NAMESPACE", "mine")
    monkeypatch.setenv("CALLBOARD_KEY", "secret")
    child = settings.child_environment({"CALLBOARD_KEY": None, "CALLBOARD_API_PORT": "0"})
    assert child["CALLBOARD_NAMESPACE"] == "mine"
    assert child["CALLBOARD_API_PORT"] == "0"
    assert "CALLBOARD_KEY" not in child


def test_every_setting_is_described() -> None:
    rows = settings.describe()
    assert len(rows) == len(settings.Settings.model_fields)
    for row in rows:
        assert row.help.endswith("."), row.name
        assert row.type, row.name
    assert {row.name for row in rows if row.secret} == {
        "CALLBOARD_REDIS_URL",
        "CALLBOARD_ADMIN_KEY",
        "CALLBOARD_KEY",
    }


def test_the_settings_page_is_current() -> None:
    assert (DOCS / "settings.md").read_text() == settings.page(), (
        "python -m callboard.settings > docs/settings.md"
    )
