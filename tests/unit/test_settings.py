"""Settings: read from the environment and `.env`, and refused in a sentence when wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import BadSettings, Settings, load

MEMSTORE = Path(sys.executable).with_name("memstore")


@pytest.fixture(autouse=True)
def _away_from_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields:
        monkeypatch.delenv(f"MEMSTORE_{field.upper()}", raising=False)


def test_without_any_setting_everything_is_below_data(tmp_path: Path) -> None:
    settings = load()
    assert settings.data_dir == tmp_path / "data"
    assert settings.database_url == f"sqlite:///{tmp_path / 'data' / 'memstore.db'}"
    assert settings.blob_url == f"file://{tmp_path / 'data' / 'blobs'}"
    assert settings.is_embedded


def test_the_data_directory_moves_database_and_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSTORE_DATA_DIR", "/elsewhere")
    settings = load()
    assert settings.database_url == "sqlite:////elsewhere/memstore.db"
    assert settings.blob_url == "file:///elsewhere/blobs"


def test_a_dot_env_file_works_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("MEMSTORE_MAX_STORES=3\nMEMSTORE_KEEP_RECENT_VERSIONS=4\nOTHER=x\n")
    monkeypatch.setenv("MEMSTORE_MAX_STORES", "5")
    settings = load()
    assert (settings.max_stores, settings.keep_recent_versions) == (5, 4)


def test_an_empty_bootstrap_key_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSTORE_BOOTSTRAP_API_KEY", "")
    assert load().bootstrap_api_key is None


def test_the_bootstrap_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSTORE_BOOTSTRAP_API_KEY", "hush")
    assert "hush" not in repr(load())


WRONG = {
    "MEMSTORE_DATABASE_URL": ("mysql://u:hush@h/x", "sqlite:///path/to/file or postgresql://"),
    "MEMSTORE_BLOB_URL": ("/var/blobs", "file:///var/lib/memstore/blobs"),
    "MEMSTORE_MAX_MEMORIES_PER_STORE": ("0", "greater than or equal to 1"),
    "MEMSTORE_MAX_STORE_BYTES": ("many", "integer"),
    "MEMSTORE_MAX_STORES": ("-1", "greater than or equal to 0"),
    "MEMSTORE_VERSION_RETENTION_DAYS": ("-1", "greater than or equal to 0"),
    "MEMSTORE_KEEP_RECENT_VERSIONS": ("0", "greater than or equal to 1"),
    "MEMSTORE_STRICT_BETA": ("perhaps", "boolean"),
    "MEMSTORE_MAX_BODY_BYTES": ("10", "greater than or equal to 65536"),
    "MEMSTORE_CACHE_BYTES": ("-1", "greater than or equal to 0"),
    "MEMSTORE_SWEEP_INTERVAL_SECONDS": ("0", "greater than 0"),
    "MEMSTORE_ORPHAN_GRACE_SECONDS": ("-1", "greater than or equal to 0"),
    "MEMSTORE_DATABASE_WAIT_SECONDS": ("-1", "greater than or equal to 0"),
    "MEMSTORE_DATABASE_POOL_SIZE": ("0", "greater than or equal to 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_names_the_setting_and_what_would_be_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value, right = WRONG[name]
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings) as refused:
        load()
    assert str(refused.value).startswith(f"{name}: ")
    assert right in str(refused.value)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("file://relative/path", "absolute path"),
        ("s3://", "bucket"),
        ("carrier-pigeon://coop", "fsspec does not know"),
    ],
)
def test_a_blob_url_that_can_not_work_is_refused(url: str, right: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSTORE_BLOB_URL", url)
    with pytest.raises(BadSettings, match=right):
        load()


def test_a_database_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSTORE_DATABASE_URL", "sqlite://")
    with pytest.raises(BadSettings, match="must name a file"):
        load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MEMSTORE_MAX_STORES", "-1"),
        ("MEMSTORE_DATA_DIR", "/proc/nowhere"),
        ("MEMSTORE_BLOB_URL", "file:///proc/nowhere"),
        ("MEMSTORE_DATABASE_URL", "postgresql://127.0.0.1:1/nothing"),
    ],
)
def test_a_start_that_can_not_work_ends_with_a_sentence(name: str, value: str, tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "MEMSTORE_DATABASE_WAIT_SECONDS": "0",
        "MEMSTORE_DATA_DIR": str(tmp_path),
        name: value,
    }
    done = subprocess.run(
        [MEMSTORE, "serve", "--port", "0"], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("memstore: ")
    assert "Traceback" not in done.stderr
