"""Settings: the file beside the flow or in a folder above it, the user's file, and the environment, which wins."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from k8sflow import config, roots, started
from k8sflow.config import Settings
from k8sflow.errors import ConfigurationError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder."""
    home = tmp_path / "home"
    home.mkdir()
    return home


def _load(folder: Path, home: Path, **environment: str) -> Settings:
    return config.load(folder, {"HOME": str(home), **environment})


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_defaults(tmp_path: Path, home: Path) -> None:
    """Empty variables are ignored."""
    assert _load(tmp_path, home) == Settings()
    assert _load(tmp_path, home, K8SFLOW_BUCKET="") == Settings()


def test_the_nearest_file_is_used(tmp_path: Path, home: Path) -> None:
    """Beside the flow, then in the folders above it, then the user's; files are not merged."""
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)
    _write(home / ".config/k8sflow/config.toml", 'bucket = "of-user"\nregion = "eu-west-1"')
    assert _load(folder, home).bucket == "of-user"
    _write(tmp_path / "k8sflow.toml", 'bucket = "around"')
    assert _load(folder, home) == Settings(bucket="around")
    _write(folder / "k8sflow.toml", 'bucket = "beside"')
    assert _load(folder, home).bucket == "beside"
    explicit = _write(tmp_path / "other.toml", 'bucket = "explicit"')
    assert _load(folder, home, K8SFLOW_CONFIG=str(explicit)).bucket == "explicit"


def test_xdg_config_home_is_used(tmp_path: Path, home: Path) -> None:
    """If it is set."""
    _write(tmp_path / "xdg/k8sflow/config.toml", 'bucket = "xdg"')
    assert _load(home, home, XDG_CONFIG_HOME=str(tmp_path / "xdg")).bucket == "xdg"


def test_a_missing_home_is_not_an_error(tmp_path: Path) -> None:
    """A pod's user may have none."""
    assert config.load(tmp_path, {}) == Settings()


@pytest.mark.parametrize("key", [f.name for f in fields(Settings) if f.name not in {"credentials", "root"}])
def test_the_environment_wins(tmp_path: Path, home: Path, key: str) -> None:
    """Key by key, under the documented name."""
    valid = {
        "storage_patience_seconds": ("60", "1.5"),
        "log_limit_mb": ("10", "0.5"),
        "package_file_limit_mb": ("10", "0.5"),
        "package_limit_mb": ("10", "0.5"),
        "kubernetes_followed_tasks": ("5", "0"),
        "infrastructure_retries": ("1", "0"),
        "infrastructure_pauses_seconds": ("1", "1.5,60"),
        "kubernetes_indexed_from": ("5", "9"),
        "kubernetes_job_ttl_seconds": ("60", "0"),
        "compression": ("zstd", "none"),
        "default_environment": ("local", "pypi"),
        "log": ("debug", "info"),
        "s3_ca_bundle": ("/etc/ca.pem", "/ünï/ca.pem"),
        "s3_proxy": ("http://a:1", "https://b"),
        "in_cluster_s3_proxy": ("http://a:1", "https://b"),
        "s3_anonymous": ("true", "False"),
        "s3_requester_pays": ("true", "false"),
        "s3_write_headers": ("x-amz-acl=private", "x-amz-storage-class=STANDARD_IA"),
    }
    file, variable = valid.get(key, ("file", "ünï"))
    _write(tmp_path / "k8sflow.toml", f'{key} = "{file}"\nregion = "b"' if key != "region" else 'region = "file"')
    assert getattr(_load(tmp_path, home), key) == file
    assert getattr(_load(tmp_path, home, **{f"K8SFLOW_{key.upper()}": variable}), key) == variable


def test_a_relative_file_of_certificates_starts_where_the_root_does(tmp_path: Path, home: Path) -> None:
    """A task may have another working folder."""
    _write(tmp_path / "k8sflow.toml", 's3_ca_bundle = "ca.pem"')
    assert _load(tmp_path, home).s3_ca_bundle == str(tmp_path / "ca.pem")
    found = config.load(tmp_path, {"K8SFLOW_S3_CA_BUNDLE": "mine.pem"}, working=tmp_path / "a")
    assert found.s3_ca_bundle == str(tmp_path / "a/mine.pem")


