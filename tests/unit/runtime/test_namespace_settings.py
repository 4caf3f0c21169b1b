"""Settings in the ConfigMap of a namespace: which apply, in which order, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8sflow import config, debug_log
from k8sflow.config import Settings
from k8sflow.errors import ConfigurationError
from k8sflow.kubernetes.api import KubernetesApi
from k8sflow.kubernetes.flowrun import CARRIED_SETTINGS
from k8sflow.runtime.namespace_settings import ACCEPTED, NAME, added, ask_for, parsed
from tests.support import flow_command, write_flow
from tests.unit.kubernetes.fake_api import FakeApi

FLOW = """
class F(FlowSpec):
    @step
    def start(self): self.next(self.end)
    @step
    def end(self): pass
"""


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A running fake server."""
    fake = FakeApi()
    fake.start()
    yield fake
    fake.stop()


def _config_map(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": data}


def _asked(api: FakeApi) -> dict[str, str]:
    async def ask() -> dict[str, str]:
        async with KubernetesApi(api.access, patience_seconds=1) as client:
            return await ask_for(client, "lab")

    return asyncio.run(ask())


def test_the_settings_of_a_config_map_are_read(api: FakeApi) -> None:
    """Blanks around a value, as YAML's blocks leave them, don't count; an empty value is none."""
    assert _asked(api) == {}
    api.objects["configmaps", NAME] = _config_map(kubernetes_cpu="2\n", kubernetes_memory=" ", compression="zstd")
    assert _asked(api) == {"kubernetes_cpu": "2", "compression": "zstd"}


def test_a_config_map_that_may_not_be_read_is_none(api: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    """With one line in the debug log."""
    api.fail("GET", f"configmaps/{NAME}", status=403)
    with caplog.at_level("DEBUG", logger=debug_log.ROOT):
        assert _asked(api) == {}
    assert [record.message for record in caplog.records if NAME in record.message and "apply" in record.message]


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("kubernetes_memroy", "1", "unknown setting 'kubernetes_memroy'"),
        ("credentials", "secret:keys", "has credentials, which can't be set there"),
        ("kubernetes_context", "prod", "has kubernetes_context, which can't be set there"),
        ("compression", "gzip", "compression"),
        ("kubernetes_tolerations", "[{", "kubernetes_tolerations"),
        ("kubernetes_qos", "Best", "kubernetes_qos"),
        ("infrastructure_retries", "-1", "infrastructure_retries"),
    ],
)
def test_what_can_not_be_a_setting_is_refused(key: str, text: str, words: str) -> None:
    """The error names the key, the ConfigMap and its namespace."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        parsed(_config_map(**{key: text}), "lab")
    assert f"the ConfigMap {NAME} in namespace 'lab'" in caught.value.summary
    assert caught.value.advice


def test_binary_data_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="binary data under 'log'"):
        parsed({"binaryData": {"log": "AA=="}}, "lab")


def test_environment_and_file_win(tmp_path: Path) -> None:
    """Also with the value of the default, or with an empty one, which unsets what the namespace has."""
    (tmp_path / "k8sflow.toml").write_text('kubernetes_cpu = "3"\nkubernetes_labels = ""\n')
    environment = {"K8SFLOW_COMPRESSION": "none"}
    settings = config.load(tmp_path, environment)
    shared = {"kubernetes_cpu": "2", "kubernetes_labels": "a=b", "compression": "zstd", "kubernetes_memory": "9Gi"}
    found = added(settings, shared, config.origins(tmp_path, environment))
    assert (found.kubernetes_cpu, found.kubernetes_labels, found.compression) == ("3", "", "none")
    assert found.kubernetes_memory == "9Gi"


def test_an_option_of_the_command_line_wins() -> None:
    """It has changed the settings before."""
    found = added(Settings(log_limit_mb="5"), {"log_limit_mb": "9"}, {})
    assert found.log_limit_mb == "5"


def test_settings_of_pods_and_drivers_reach_detached_runs() -> None:
    """Options of pods and retries are in the run's record; the others are in the FlowRun."""
    by_client = {"default_decospecs", "default_environment", "kubernetes_followed_tasks"}
    in_record = {key for key in ACCEPTED if key.startswith(("infrastructure_", "package_"))}
    of_pods = {key for key in ACCEPTED if key.startswith("kubernetes_")} - set(CARRIED_SETTINGS)
    assert set(ACCEPTED) == by_client | in_record | of_pods | (set(CARRIED_SETTINGS) & set(ACCEPTED))


def test_a_local_run_asks_no_cluster(tmp_path: Path) -> None:
    """Whatever the kubeconfig says."""
    flow = write_flow(tmp_path, FLOW)
    (tmp_path / "kubeconfig").write_text("no: kubeconfig")
    done = flow_command(flow, "run", KUBECONFIG=str(tmp_path / "kubeconfig"))
    assert done.returncode == 0, done.stderr


def test_the_command_shows_where_each_setting_comes_from(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable, a file, the ConfigMap, or the default."""
    from click.testing import CliRunner

    from k8sflow.cli.main import main

    api.objects["configmaps", NAME] = _config_map(kubernetes_cpu="2", kubernetes_memory="1Gi")
    server = {"cluster": {"server": api.access.server}, "name": "c"}
    context = {"context": {"cluster": "c"}, "name": "c"}
    kubeconfig = {"clusters": [server], "contexts": [context], "current-context": "c"}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    (tmp_path / "k8sflow.toml").write_text('kubernetes_memory = "2Gi"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("K8SFLOW_KUBERNETES_NAMESPACE", "lab")
    shown = CliRunner().invoke(main, ["config", "show", "--kubernetes"])
    lines = {line.split()[0]: line.split(maxsplit=1)[1:] for line in shown.stdout.splitlines()}
    assert lines["K8SFLOW_KUBERNETES_CPU"] == [f"2  (ConfigMap {NAME} in lab)"]
    assert lines["K8SFLOW_KUBERNETES_MEMORY"] == [f"2Gi  ({tmp_path / 'k8sflow.toml'})"]
    assert lines["K8SFLOW_KUBERNETES_NAMESPACE"] == ["lab  (K8SFLOW_KUBERNETES_NAMESPACE)"]
    assert lines["K8SFLOW_REGION"] == ["us-east-1  (default)"]
    without = CliRunner().invoke(main, ["config", "show"])
    assert "ConfigMap" not in without.stdout
