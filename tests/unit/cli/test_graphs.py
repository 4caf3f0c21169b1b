"""`check`, `show` and `graph` of a flow's file."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from k8sflow.cli.flow import _group
from k8sflow.flow.compile import declared
from k8sflow.flow.decorators.mutators import mutated
from tests.support import load_flow, write_flow

SOURCE = """
    class F(FlowSpec):
        n = Parameter("n", default=2, help="How many.")
        @step
        def start(self): self.next(self.a, self.b)
        @step
        def a(self): self.next(self.join)
        @step
        def b(self): self.next(self.join)
        @step
        def join(self, inputs): self.next(self.end)
        @step
        def end(self): pass
"""


def _call(folder: Path, *arguments: str, source: str = SOURCE) -> Result:
    return CliRunner().invoke(_group(mutated(declared(load_flow(write_flow(folder, source))))), arguments)


def test_a_graph_is_drawn_on_the_terminal(tmp_path: Path) -> None:
    """In lines; for other programs in their languages."""
    assert " ╭┴─╮" in _call(tmp_path, "graph").stdout
    assert "++-+" in _call(tmp_path, "graph", "--format", "ascii").stdout
    assert _call(tmp_path, "graph", "--format", "mermaid").stdout.startswith("flowchart TD\n")
    assert _call(tmp_path, "graph", "--format", "dot").stdout.startswith('digraph "F" {\n')
    assert ET.fromstring(_call(tmp_path, "graph", "--format", "svg").stdout).tag.endswith("svg")


@pytest.mark.parametrize(
    ("name", "begin"), [("g.svg", "<svg"), ("g.dot", "digraph"), ("g.mmd", "flowchart"), ("g.txt", "start\n")]
)
def test_a_file_tells_its_format(tmp_path: Path, name: str, begin: str) -> None:
    """Unless one is named."""
    done = _call(tmp_path, "graph", "-o", str(tmp_path / name))
    assert done.exit_code == 0, done.output
    assert (tmp_path / name).read_text().startswith(begin)
    _call(tmp_path, "graph", "--format", "mermaid", "--output", str(tmp_path / name))
    assert (tmp_path / name).read_text().startswith("flowchart")


def test_a_file_is_not_what_its_name_does_not_say(tmp_path: Path) -> None:
    """A picture in a format that we can't draw is refused, and nothing is written."""
    done = _call(tmp_path, "graph", "-o", str(tmp_path / "x.png"))
    assert done.exit_code == 1
    assert "x.png has no extension of a format" in done.stderr
    assert not (tmp_path / "x.png").exists()


def test_a_file_that_can_not_be_written_is_reported(tmp_path: Path) -> None:
    """With exit code 1."""
    done = _call(tmp_path, "graph", "-o", "/nowhere/g.svg")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "can't be written to /nowhere/g.svg" in done.stderr


def test_programs_read_the_graph(tmp_path: Path) -> None:
    """Steps in the order of the source, and the parameters."""
    for command in ("graph", "show"):
        document = json.loads(_call(tmp_path, command, "--json").stdout)
        assert [step["name"] for step in document["steps"]] == ["start", "a", "b", "join", "end"]
        assert (document["start"], document["end"]) == ("start", "end")
    assert document["parameters"] == [{"name": "n", "type": "int", "required": False, "help": "How many."}]


def test_programs_read_the_mistakes(tmp_path: Path) -> None:
    """Each with its file and line; the exit code tells that there are any."""
    fine = _call(tmp_path, "check", "--json")
    assert (fine.exit_code, json.loads(fine.stdout)) == (0, {"flow": "F", "steps": 5, "mistakes": []})
    wrong = SOURCE.replace("self.next(self.end)", "self.next(self.ende)").replace("self.a, self.b", "self.a, self.c")
    done = _call(tmp_path / "wrong", "check", "--json", source=wrong)
    mistakes = json.loads(done.stdout)["mistakes"]
    assert done.exit_code == 1
    assert [mistake["line"] for mistake in mistakes] == [6, 12]
    assert "'c'" in mistakes[0]["message"]
    assert "Did you mean 'end'" in mistakes[1]["advice"]
