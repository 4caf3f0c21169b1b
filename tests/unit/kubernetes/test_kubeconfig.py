"""Finding the cluster as kubectl does, and errors if there is none."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8sflow.errors import ConfigurationError
from k8sflow.kubernetes import kubeconfig
from k8sflow.kubernetes.kubeconfig import ClusterAccess, _paths, load_access


@pytest.fixture(autouse=True)
def _without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


def write(
    path: Path, *, user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None, name: str = "one"
) -> Path:
    document = {
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example:6443", **(cluster or {})}}],
        "users": [{"name": name, "user": user or {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def load(*paths: Path, context: str | None = None) -> ClusterAccess:
    return load_access(context, {"KUBECONFIG": ":".join(map(str, paths))})


def headers_of(access: ClusterAccess) -> dict[str, str]:
    return dict(asyncio.run(access.credentials.headers()))  # type: ignore[arg-type]


def test_the_current_context_is_used_unless_another_is_named(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a"), write(tmp_path / "b", name="two")
    assert load(one, two).server == "https://one.example:6443"
    assert load(one, two, context="two").server == "https://two.example:6443"


def test_the_first_file_with_an_entry_wins(tmp_path: Path) -> None:
    one = write(tmp_path / "a")
    other = write(tmp_path / "b", cluster={"server": "https://other"})
    assert load(one, other).server == "https://one.example:6443"
    assert load(tmp_path / "missing", other).server == "https://other"


def test_the_home_folder_is_the_default(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config")
    assert load_access(None, {"HOME": str(tmp_path)}).origin.startswith("context 'one' of")


def test_a_missing_kubeconfig_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no kubeconfig") as caught:
        load_access(None, {"HOME": str(tmp_path)})
    assert "KUBECONFIG" in caught.value.advice


def test_an_unknown_context_is_reported_with_the_existing_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no context 'prod'") as caught:
        load(write(tmp_path / "a"), context="prod")
    assert "Its contexts: one" in caught.value.advice


@pytest.mark.parametrize("text", ["{not yaml", "- a list", "current-context: [", ""])
def test_a_broken_file_is_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").write_text(text)
    with pytest.raises(ConfigurationError, match="kubeconfig"):
        load(tmp_path / "a")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({"token": "t"}, "Bearer t"),
        ({"tokenFile": "token"}, "Bearer from a file"),
        ({"username": "me", "password": "secret"}, "Basic bWU6c2VjcmV0"),
        ({}, None),
    ],
)
def test_the_sources_of_the_authorization_header(tmp_path: Path, user: dict[str, Any], expected: str | None) -> None:
    """A relative file is beside the kubeconfig."""
    (tmp_path / "token").write_text("from a file\n")
    assert headers_of(load(write(tmp_path / "a", user=user))).get("Authorization") == expected


def plugin(tmp_path: Path, code: str, **settings: Any) -> dict[str, Any]:
    script = tmp_path / "plugin.py"
    script.write_text(code)
    exec_settings = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(script)],
        "env": [{"name": "WHO", "value": "me"}],
        "provideClusterInfo": True,
        **settings,
    }
    return {"exec": exec_settings}


def test_a_credential_program_gets_its_variables_and_the_cluster(tmp_path: Path) -> None:
    code = """
