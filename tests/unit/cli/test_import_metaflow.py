"""`k8sflow config import-metaflow`, and profiles of settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from k8sflow import Runner, config
from k8sflow.cli import metaflow_profile
from k8sflow.cli.main import main
from k8sflow.errors import ConfigurationError

THEIRS = {
    "METAFLOW_DATASTORE_SYSROOT_S3": "s3://lake/metaflow/",
    "METAFLOW_DEFAULT_DATASTORE": "s3",
    "METAFLOW_DEFAULT_METADATA": "service",
    "METAFLOW_SERVICE_URL": "https://metadata",
    "METAFLOW_DEFAULT_CONTAINER_IMAGE": "all:1",
    "METAFLOW_KUBERNETES_CONTAINER_IMAGE": "pods:1",
    "METAFLOW_KUBERNETES_NODE_SELECTOR": "pool=batch",
    "METAFLOW_KUBERNETES_TOLERATIONS": [{"key": "batch", "operator": "Exists"}],
    "METAFLOW_KUBERNETES_QOS": "guaranteed",
    "METAFLOW_S3_SERVER_SIDE_ENCRYPTION": "AES256",
    "METAFLOW_KUBERNETES_SECRETS": "",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "METAFLOW_HOME", "METAFLOW_PROFILE", "K8SFLOW_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["config", *arguments])


def test_the_file_of_metaflow_becomes_settings(folder: Path) -> None:
    """Those without a counterpart are named."""
    source = folder / "home/.metaflowconfig/config.json"
    source.parent.mkdir(parents=True)
    source.write_text(json.dumps(THEIRS))
    done = call("import-metaflow")
    assert done.exit_code == 0, done.output
    found = config.load(folder, {})
    assert (found.bucket, found.root) == ("lake/metaflow", "s3://lake/metaflow")
    assert (found.kubernetes_image, found.kubernetes_node_selector) == ("pods:1", "pool=batch")
    assert json.loads(found.kubernetes_tolerations or "") == THEIRS["METAFLOW_KUBERNETES_TOLERATIONS"]
    assert found.s3_write_headers == "x-amz-server-side-encryption=AES256"
    left = [line for line in done.stderr.splitlines() if line.startswith("not taken over")]
    assert [line.split(": ")[1] for line in left] == ["METAFLOW_DEFAULT_METADATA", "METAFLOW_SERVICE_URL"]


def test_a_profile_of_metaflow_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFLOW_PROFILE", "dev")
    assert call("import-metaflow").exit_code == 1
    (folder / "config_dev.json").write_text(json.dumps({"METAFLOW_DATASTORE_SYSROOT_S3": "gs://x"}))
    monkeypatch.setenv("METAFLOW_HOME", str(folder))
    assert "is not a URL of S3" in call("import-metaflow", "--file", "new.toml").stderr
    assert not (folder / "new.toml").exists()


def test_odd_values_are_left(folder: Path) -> None:
    """Keys in a URL are neither printed nor written."""
    found = metaflow_profile.translated(
        {"METAFLOW_DEFAULT_DATASTORE": ["s3"], "METAFLOW_S3_ENDPOINT_URL": "https://me:hunter2@minio:9000"}
    )
    assert found.settings == {}
    assert found.left.keys() == {"METAFLOW_DEFAULT_DATASTORE", "METAFLOW_S3_ENDPOINT_URL"}
    assert "hunter2" not in str(found.left)


@pytest.mark.parametrize(
    ("kind", "root", "settings"),
    [("gs", "gs://lake/x/", {"root": "gs://lake/x"}), ("s3", "gs://lake", {}), ("gs", 3, {})],
)
def test_a_bucket_of_google_becomes_the_root(kind: str, root: object, settings: dict[str, str]) -> None:
    """If it is the default."""
    found = metaflow_profile.translated({"METAFLOW_DEFAULT_DATASTORE": kind, "METAFLOW_DATASTORE_SYSROOT_GS": root})
    assert found.settings == settings
    assert bool(found.left) != bool(settings)


@pytest.mark.parametrize(
    ("kind", "root", "settings"),
    [("azure", "lake/x/", {"root": "az://lake/x"}), ("s3", "lake", {}), ("azure", 3, {})],
)
def test_a_container_of_azure_becomes_the_root(kind: str, root: object, settings: dict[str, str]) -> None:
    """If it is the default."""
    key = "METAFLOW_AZURE_STORAGE_BLOB_SERVICE_ENDPOINT"
    known = {"METAFLOW_DEFAULT_DATASTORE": kind, "METAFLOW_DATASTORE_SYSROOT_AZURE": root}
    found = metaflow_profile.translated({**known, key: "https://acc.blob.core.windows.net"})
    assert found.settings == settings
    assert "AZURE_STORAGE_SERVICE_ENDPOINT" in found.left.pop(key)
    assert bool(found.left) != bool(settings)


@pytest.mark.parametrize("text", ["[1]", "{", "3"])
def test_a_file_that_is_none_is_reported(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        metaflow_profile.read(folder / "config.json")


def test_each_setting_has_a_counterpart() -> None:
    for key in metaflow_profile.SAME.values():
        config.Settings(**{key: "3"})


def test_a_profile_has_settings_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "k8sflow.toml").write_text('bucket = "everyday"')
    (folder / "k8sflow.dev.toml").write_text('bucket = "dev"')
    assert config.load(folder, {}).bucket == "everyday"
    assert config.load(folder, {"K8SFLOW_PROFILE": "dev"}).bucket == "dev"
    (folder / "flow.py").touch()
    assert Runner(str(folder / "flow.py"), profile="dev").settings.bucket == "dev"
    with pytest.raises(ConfigurationError, match=r"no k8sflow\.prod\.toml in"):
        config.load(folder, {"K8SFLOW_PROFILE": "prod"})
    monkeypatch.setenv("K8SFLOW_PROFILE", "prod")
    assert call("set", "bucket", "prod").exit_code == 0
    assert config.load(folder).bucket == "prod"


def test_a_default_environment_is_taken_over_where_it_means_the_same() -> None:
    """``local`` is where @pypi is refused in Metaflow; and other environments don't exist here."""
    variable = "METAFLOW_DEFAULT_ENVIRONMENT"
    assert metaflow_profile.translated({variable: "pypi"}).settings == {"default_environment": "pypi"}
    assert metaflow_profile.translated({variable: "local"}) == metaflow_profile.Imported()
    assert variable in metaflow_profile.translated({variable: "uv"}).left
