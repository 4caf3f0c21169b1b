"""Options and commands of Metaflow's are errors that say what to use."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from k8sflow.cli.main import main
from k8sflow.cli.metaflow_words import advice
from tests.support import flow_command, write_flow

FLOW = """
    class F(FlowSpec):
        @step
        def start(self): self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("logs --both start", "logs shows both streams"),
        ("spin start --no-persist", "spin always keeps the results"),
        ("card list start --as-json", "--json prints JSON"),
    ],
)
def test_an_option_says_what_to_use(tmp_path: Path, words: str, sentence: str) -> None:
    done = flow_command(write_flow(tmp_path, FLOW), *words.split())
    assert done.returncode == 2
    assert sentence in done.stderr


def test_other_errors_have_nothing_to_add() -> None:
    assert advice(click.NoSuchOption("--nonsense")) is None
    assert advice(click.UsageError("--both")) is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("configure kubernetes --profile x", "config set KEY VALUE"),
        ("status", "doctor checks them"),
        ("tutorials pull", "python -m k8sflow.as_metaflow FILE run"),
        ("develop stubs install", "types inline"),
    ],
)
def test_a_command_says_what_to_use(words: str, sentence: str) -> None:
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == 1
    assert f"no command {words}, which Metaflow has" in done.stderr
    assert sentence in done.stderr