@pytest.mark.parametrize("text", ["three", "-1", "1.5", ""])
def test_a_number_of_reruns_is_whole(text: str) -> None:
    """Anything else is refused as soon as it is read."""
    with pytest.raises(ConfigurationError, match="infrastructure_retries"):
        Settings(infrastructure_retries=text)


@pytest.mark.parametrize("text", ["2 minutes", "2,,3", "2,-1", ""])
def test_pauses_are_numbers_of_seconds(text: str) -> None:
    """One that can't be read is refused, not left out."""
    with pytest.raises(ConfigurationError, match="infrastructure_pauses_seconds"):
        Settings(infrastructure_pauses_seconds=text)


@pytest.mark.parametrize("text", ["many", "1", "2.5", "-3"])
def test_a_number_of_pods_is_a_whole_number_from_two(text: str) -> None:
    """Anything else is refused as soon as it is read."""
    with pytest.raises(ConfigurationError, match="kubernetes_indexed_from"):
        Settings(kubernetes_indexed_from=text)


@pytest.mark.parametrize("text", ["an hour", "-1", "1.5"])
def test_the_time_of_finished_jobs_is_a_whole_number_of_seconds(text: str) -> None:
    """As in a Job's ttlSecondsAfterFinished."""
    with pytest.raises(ConfigurationError, match="kubernetes_job_ttl_seconds"):
        Settings(kubernetes_job_ttl_seconds=text)


@pytest.mark.parametrize("text", ["ten minutes", "-1", "inf", "nan"])
def test_a_patience_is_a_number_of_seconds(text: str) -> None:
    """Anything else is refused as soon as it is read."""
    with pytest.raises(ConfigurationError, match="storage_patience_seconds"):
        Settings(storage_patience_seconds=text)


