"""The door for decorators: ours and those of installed packages, by name and by ``--with``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k8sflow import step
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators import base, registry
from k8sflow.flow.decorators.base import Decoration, Decorator, Option
from k8sflow.flow.decorators.kubernetes import kubernetes
from tests.support import run_flow, write_flow

PLUGIN = """
from k8sflow.flow.decorators.base import Decorator, Option

def around(step_name, flow, inputs, attributes):
    flow.loudness = attributes["volume"]
    print("before", step_name)
    yield
    print("after", step_name)

loud = Decorator("loud", "prints around the step", (Option(int, "a number", "volume", 3),), around=around)
broken = 5
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package that brings decorators."""
    folder = tmp_path / "site"
    about = folder / "loudness-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: loudness\nVersion: 1.0\n")
    points = "loud = loudness:loud\nbroken = loudness:broken\nlost = nowhere:lost\n"
    (about / "entry_points.txt").write_text(f"[k8sflow.decorators]\n{points}")
    (folder / "loudness.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("loudness", None)


def test_an_installed_package_brings_a_decorator(plugin: Path) -> None:
    """By an entry point; ``--with`` finds it, and its options are parsed by it."""
    found = registry.parse("loud:volume=5")
    assert (found.name, found.options) == ("loud", {"volume": "5"})
    assert found.parsed() == {"volume": 5}
    with pytest.raises(FlowDefinitionError, match="can't be used with volume='x'"):
        registry.parse("loud:volume=x")


def test_a_plugin_that_is_broken_is_told(plugin: Path) -> None:
    """With the name of its package."""
    with pytest.raises(FlowDefinitionError, match="of the package loudness is a int, not a decorator"):
        registry.parse("broken")
    with pytest.raises(FlowDefinitionError, match="'lost' of the package loudness can't be loaded"):
        registry.parse("lost")


def test_an_unknown_decorator_is_told_with_all_that_there_are(plugin: Path) -> None:
    """Those of installed packages too; the closest is proposed."""
    with pytest.raises(FlowDefinitionError, match="Did you mean 'retry'") as told:
        registry.parse("rety:times=3")
    assert "loud" in told.value.advice
    with pytest.raises(FlowDefinitionError, match=r"no decorator 'no\.such'"):
        registry.parse("no.such")


def test_a_plugin_runs_around_the_steps_of_a_run(plugin: Path, tmp_path: Path) -> None:
    """Imported by the flow, and added by ``--with``; the step's own options win."""
    source = """
        from loudness import loud
        class F(FlowSpec):
            @loud(volume=7)
            @step
            def start(self):
                print("volume", self.loudness)
                self.next(self.end)
            @step
            def end(self): print("volume", self.loudness)
    """
    path = f"{Path(__file__).parents[3]}:{plugin}"
    done = run_flow(write_flow(tmp_path, source), "--with", "loud:volume=4", PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.partition("] ")[2] for line in done.stdout.splitlines() if line.startswith("[")]
    told = [line for line in lines if line.startswith(("before", "after", "volume"))]
    assert told == ["before start", "volume 7", "after start", "before end", "volume 4", "after end"]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ('kubernetes:node_selector={"a": "b", "c": "d"},cpu=2', {"node_selector": {"a": "b", "c": "d"}, "cpu": "2"}),
        ('kubernetes:tolerations=[{"key": "a,b"}]', {"tolerations": [{"key": "a,b"}]}),
        ("retry:times=5,minutes_between_retries=0", {"times": "5", "minutes_between_retries": "0"}),
    ],
)  # fmt: skip
def test_a_value_of_with_may_be_json(text: str, options: dict[str, Any]) -> None:
    """With commas inside of brackets and quotes."""
    assert registry.parse(text).options == options
    with pytest.raises(FlowDefinitionError, match="is not JSON"):
        registry.parse("kubernetes:node_selector={a}")


def test_a_mistake_tells_its_line_and_what_was_meant() -> None:
    """In the file of the flow, not in ours."""
    line = inspect.currentframe().f_lineno + 2  # type: ignore[union-attr]
    with pytest.raises(FlowDefinitionError, match="Did you mean 'memory'") as told:
        kubernetes(memori=5)(test_an_installed_package_brings_a_decorator)
    assert f"{__file__}:{line}: @kubernetes has no option 'memori'." in str(told.value)
    with pytest.raises(FlowDefinitionError, match="takes its options by name, not 3"):
        kubernetes(3)(test_an_installed_package_brings_a_decorator)


def test_a_decorator_is_written_with_and_without_parentheses() -> None:
    """And knows its options, for help() and editors."""

    @kubernetes
    @step
    def start(self: Any) -> None: ...

    @kubernetes()
    @step
    def other(self: Any) -> None: ...

    assert base.of(start) == base.of(other) == (Decoration(kubernetes, {}),)
    assert "memory" in inspect.signature(kubernetes).parameters
    assert list(inspect.signature(Decorator("any", "any", None)).parameters) == ["options"]
    on_flow = Decorator("marked", "", (Option(str, "x", "x"),), on="flow")
    with pytest.raises(FlowDefinitionError, match="not a flow's class"):
        on_flow(x="1")(start)