import json, os
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
token = os.environ["WHO"] + "@" + info["spec"]["cluster"]["server"]
print(json.dumps({"kind": "ExecCredential", "status": {"token": token, "expirationTimestamp": "2999-01-01T00:00:00Z"}}))
"""
    access = load(write(tmp_path / "a", user=plugin(tmp_path, code)))
    assert headers_of(access) == {"Authorization": "Bearer me@https://one.example:6443"}


def test_a_credential_is_refreshed_when_it_expires_or_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that is hours ahead every credential has expired: then only the server's refusal counts."""
    counter = tmp_path / "count"
    code = f"""
import json, pathlib
path = pathlib.Path({str(counter)!r})
count = int(path.read_text()) + 1 if path.exists() else 1
path.write_text(str(count))
print(json.dumps({{"status": {{"token": str(count), "expirationTimestamp": f"200{{count}}-01-01T00:00:00Z"}}}}))
"""

    async def ask(access: ClusterAccess) -> list[str]:
        tokens = []
        for year in (2000, 2000, 2001, 2100, 2100):
            now = datetime(year, 6, 1, tzinfo=timezone.utc)
            monkeypatch.setattr("k8sflow.kubernetes.credentials._now", lambda now=now: now)
            tokens.append(dict(await access.credentials.headers())["Authorization"])
        access.credentials.forget()
        tokens.append(dict(await access.credentials.headers())["Authorization"])
        return tokens

    access = load(write(tmp_path / "a", user=plugin(tmp_path, code)))
    assert asyncio.run(ask(access)) == [f"Bearer {number}" for number in (1, 1, 2, 3, 3, 4)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"token": "old"}, {"token": "new"}, "Bearer new"),
        ({"username": "me", "password": "old"}, {"token": "new"}, "Bearer new"),
        ({"token": "old"}, None, "Bearer old"),
    ],
)
def test_a_refused_token_is_read_again(
    tmp_path: Path,
    old: dict[str, str],
    new: dict[str, str] | None,
    expected: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The user may have logged in since; an incomplete file changes nothing."""
    path = write(tmp_path / "a", user=old)
    access = load(path)
    headers_of(access)
    if new is not None:
        write(path, user=new)
    else:
        path.write_text("users: [")
    with caplog.at_level("DEBUG", logger="k8sflow.kubernetes.credentials"):
        access.credentials.forget()
    assert headers_of(access) == {"Authorization": expected}
    assert ("read the kubeconfig again" in caplog.messages) is (new is not None)
    assert ("can't be read again" in caplog.text) is (new is None)


@pytest.mark.parametrize(
    ("code", "settings", "expected"),
    [
        ("import sys; sys.exit('log in first')", {}, "log in first"),
        ("print('hello')", {}, "printed no ExecCredential"),
        ("", {"command": "no-such-program", "installHint": "install it by …"}, "install it by …"),
    ],
)
def test_a_failing_credential_program_is_reported(
    tmp_path: Path, code: str, settings: dict[str, Any], expected: str
) -> None:
    access = load(write(tmp_path / "a", user=plugin(tmp_path, code, **settings)))
    with pytest.raises(ConfigurationError) as caught:
        headers_of(access)
    assert expected in str(caught.value)


def test_verification_can_be_turned_off_and_strict_mode_is_off(tmp_path: Path) -> None:
    import ssl

    access = load(write(tmp_path / "a", cluster={"insecure-skip-tls-verify": True}))
    assert access.ssl_context is not None
    assert access.ssl_context.verify_mode is ssl.CERT_NONE
    strict = load(write(tmp_path / "b"))
    assert strict.ssl_context is not None
    assert strict.ssl_context.verify_mode is ssl.CERT_REQUIRED
    assert not strict.ssl_context.verify_flags & ssl.VERIFY_X509_STRICT


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ({"certificate-authority": "missing.crt"}, "certificate-authority"),
        ({"certificate-authority-data": "!!!"}, "certificate-authority"),
        ({"certificate-authority-data": "aGVsbG8="}, "can't be used"),
        ({"server": "one.example"}, "not an http"),
        ({"proxy-url": "socks5://127.0.0.1:1"}, "not an HTTP proxy"),
    ],
)
def test_an_unusable_cluster_is_reported(tmp_path: Path, cluster: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(write(tmp_path / "a", cluster=cluster))
    assert expected in str(caught.value)


def test_proxy_server_name_and_impersonation_are_used(tmp_path: Path) -> None:
    cluster = {"proxy-url": "http://proxy:3128", "tls-server-name": "kubernetes"}
    access = load(write(tmp_path / "a", cluster=cluster, user={"as": "ci", "as-groups": ["a", "b"]}))
    assert (access.proxy, access.server_name) == ("http://proxy:3128", "kubernetes")
    assert list(access.headers) == [("Impersonate-User", "ci"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b")]


def test_the_proxy_of_the_environment_is_used_as_kubectl_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    path = write(tmp_path / "a")
    assert load(path).proxy == "http://proxy:3128"
    monkeypatch.setenv("NO_PROXY", "one.example")
    assert load(path).proxy is None


def test_a_pod_finds_its_own_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Path(__import__("certifi").where()).read_text(encoding="utf-8")
    (tmp_path / "ca.crt").write_text(authority.encode("ascii", "ignore").decode())
    (tmp_path / "token").write_text("pod")
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT_FOLDER", tmp_path)
    environment = {"HOME": str(tmp_path), "KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = load_access(None, environment)
    assert access.server == "https://[fd00::1]:443"
    assert headers_of(access) == {"Authorization": "Bearer pod"}
    assert json.dumps(access.origin)


def test_kubeconfigs_of_windows_have_drive_letters() -> None:
    """They are separated by semicolons, as for kubectl."""
    paths = _paths({"KUBECONFIG": r"C:\Users\ada\.kube\config;D:\other"}, ";")
    assert [str(path) for path in paths] == [r"C:\Users\ada\.kube\config", r"D:\other"]
