"""A flow's parameters may have the names of commands' options."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from k8sflow import Config, FlowSpec, Parameter
from k8sflow.cli.flow import _group
from k8sflow.cli.own_options import config_words
from k8sflow.flow.compile import declared
from tests.support import flow_command, write_flow


class Taking(FlowSpec):
    """Has a config, and parameters named like options."""

    limits = Config("limits", default_value={})
    config = Parameter("config")
    trace = Parameter("trace", is_flag=True, default=False)
    secret = Parameter("out-of-sight", hidden=True)


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("--config limits a.json run --config x", "--config limits a.json run x"),
        ("run --k8sflow-config limits a.json --config x", "run --config limits a.json x"),
        ("run --config-value limits {}", "run --config-value limits {}"),
    ],
)
def test_configs_are_read_from_their_own_options(words: str, read: str) -> None:
    assert config_words(Taking, words.split()) == read.split()


def test_the_other_options_keep_their_names() -> None:
    """Those that make way can still be given."""
    group = _group(declared(Taking))
    for command in ("run", "resume"):
        options = {name for option in group.commands[command].params for name in option.opts}
        assert {"--trace", "--k8sflow-trace", "--config", "--k8sflow-config", "--config-value", "--tag"} <= options
        assert "--k8sflow-config-value" not in options
        shown = group.commands[command].get_help(click.Context(group.commands[command]))
        assert "--k8sflow-trace" in shown
        assert "out-of-sight" not in shown


def test_a_run_takes_both(tmp_path: Path) -> None:
    """A parameter that is hidden works as any other."""
    source = """
        from k8sflow import Config
        class F(FlowSpec):
            limits = Config("limits", default_value={"rows": 1})
            config = Parameter("config", default="none")
            help = Parameter("help", default="")
            quiet = Parameter("kept-quiet", default=1, hidden=True, help="kept quiet")
            @step
            def start(self):
                print(self.limits.rows, self.config, self.help, self.quiet)
                self.next(self.end)
            @step
            def end(self): pass
    """
    file = write_flow(tmp_path, source)
    (tmp_path / "limits.json").write_text('{"rows": 5}')
    words = ("--config", "big", "--k8sflow-config", "limits", "limits.json", "--help", "me", "--kept-quiet", "2")
    done = flow_command(file, "run", *words, cwd=tmp_path)
    assert "5 big me 2" in done.stdout, done.stderr
    done = flow_command(file, "--config", "limits", "limits.json", "run", cwd=tmp_path)
    assert "5 none  1" in done.stdout, done.stderr
