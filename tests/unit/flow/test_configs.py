"""Config: the sources of its value, its parsers, and the options that depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k8sflow import Config, resources, yaml_parser
from k8sflow.errors import FlowDefinitionError, ParameterError
from k8sflow.flow.decorators import base
from k8sflow.flow.delayed import settled
from tests.support import flow_command, run_flow, write_flow


@pytest.mark.parametrize(
    ("name", "text", "parser"),
    [
        ("c.json", '{"a": {"b": 1}}', None),
        ("c.yaml", "a:\n  b: 1\n", None),
        ("c.yml", "a:\n  b: 1\n", None),
        ("c.toml", "[a]\nb = 1\n", None),
        ("c.txt", "a:\n  b: 1\n", "yaml"),
        ("c.txt", "a:\n  b: 1\n", yaml_parser),
        ("c.txt", "1", lambda text: {"a": {"b": int(text)}}),
        ("c.txt", '{"a": {"b": 1}}', "json.loads"),
    ],
)
def test_a_config_is_parsed_by_its_parser_or_by_its_suffix(tmp_path: Path, name: str, text: str, parser: Any) -> None:
    """JSON, YAML and TOML are recognised."""
    (tmp_path / name).write_text(text)
    assert Config("c", default=str(tmp_path / name), parser=parser).k8sflow_value().a.b == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config("c", default="none.json"), "none.json can't be read: No such file or directory\\."),
        (Config("c", required=True), "Config 'c' is required"),
        (Config("c", default_value="{a"), "its value can't be parsed: JSONDecodeError(.|\n)*It is read as JSON"),
        (Config("c", default=__file__), r"test_configs\.py can't be parsed: JSONDecodeError"),
        (Config("c", default_value="{}", parser="no.such"), "parser 'no.such' can't be found"),
    ],
)
def test_a_config_whose_value_is_not_available_is_an_error(config: Config, words: str) -> None:
    """The error is raised when the value is needed."""
    with pytest.raises(ParameterError, match=words):
        config.k8sflow_value()


def test_decorators_take_values_of_configs() -> None:
    """They may be inside lists and dictionaries; they are read once they are known."""
    config: Any = Config("c", default_value={"cpu": 2, "more": {"memory": ["x", 4000]}})

    def start(self: Any) -> None: ...

    resources(cpu=config.cpu, memory=config["more"].memory[1])(start)
    (decoration,) = base.of(start)
    assert resources.read(decoration)["cpu"] == "2"
    assert resources.read(decoration)["memory"] == "4000M"
    assert settled({"a": [config.cpu, 5]}) == {"a": [2, 5]}
    with pytest.raises(ParameterError, match=r"cannot evaluate c\.gpu|c\.gpu can't be evaluated"):
        config.gpu.k8sflow_value()


SOURCE = """
    from k8sflow import Config, config_expr, environment, retry
    import os
    class F(FlowSpec):
        limits = Config("limits", default="limits.json")
        more = Config("more-of-it", default_value="x: 1", parser="yaml")
        plain = Config("plain", default_value='[{"a": 1}]', parser="json", plain=True)
        text = Config("text", default_value="a: b", plain=True)
        rows = Parameter("rows", default=limits.rows)
        double = Parameter("double", type=int, default=config_expr("limits.rows * 2"))
        @retry(times=limits.times)
        @environment(vars={"PLACE": config_expr("limits['place']"), "X": more.x})
        @step
        def start(self):
            print([os.environ["PLACE"], os.environ["X"], self.rows, self.double, self.limits.rows,
                   self.plain, self.text])
            self.next(self.end)
        @step
        def end(self): assert self.limits["rows"] == self.limits.rows
