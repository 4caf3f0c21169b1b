"""Messages about the machine have three parts: what happened, the likely cause, what to do."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cluster import harness, host, process
from tests.cluster.__main__ import main
from tests.cluster.errors import ClusterError
from tests.cluster.places import Places


def assert_three_parts(error: ClusterError, *words: str) -> None:
    assert error.summary
    assert error.cause
    assert error.advice
    for word in words:
        assert word in str(error)


def test_other_systems_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS the harness reports that it needs Linux, before it does anything."""
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(ClusterError) as caught:
        harness.ensure()
    assert_three_parts(caught.value, "Linux", "Darwin")


def test_a_full_disk_is_reported_with_the_space_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the folder, the free space, and how to choose another folder."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 * 2**30))
    with pytest.raises(ClusterError) as caught:
        host.check_disk(tmp_path / "not" / "there" / "yet")
    assert_three_parts(caught.value, "3.0 GB", str(host.NEEDED_GIB), "XDG_CACHE_HOME")


def test_a_user_without_root_or_docker_gets_both_solutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who is not root and has no engine can start one, or become root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError) as caught:
        host.check_root("start a Docker engine", cause="no engine answers to this user.")
    assert_three_parts(caught.value, "only root can start a Docker engine", "docker info")


def test_a_port_in_use_is_reported_with_its_setting() -> None:
    """When another program has the S3 server's port, the message names the port and how to choose another."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ClusterError) as caught:
            host.check_port(port, harness.PORT_VARIABLE)
    assert_three_parts(caught.value, str(port), harness.PORT_VARIABLE)
    host.check_port(port, harness.PORT_VARIABLE)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.21.0 linux/amd64", (1, 21)),
        ("go version go1.19.8 linux/amd64", (1, 19)),
        ("2:1.24~2", (1, 24)),
        ("(none)", (0, 0)),
    ],
)
def test_the_version_of_go_is_read_from_go_and_from_packages(text: str, version: tuple[int, int]) -> None:
    """Both ways of writing a version of Go are understood; no version is older than all."""
    assert host.go_version(text.split(":", 1)[-1]) == version


def test_an_old_go_is_reported_with_a_source_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12's Go 1.19 can't fetch a newer one by itself: the message says how to."""
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go version go1.19.8 linux/amd64\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(ClusterError) as caught:
        host.go()
    assert_three_parts(caught.value, "go1.19.8", "1.21", "https://go.dev/dl/")


def test_a_missing_package_without_apt_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without apt the harness names the missing program."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClusterError) as caught:
        host.ensure_programs({"dockerd": "docker.io"}, doing="install the Docker engine")
    assert_three_parts(caught.value, "docker.io", "apt-get")


def test_a_failed_program_is_reported_with_its_last_lines() -> None:
    """The end of a program's output has the likely cause."""
    with pytest.raises(ClusterError) as caught:
        process.run(["sh", "-c", "echo first; echo no space left >&2; exit 3"], doing="pack", advice="Free some.")
    assert_three_parts(caught.value, "can't pack", "exit code 3", "no space left")


def test_missing_and_slow_programs_are_failures_like_others() -> None:
    """A missing program ends with 127, one that takes too long with 124, as in a shell."""
    assert process.attempt(["no-such-program"]).returncode == 127
    assert process.attempt(["sleep", "60"], timeout_seconds=0.1).returncode == 124


def test_a_bad_port_setting_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message quotes an invalid port."""
    monkeypatch.setenv(harness.PORT_VARIABLE, "many")
    with pytest.raises(ClusterError, match=f"{harness.PORT_VARIABLE} is 'many'"):
        harness.port()


def test_the_environment_without_a_cluster_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`env` without a cluster explains how to create one, prints nothing to be evaluated, and fails."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["env"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "make cluster" in err


def test_exports_survive_a_shell(tmp_path: Path) -> None:
    """Values with spaces, quotes and dollars reach the shell unchanged."""
    value = """it's "a" $HOME value"""
    script = f'{harness.exports({"K8SFLOW_X": value}, Places(tmp_path))}\nprintf %s "$K8SFLOW_X"'
    assert process.run(["sh", "-c", script], doing="evaluate the environment") == value
