"""`k8sflow config`: what holds, and writing it down without touching anything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from k8sflow import config
from k8sflow.cli.main import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def _call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["config", *arguments])


def test_a_setting_is_written_and_holds(folder: Path) -> None:
    """Whatever characters it has."""
    for value in ("plain", 'a "b" \\ c', "日本", "tab\there", "x" * 1000, "#no comment"):
        done = _call("set", "bucket", value)
        assert done.exit_code == 0, done.output
        assert config.load(folder, {}).bucket == value
    assert len((folder / "k8sflow.toml").read_text().splitlines()) == 1
    assert json.loads(_call("show", "--json").stdout)["bucket"] == "#no comment"
    assert "K8SFLOW_BUCKET                       #no comment" in _call().stdout


def test_the_other_lines_stay(folder: Path) -> None:
    """Comments, order and blanks; also from a folder below."""
    text = '# ours\nregion = "r"  # near\n\n  bucket="old" # old\n# the end'
    (folder / "k8sflow.toml").write_text(text)
    assert _call("set", "bucket", "new").exit_code == 0
    assert (folder / "k8sflow.toml").read_text() == '# ours\nregion = "r"  # near\n\nbucket = "new"\n# the end'
    assert _call("set", "endpoint", "http://x").exit_code == 0
    assert (folder / "k8sflow.toml").read_text().endswith('# the end\nendpoint = "http://x"\n')


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bukcet", "x"), "there is no setting 'bukcet'.\nDid you mean 'bucket'?"),
        (("credentials", "nope"), 'Use "secret:NAME"'),
    ],
)
def test_what_can_not_be_a_setting_is_refused(folder: Path, arguments: tuple[str, str], words: str) -> None:
    """Before anything is written."""
    done = _call("set", *arguments)
    assert done.exit_code == 1
    assert words in done.stderr
    assert not (folder / "k8sflow.toml").exists()


@pytest.mark.parametrize("text", ['bucket = """\nold"""\n', "bucket = [", 'nope = "x"\n'])
def test_a_file_that_is_not_understood_is_left_alone(folder: Path, text: str) -> None:
    """The error says what to write, or what is wrong with the value."""
    (folder / "k8sflow.toml").write_text(text)
    done = _call("set", "bucket", "new")
    assert done.exit_code == 1
    assert "k8sflow.toml" in done.stderr
    assert (folder / "k8sflow.toml").read_text() == text


def test_an_environment_that_wins_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the person wonders."""
    monkeypatch.setenv("K8SFLOW_REGION", "r")
    assert "K8SFLOW_REGION is set to r, which wins" in _call("set", "region", "s").stderr


def test_shells_are_given_what_they_need() -> None:
    """For `k8sflow`; the version as JSON, too."""
    for shell in ("bash", "zsh", "fish"):
        assert "_K8SFLOW_COMPLETE" in CliRunner().invoke(main, ["completion", shell]).stdout
    done = CliRunner().invoke(
        main,
        [],
        prog_name="k8sflow",
        complete_var="_K8SFLOW_COMPLETE",
        env={"_K8SFLOW_COMPLETE": "bash_complete", "COMP_WORDS": "k8sflow lo", "COMP_CWORD": "1"},
    )
    assert "plain,logs" in done.stdout
    assert set(json.loads(CliRunner().invoke(main, ["version", "--json"]).stdout)) == {"version"}


def test_passwords_in_urls_are_not_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8SFLOW_S3_PROXY", "http://user:sekret@proxy:3128")
    monkeypatch.setenv("K8SFLOW_ENDPOINT", "http://u:sekret@host:9000")
    for done in (_call(), _call("show", "--json"), _call("set", "s3_proxy", "http://user:sekret@other:3128")):
        assert done.exit_code == 0, done.output
        assert "sekret" not in done.output
        assert "://***@" in done.output
    monkeypatch.setenv("K8SFLOW_S3_PROXY", "ftp://user:sekret@proxy")
    assert "sekret" not in _call().output
    assert config.load(folder, {}).s3_proxy == "http://user:sekret@other:3128"


def test_a_file_keeps_its_mode(folder: Path) -> None:
    (folder / "k8sflow.toml").touch(0o600)
    assert _call("set", "bucket", "b").exit_code == 0
    assert (folder / "k8sflow.toml").stat().st_mode & 0o777 == 0o600


def test_a_kind_of_store_is_not_where_the_root_comes_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K8SFLOW_DATASTORE", "local")
    monkeypatch.setenv("K8SFLOW_ROOT", "/elsewhere")
    assert "/elsewhere  (K8SFLOW_ROOT)" in _call().stdout
