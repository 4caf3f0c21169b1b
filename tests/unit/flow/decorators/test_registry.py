"""The registry of decorators: k8sflow's and those of installed packages, by name and by ``--with``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k8sflow import resources
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators import registry
from k8sflow.flow.decorators.base import Decoration, Decorator, Option
from k8sflow.flow.decorators.kubernetes import kubernetes
from k8sflow.flow.decorators.registry import parse
from tests.support import run_flow, write_flow

PLUGIN = """
from k8sflow.flow.decorators.base import Decorator, Option

def around(step_name, flow, inputs, attributes):
    flow.loudness = attributes["volume"]
    print("before", step_name)
    yield
    print("after", step_name)

DIGEST = f"a:5000/b@sha256:{'c' * 64}"
loud = Decorator("loud", "prints around the step", (Option(int, "a number", "volume", 3),), around=around)
broken = 5
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package that provides decorators."""
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


def test_an_installed_package_provides_a_decorator(plugin: Path) -> None:
    """It has an entry point; ``--with`` finds the decorator, which parses its options."""
    found = registry.parse("loud:volume=5")
    assert (found.name, found.options) == ("loud", {"volume": "5"})
    assert found.parsed() == {"volume": 5}
    with pytest.raises(FlowDefinitionError, match="can't be used with volume='x'"):
        registry.parse("loud:volume=x")


def test_a_secret_of_a_plugin_is_not_taken_from_the_command_line() -> None:
    """It would be stored with the run, and shown in the hints for resuming it."""
    vault = Decorator("vault", "a secret", (Option(str, "a token", "token"),), is_secret=True)
    assert registry.parse("vault", {"vault": vault}).options == {}
    with pytest.raises(FlowDefinitionError, match="would be stored with the run") as refused:
        registry.parse("vault:token=hunter2", {"vault": vault})
    assert "hunter2" not in str(refused.value)


def test_a_broken_plugin_is_reported(plugin: Path) -> None:
    """The error has the name of its package."""
    with pytest.raises(FlowDefinitionError, match="of the package loudness is an int, not a decorator"):
        registry.parse("broken")
    with pytest.raises(FlowDefinitionError, match="'lost' of the package loudness can't be loaded"):
        registry.parse("lost")


def test_an_unknown_decorator_is_reported_with_the_known_ones(plugin: Path) -> None:
    """The list includes those of installed packages, and the closest is proposed."""
    with pytest.raises(FlowDefinitionError, match="Did you mean 'retry'") as raised:
        registry.parse("rety:times=3")
    assert "loud" in raised.value.advice
    with pytest.raises(FlowDefinitionError, match=r"no decorator 'no\.such'"):
        registry.parse("no.such")


def test_a_plugin_runs_around_the_steps_of_a_run(plugin: Path, tmp_path: Path) -> None:
    """It is imported by the flow or added by ``--with``; the step's own options win."""
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
    path = f"{Path(__file__).parents[4]}:{plugin}"
    done = run_flow(write_flow(tmp_path, source), "--with", "loud:volume=4", PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.partition("] ")[2] for line in done.stdout.splitlines() if line.startswith("[")]
    printed = [line for line in lines if line.startswith(("before", "after", "volume"))]
    assert printed == ["before start", "volume 7", "after start", "before end", "volume 4", "after end"]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ('kubernetes:node_selector={"a": "b", "c": "d"},cpu=2', {"node_selector": {"a": "b", "c": "d"}, "cpu": "2"}),
        ('kubernetes:tolerations=[{"key": "a,b"}]', {"tolerations": [{"key": "a,b"}]}),
        ("retry:times=5,minutes_between_retries=0", {"times": "5", "minutes_between_retries": "0"}),
    ],
)
def test_a_value_of_with_may_be_json(text: str, options: dict[str, Any]) -> None:
    """Brackets and quotes may contain commas."""
    assert registry.parse(text).options == options
    with pytest.raises(FlowDefinitionError, match="is not JSON"):
        registry.parse("kubernetes:node_selector={a}")


@pytest.mark.parametrize(
    ("text", "decoration"),
    [
        ("kubernetes", Decoration(kubernetes, {})),
        ("kubernetes:", Decoration(kubernetes, {})),
        (
            "kubernetes:image=a:5000/b@sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
            Decoration(
                kubernetes,
                {"image": "a:5000/b@sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"},
            ),
        ),
        ("resources:cpu=2, memory=4Gi", Decoration(resources, {"cpu": "2", "memory": "4Gi"})),
    ],
)
def test_with_names_a_decorator(text: str, decoration: Decoration) -> None:
    """Options follow a colon."""
    assert parse(text) == decoration


@pytest.mark.parametrize(
    "text",
    ["", "btach", "kubernetes:image", "kubernetes:imagge=x", "resources:image=x", ":", "kubernetes:cpu=no", "=,="],
)
def test_a_wrong_with_is_an_error(text: str) -> None:
    """Unknown names, unknown options and wrong values are refused."""
    with pytest.raises(FlowDefinitionError):
        parse(text)