"""


def test_a_run_uses_its_configs(tmp_path: Path) -> None:
    """The value comes from the default, a file or the command line, before or after the command."""
    file = write_flow(tmp_path, SOURCE)
    (tmp_path / "limits.json").write_text('{"rows": "10", "times": 0, "place": "here"}')
    (tmp_path / "other.toml").write_text('rows = 3\ntimes = 1\nplace = "there"\n')
    value = '{"rows": "x", "times": 0, "place": "y"}'
    for before, behind, printed in (
        ([], ["--double", "5"], "['here', '1', '10', 5, '10', [{'a': 1}], 'a: b']"),
        (["--config", "limits", "other.toml"], ["--rows", "7"], "['there', '1', 7, 6, 3, [{'a': 1}], 'a: b']"),
        ([], ["--config-value", "limits", value, "--double", "1"], "['y', '1', 'x', 1, 'x', [{'a': 1}], 'a: b']"),
    ):
        done = flow_command(file, *before, "run", *behind)
        assert done.returncode == 0, done.stdout + done.stderr
        assert printed in done.stdout
    for wrong, words in (
        (["--config", "limit", "other.toml"], "Did you mean 'limits'"),
        (["--config", "limits", "none.json"], "can't be read"),
        (["--config-value", "limits", "{"], "can't be parsed"),
    ):
        refused = run_flow(file, *wrong)
        assert refused.returncode == 1
        assert words in refused.stderr


PLACES = """
    from k8sflow import Config, IncludeFile
    class F(FlowSpec):
        conf = Config("conf", default=lambda context: f"{context.parameter_name}.json")
        plain = Config("plain", default="plain.txt", plain=True)
        who = Config("who", default_value=lambda context: {"user": context.user_name, "flow": context.flow_name})
        notes = IncludeFile("notes", default="notes.txt")
        @step
        def start(self):
            print([self.conf.a, self.plain, self.who.flow, self.notes, bool(self.who.user)])
            self.next(self.end)
        @step
        def end(self): pass
"""


def test_default_files_are_found_beside_the_file_behind_a_link(tmp_path: Path) -> None:
    """Python finds modules in the same way; a file beside the link itself wins."""
    file = write_flow(tmp_path / "real", PLACES)
    (tmp_path / "real" / "conf.json").write_text('{"a": 1}')
    (tmp_path / "real" / "plain.txt").write_text("real")
    (tmp_path / "real" / "notes.txt").write_text("real notes")
    link = tmp_path / "bin" / "train.py"
    link.parent.mkdir()
    link.symlink_to(file)
    (link.parent / "plain.txt").write_text("linked")
    for folder in (tmp_path, link.parent):
        done = run_flow(link, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "[1, 'linked', 'F', 'real notes', True]" in done.stdout


def test_a_user_without_a_name_can_have_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user often has no passwd entry; default functions then get the name "unknown"."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "K8SFLOW_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("getpass.getuser", _no_passwd_entry)
    assert Config("c", default_value=lambda context: {"user": context.user_name}).k8sflow_value() == {"user": "unknown"}
    no_file: Any = Config("c", default=lambda _: None)
    assert no_file.k8sflow_value() is None
    with pytest.raises(ParameterError, match="the function in its default failed: ZeroDivisionError"):
        Config("c", default=lambda _: str(1 // 0)).k8sflow_value()


def _no_passwd_entry() -> str:
    raise KeyError("getpwuid(): uid not found: 12345")


def test_a_value_is_given_in_only_one_way(tmp_path: Path) -> None:
    """A file and a value, in the source or on the command line, would override each other."""
    with pytest.raises(FlowDefinitionError, match=r"default and default_value are both set"):
        Config("c", default="c.json", default_value={})
    file = write_flow(tmp_path, SOURCE)
    (tmp_path / "limits.json").write_text("{}")
    done = flow_command(file, "run", "--config", "limits", "limits.json", "--config-value", "limits", "{}")
    assert done.returncode != 0
    assert "Config 'limits' is given by --config and by --config-value" in done.stderr


def test_help_lists_the_configs(tmp_path: Path) -> None:
    """The list shows their help texts and defaults."""
    source = """
        from k8sflow import Config
        class F(FlowSpec):
            a = Config("a", default="a.json", help="Sizes.")
            b = Config("b", default_value="secret", show_default=False)
            c = Config("c", required=True)
            @step
            def start(self): self.next(self.end)
            @step
            def end(self): pass
    """
    file = write_flow(tmp_path, source)
    (tmp_path / "a.json").write_text("{}")
    shown = " ".join(flow_command(file, "--help").stdout.split())
    assert "This flow has a: Sizes. [default: 'a.json']; b; c: [required]" in shown
    assert "secret" not in shown
