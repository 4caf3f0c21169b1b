"""Each public name of Metaflow is a name of k8sflow, or an error that says what to write instead."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path

import pytest

import k8sflow
from k8sflow import absent, exception, metaflow_modules, metaflow_settings, toml
from k8sflow.errors import ConfigurationError, K8sflowError
from k8sflow.integrations import ArgoEvent

LISTED = Path(__file__).with_name("metaflow_names.txt").read_text().splitlines()
NAMES = [name for name in LISTED if not name.startswith("#")]
ERRORS = """
CommandException ExternalCommandFailed InvalidDecoratorAttribute MetaflowDataMissing MetaflowException
MetaflowExceptionWrapper MetaflowInternalError MetaflowInvalidPathspec MetaflowNamespaceMismatch MetaflowNotFound
MetaflowTaggingError MetaflowUnknownUser MissingInMergeArtifactsException ParameterFieldFailed
ParameterFieldTypeMismatch UnhandledInMergeArtifactsException
"""


def test_the_list_is_of_the_metaflow_that_the_benchmarks_install() -> None:
    """When its version is raised, `make metaflow-names` makes the list again."""
    project = toml.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    (pinned,) = [each for each in project["dependency-groups"]["bench"] if each.startswith("metaflow==")]
    assert LISTED[0].startswith(f"# The public names of Metaflow {pinned.removeprefix('metaflow==')}: ")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_there_or_says_what_to_use(name: str) -> None:
    if absent.message(name) is None:
        assert getattr(k8sflow, name) is not None
        return
    with pytest.raises(ImportError, match=f"^k8sflow has no {name}, which Metaflow has"):
        getattr(k8sflow, name)


def test_no_name_that_exists_is_called_absent() -> None:
    """The table of absent names has none that k8sflow has got since."""
    assert not set(absent._INSTEAD) & set(k8sflow.__all__)
    assert not {name for name in absent._INSTEAD if metaflow_modules.is_known(name)}


def test_the_family_of_exceptions_is_complete() -> None:
    for name in ERRORS.split():
        assert issubclass(getattr(exception, name), exception.MetaflowException)
    error = exception.MetaflowInternalError("it broke", 7, "flow.py")
    assert (error.line_no, error.source_file, error.headline) == (7, "flow.py", "Internal error")
    assert str(error) == "flow.py: line 7: it broke"


def test_a_missing_setting_names_those_there_are() -> None:
    with pytest.raises(ImportError, match=r"no setting SERVICE_URL of metaflow_config\. It has .*DATATOOLS_S3ROOT"):
        exec("from k8sflow.metaflow_config import SERVICE_URL", {})


def test_a_root_in_google_cloud_storage_is_not_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8SFLOW_ROOT", "gs://bucket/prefix")
    names: dict[str, object] = {}
    wanted = ("DEFAULT_DATASTORE", "DATASTORE_SYSROOT_GS", "DATASTORE_SYSROOT_LOCAL")
    exec(f"from k8sflow.metaflow_config import {', '.join(wanted)}", names)
    assert [names[name] for name in wanted] == ["gs", "gs://bucket/prefix", None]


def test_a_root_in_azure_is_written_as_metaflow_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8SFLOW_ROOT", "az://container/prefix")
    wanted = ("DEFAULT_DATASTORE", "DATASTORE_SYSROOT_AZURE", "DATASTORE_SYSROOT_GS", "DATASTORE_SYSROOT_S3")
    found = [getattr(metaflow_settings, name) for name in wanted]
    assert found == ["azure", "container/prefix", None, None]


def test_functions_of_metaflows_util(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8SFLOW_USER", "ada")
    names: dict[str, object] = {}
    exec("from k8sflow.util import get_username, resolve_identity, to_bytes, to_unicode", names)
    exec("found = get_username(), resolve_identity(), to_bytes('é'), to_bytes(1.5), to_unicode(b'x')", names)
    assert names["found"] == ("ada", "user:ada", "é".encode(), b"1.5", "x")


def test_there_is_no_page_of_metaflows_ui() -> None:
    names: dict[str, object] = {}
    exec("from k8sflow.metaflow_config import UI_URL", names)
    assert names["UI_URL"] is None


class _Webhook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got = (json.loads(body), self.headers["Authorization"])  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        return


def test_an_event_is_posted_to_a_webhook() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Webhook) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        event = ArgoEvent(
            k8sflow.namespaced_event_name("ready"), f"http://127.0.0.1:{server.server_port}", access_token="t"
        )
        published = event.add_to_payload("n", 3).publish({"m": "x"}, ignore_errors=False)
        document, authorization = server.got  # type: ignore[attr-defined]
    assert document["name"] == "mfns.ready"
    assert document["payload"].items() >= {"id": published, "n": "3", "m": "x", "name": "mfns.ready"}.items()
    assert authorization == "Bearer t"


def test_an_event_without_a_webhook(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Metaflow ignores errors unless asked not to; outside of the cluster, safe_publish does nothing."""
    monkeypatch.delenv("K8SFLOW_ARGO_EVENTS_WEBHOOK_URL", raising=False)
    assert ArgoEvent("ready").safe_publish() is None
    assert not capsys.readouterr().out
    assert ArgoEvent("ready").publish() is None
    assert "no webhook is set" in capsys.readouterr().out
    with pytest.raises(ConfigurationError):
        ArgoEvent("ready").publish(ignore_errors=False)
    with pytest.raises(K8sflowError, match="could not be posted"):
        ArgoEvent("ready", "http://127.0.0.1:9").publish(ignore_errors=False)


def test_other_systems_of_deployments_say_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "flow.py").touch()
    deployer = k8sflow.Deployer(str(tmp_path / "flow.py"))
    for deploy in (deployer.argo_workflows, deployer.step_functions):
        with pytest.raises(k8sflow.RunError, match=r"kubernetes\(\)\.create\(\)"):
            deploy()


def test_the_version_is_k8sflows() -> None:
    names: dict[str, object] = {}
    exec("from k8sflow import metaflow_version; found = metaflow_version.get_version()", names)
    assert names["found"] == k8sflow.__version__