def test_a_relative_root_does_not_depend_on_the_working_folder(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is below the folder of the file, or the one in which the process was started."""
    (tmp_path / "a/b").mkdir(parents=True)
    _write(tmp_path / "k8sflow.toml", 'root = "state"')
    assert _load(tmp_path / "a/b", home).root == str(tmp_path / "state")
    monkeypatch.chdir(tmp_path / "a")
    assert _load(tmp_path, home, K8SFLOW_ROOT="mine").root == str(Path(started.FOLDER or "") / "mine")
    found = config.load(tmp_path, {"K8SFLOW_ROOT": "mine"}, working=tmp_path / "a/b")
    assert found.root == str(tmp_path / "a/b/mine")
    assert _load(tmp_path, home, K8SFLOW_ROOT="~/runs").root == str(Path("~/runs").expanduser())
    assert _load(tmp_path, home, K8SFLOW_ROOT="/ünï").root == "/ünï"
    monkeypatch.setattr(started, "FOLDER", None)
    with pytest.raises(ConfigurationError, match="the working folder no longer exists"):
        _load(tmp_path, home, K8SFLOW_ROOT="mine")


@pytest.mark.parametrize(
    "root", ["ftp://host/x", "file:///tmp/x", "s3:/bucket/x", "S3://bucket", "s3://", "s3:///x", "s3://a/../x"]
)
def test_a_root_that_is_neither_a_folder_nor_a_bucket_is_refused(tmp_path: Path, home: Path, root: str) -> None:
    """Otherwise a folder called ``s3:`` would be created silently."""
    with pytest.raises(ConfigurationError) as raised:
        _load(tmp_path, home, K8SFLOW_ROOT=root)
    assert f"the setting root (K8SFLOW_ROOT) is {root!r}" in raised.value.summary
    assert "s3://bucket/prefix" in raised.value.advice or "without them" in raised.value.advice
    with pytest.raises(ConfigurationError, match="--datastore") as raised:
        _load(tmp_path, home, K8SFLOW_DATASTORE=root)
    _write(tmp_path / "k8sflow.toml", f'root = "{root}"')
    with pytest.raises(ConfigurationError, match="the setting root"):
        _load(tmp_path, home)


def test_a_bucket_as_root_is_also_that_of_runs_on_kubernetes(tmp_path: Path, home: Path) -> None:
    """A local run can be resumed in the cluster; the setting bucket may name another one."""
    found = _load(tmp_path, home, K8SFLOW_ROOT="s3://name/team/")
    assert (found.root, found.bucket) == ("s3://name/team", "name/team")
    assert config.load(Path("/nowhere"), found.to_environment()) == found
    found = _load(tmp_path, home, K8SFLOW_ROOT="s3://name", K8SFLOW_BUCKET="other")
    assert (found.root, found.bucket) == ("s3://name", "other")
    assert _load(tmp_path, home, K8SFLOW_ROOT="/folder").bucket is None


def test_the_datastore_wins_over_root_and_bucket(tmp_path: Path, home: Path) -> None:
    """Nothing is read from elsewhere, and nothing written."""
    _write(tmp_path / "k8sflow.toml", 'root = "state"\nbucket = "of-file"')
    found = _load(tmp_path, home, K8SFLOW_DATASTORE="s3://name/x", K8SFLOW_BUCKET="of-environment")
    assert (found.root, found.bucket) == ("s3://name/x", "name/x")
    found = _load(tmp_path, home, K8SFLOW_DATASTORE="/folder")
    assert (found.root, found.bucket) == ("/folder", None)


@pytest.mark.parametrize("kind", ["s3", "azure"])
def test_a_datastore_that_is_metaflows_name_of_a_kind_is_explained(tmp_path: Path, home: Path, kind: str) -> None:
    """It would be a folder called ``s3``."""
    with pytest.raises(ConfigurationError, match="not its location"):
        _load(tmp_path, home, K8SFLOW_DATASTORE=kind)


def test_an_empty_datastore_is_refused() -> None:
    """As of a variable that is not set: it would be the working folder."""
    with pytest.raises(ConfigurationError, match="--datastore is empty"):
        roots.datastore([" "], lambda: "")


def test_settings_travel_through_the_environment() -> None:
    """As a pod gets them."""
    settings = Settings(bucket="b/p", credentials="secret:s", endpoint="http://x", in_cluster_endpoint="http://y")
    assert config.load(Path("/nowhere"), settings.to_environment()) == settings
    inside = settings.in_cluster()
    assert (inside.endpoint, inside.in_cluster_endpoint) == ("http://y", None)
    assert Settings(endpoint="http://x").in_cluster().endpoint == "http://x"
    assert settings.credentials_secret == "s"
    assert Settings().credentials_secret is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('bukcet = "x"', "unknown setting 'bukcet'"),
        ("bucket = 5", "must be a string"),
        ("[bucket]\nname = 'x'", "must be a string"),
        ("bucket", "not a TOML file"),
        ('credentials = "password"', "credentials is 'password'"),
        ('credentials = "secret:"', "credentials is 'secret:'"),
    ],
)
def test_an_invalid_file_is_reported(tmp_path: Path, home: Path, text: str, words: str) -> None:
    """With its path, or the setting."""
    path = _write(tmp_path / "k8sflow.toml", text)
    with pytest.raises(ConfigurationError, match=words) as caught:
        _load(tmp_path, home)
    assert str(path) in str(caught.value) or "credentials" in text


def test_an_unreadable_file_is_reported(tmp_path: Path, home: Path) -> None:
    """Not UTF-8, missing, a folder."""
    bad = tmp_path / "k8sflow.toml"
    bad.write_bytes(b"\xff\xfe")
    for path in (bad, tmp_path / "missing.toml", home):
        with pytest.raises(ConfigurationError, match=r"can't be read"):
            _load(tmp_path, home, K8SFLOW_CONFIG=str(path))
