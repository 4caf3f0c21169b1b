"""One model trained by PyTorch in several pods, as docs/flows.md has it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.kind.conftest import Namespace

PAGE = Path(__file__).parents[2] / "docs" / "flows.md"
SMALL = ("--with", "kubernetes:cpu=0.2,memory=1000")
# A run of both flows on the machine that a pod is, which has PyTorch.
LOCAL = """
import os
import subprocess
import sys
from pathlib import Path

from k8sflow import FlowSpec, step

HERE = Path(__file__).parent


class Local(FlowSpec):
    @step(start=True, end=True)
    def only(self):
        os.chdir("/tmp")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("K8SFLOW_", "AWS_"))}
        for name in ("distributed.py", "launched.py"):
            subprocess.run([sys.executable, HERE / name, "run"], check=True, env=kept)


if __name__ == "__main__":
    Local()
"""
# What the flow's file and its steps draw, beside what a new interpreter draws, in a local run on that machine.
SEEDED = """
import random
import subprocess
import sys

import numpy
import torch

from k8sflow import FlowSpec, step

DRAW = (
    "torch.rand(1).item(), random.random(), numpy.random.rand(), "
    "float((torch.ones(500, 500) @ torch.ones(500, 500)).sum())"
)
DRAWN = eval(DRAW)


class Seeded(FlowSpec):
    @step
    def start(self):
        self.branches = [0, 1, 2]
        self.next(self.draw, foreach="branches")

    @step
    def draw(self):
        self.drawn = DRAWN, eval(DRAW)
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.drawn = [branch.drawn for branch in inputs]
        self.next(self.end)

    @step
    def end(self):
        code = f"import random, numpy, torch; print([({DRAW}), ({DRAW})])"
        new = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        print({"new": eval(new), "tasks": self.drawn})


if __name__ == "__main__":
    Seeded()
"""


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """A folder with the files of the page."""
    for text in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        name = re.match(r"# (fit|distributed|launched)\.py\n", text)
        if name:
            (tmp_path / f"{name[1]}.py").write_text(text)
    return tmp_path


@pytest.fixture
def torch(namespace: Namespace) -> dict[str, str]:
    """The variables of runs in an image with PyTorch."""
    return {"K8SFLOW_KUBERNETES_IMAGE": namespace.cluster.torch_image()}


def test_steps_train_one_model(
    namespace: Namespace, client: Callable[[str], Any], flows: Path, torch: Mapping[str, str]
) -> None:
    """Two processes over gloo, each with its own data: they end with the same weights, and with losses of their own."""
    done = namespace.run(flows / "distributed.py", *SMALL, **torch)
    assert done.code == 0, done.text
    check(client(done.run).data.results, nodes=2, processes=2)


def test_torchrun_trains_one_model(
    namespace: Namespace, client: Callable[[str], Any], flows: Path, torch: Mapping[str, str]
) -> None:
    """Without any option: two processes in each of two pods."""
    done = namespace.run(flows / "launched.py", *SMALL, **torch)
    assert done.code == 0, done.text
    check(client(done.run).data.results, nodes=2, processes=4)


def check(results: list[dict[str, Any]], *, nodes: int, processes: int) -> None:
    """The results are those of a model that was trained on the data of all processes."""
    assert [result["processes"] for result in results] == [processes] * nodes
    assert len({tuple(result["weights"]) for result in results}) == 1
    assert len({result["loss"] for result in results}) == nodes
    assert results[0]["weights"] == pytest.approx([2, -3], abs=0.5)
    assert all(result["loss"] < 2 for result in results)


def test_processes_of_one_machine_train_one_model(namespace: Namespace, flows: Path, torch: Mapping[str, str]) -> None:
    """Both ways, in local runs: the machine is a pod, since this one may have no PyTorch."""
    (flows / "local.py").write_text(LOCAL)
    done = namespace.run(flows / "local.py", *SMALL, **torch)
    assert done.code == 0, done.text
    found = [ast.literal_eval(text) for text in re.findall(r"\[end/0\] (\{.*\})$", done.text, re.MULTILINE)]
    check(found[:2], nodes=2, processes=2)
    check(found[2:], nodes=2, processes=4)


def test_tasks_draw_as_new_interpreters_do(namespace: Namespace, flows: Path, torch: Mapping[str, str]) -> None:
    """Each has its own seeds, at the import of the flow's file and in the step."""
    (flows / "seeded.py").write_text(SEEDED)
    (flows / "local.py").write_text(LOCAL.replace('("distributed.py", "launched.py")', '("seeded.py",)'))
    done = namespace.run(flows / "local.py", *SMALL, **torch)
    assert done.code == 0, done.text
    (drawn,) = [ast.literal_eval(text) for text in re.findall(r"\[end/0\] (\{.*\})$", done.text, re.MULTILINE)]
    drawn = [*drawn["tasks"], drawn["new"]]
    for place in (0, 1):
        assert {each[place][3] for each in drawn} == {500.0**3}
        for generator in (0, 1, 2):
            assert len({each[place][generator] for each in drawn}) == len(drawn)
