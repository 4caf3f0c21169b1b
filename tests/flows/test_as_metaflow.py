"""Flows that import from ``metaflow``, unchanged, where Metaflow itself is installed too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from k8sflow import Run
from tests.support import environment, latest, run_in, write_flow

HEAD = "import metaflow\nfrom metaflow import FlowSpec, Parameter, Runner, current, parallel_map, step\n"
SOURCE = """
    import helper

    class F(FlowSpec):
        n = Parameter("n", default=3)

        @metaflow.retry(times=1, minutes_between_retries=0)
        @step
        def start(self):
            self.items = list(range(self.n))
            self.next(self.work, foreach="items")

        @metaflow.card
        @step
        def work(self):
            from metaflow.exception import MetaflowException
            assert issubclass(helper.Mistake, MetaflowException)
            self.squares = parallel_map(lambda x: x * x, [self.input], max_parallel=1)
            self.next(self.join)

        @step
        def join(self, inputs):
            self.total = helper.Box(sum(sum(found.squares) for found in inputs))
            self.homes = {metaflow.FlowSpec.__module__, metaflow.cards.Table.__module__, helper.Flow.__module__}
            self.next(self.end)

        @step
        def end(self):
            pass
"""
HELPER = """
from metaflow import Flow
from metaflow.cards import Table
from metaflow.exception import MetaflowException

class Mistake(MetaflowException):
    pass

class Box:
    def __init__(self, value):
        self.value = value
"""
COMMAND = ("-m", "k8sflow.as_metaflow")


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The variables by which Metaflow itself is found; nothing may import it."""
    package = tmp_path / "installed" / "metaflow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('this is Metaflow itself')\n")
    return {"PYTHONPATH": f"{package.parent}:{environment()['PYTHONPATH']}"}


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/helper.py").write_text(HELPER)
    return write_flow(tmp_path / "flows", SOURCE, head=HEAD)


def run_as(folder: Path, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return run_in(folder, sys.executable, *COMMAND, *words, **changes)


def test_a_flow_and_its_modules_get_k8sflows_names(flow: Path, installed: dict[str, str]) -> None:
    done = run_as(flow.parent, "flow.py", "run", **installed)
    assert done.returncode == 0, done.stderr
    run = latest(flow.parent)
    assert run.record.as_metaflow
    assert run.data.homes == {"k8sflow.flow.spec", "k8sflow.cards.tables", "k8sflow.client.flow"}


def test_its_classes_are_read_by_a_process_without_metaflow(flow: Path) -> None:
    done = run_as(flow.parent, "flow.py", "run", "--n", "4")
    assert done.returncode == 0, done.stderr
    code = "from k8sflow import Flow; print('total', Flow('F').latest_run.data.total.value)"
    read = run_in(flow.parent, sys.executable, "-c", code)
    assert "total 14" in read.stdout, read.stderr


def test_it_works_from_another_folder_and_for_modules(flow: Path, installed: dict[str, str]) -> None:
    done = run_as(flow.parent.parent, "flows/flow.py", "run", **installed)
    assert done.returncode == 0, done.stderr
    done = run_as(flow.parent, "-m", "flow", "run", **installed)
    assert done.returncode == 0, done.stderr


def test_the_next_commands_are_those_that_work(flow: Path, installed: dict[str, str]) -> None:
    source = flow.read_text().replace("sum(sum(", "1 / 0 + sum(sum(")
    flow.write_text(source)
    done = run_as(flow.parent, "flow.py", "run", "--run-id", "r1", **installed)
    assert done.returncode == 1
    assert "-m k8sflow.as_metaflow flow.py resume --origin-run-id r1" in done.stdout + done.stderr
    flow.write_text(source.replace("1 / 0 + ", ""))
    done = run_as(flow.parent, "flow.py", "resume", "--origin-run-id", "r1", **installed)
    assert done.returncode == 0, done.stderr


def test_a_script_runs_flows(flow: Path, installed: dict[str, str]) -> None:
    (flow.parent / "drive.py").write_text(
        "from metaflow import Runner\n"
        "with Runner('flow.py', show_output=False).run(n=2) as running:\n"
        "    print('total', running.run.data.total.value, running.command)\n"
    )
    done = run_as(flow.parent, "drive.py", **installed)
    assert "total 1 " in done.stdout, done.stderr
    assert "-m k8sflow.as_metaflow flow.py run" in done.stdout


def test_a_missing_name_says_what_to_use(tmp_path: Path, installed: dict[str, str]) -> None:
    (tmp_path / "a.py").write_text("from metaflow import package_sources\n")
    (tmp_path / "b.py").write_text("import metaflow.datastore.flow_datastore\n")
    assert "is packaged whole" in run_as(tmp_path, "a.py", **installed).stderr
    assert "k8sflow has no module datastore, which Metaflow may have" in run_as(tmp_path, "b.py", **installed).stderr


def test_usage(tmp_path: Path) -> None:
    assert run_as(tmp_path).returncode == 2
    assert run_as(tmp_path, "--help").stdout.startswith("Usage: python -m k8sflow.as_metaflow FILE")
    assert "there is no file nowhere.py" in run_as(tmp_path, "nowhere.py", "run").stderr


def test_a_notebook_installs_it(tmp_path: Path, installed: dict[str, str]) -> None:
    code = "from k8sflow.as_metaflow import install; install(); from metaflow.client.core import Run; print(Run)"
    done = run_in(tmp_path, sys.executable, "-c", code, **installed)
    assert Run.__module__ in done.stdout, done.stderr
    late = run_in(
        tmp_path, sys.executable, "-c", "import sys; sys.modules['metaflow'] = sys; " + code.partition("; from")[0]
    )
    assert "metaflow was imported before k8sflow could take its name" in late.stderr


def test_modules_of_metaflow_are_below_k8sflow(tmp_path: Path) -> None:
    code = """
from k8sflow.client.core import Run
from k8sflow.plugins.cards.card_modules.components import Markdown
from k8sflow.metaflow_config import DEFAULT_DATASTORE
from k8sflow.plugins import decorator
from k8sflow._vendor import click
from k8sflow.flowspec import *
import k8sflow, click as own
assert Run is k8sflow.Run and click is own and FlowSpec is k8sflow.FlowSpec
"""
    done = run_in(tmp_path, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr


def test_pytorch_parallel_is_parallel(tmp_path: Path) -> None:
    source = """
    class F(FlowSpec):
        @step
        def start(self):
            self.next(self.train, num_parallel=2)
        @{decorator}
        @step
        def train(self):
            import os
            self.got = (os.environ["WORLD_SIZE"], os.environ["MASTER_PORT"])
            self.next(self.join)
        @step
        def join(self, inputs):
            self.got = {{found.got for found in inputs}}
            self.next(self.end)
        @step
        def end(self):
            pass
    """
    head = "from k8sflow import FlowSpec, pytorch_parallel, step\n"
    file = write_flow(tmp_path, source.format(decorator="pytorch_parallel(master_port=29123)"), head=head)
    done = run_in(tmp_path, sys.executable, str(file), "run")
    assert done.returncode == 0, done.stderr
    assert latest(tmp_path).data.got == {("2", "29123")}
    write_flow(tmp_path, source.format(decorator="pytorch_parallel"), head=head)
    done = run_in(tmp_path, sys.executable, str(file), "check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("is_installed", [True, False], ids=["beside Metaflow", "alone"])
def test_processes_of_multiprocessing_have_it(
    tmp_path: Path, installed: dict[str, str], method: str, is_installed: bool
) -> None:
    """They import the flow's file again, for the function that they run."""
    source = """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    def home(_):
        return metaflow.Run.__module__

    class F(FlowSpec):
        @step
        def start(self):
            context = multiprocessing.get_context("METHOD")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                self.homes = list(pool.map(home, [1]))
            self.next(self.end)
        @step
        def end(self):
            pass
    """
    head = "import metaflow\nfrom metaflow import FlowSpec, step\n"
    file = write_flow(tmp_path, source.replace("METHOD", method), head=head)
    done = run_as(tmp_path, file.name, "run", **(installed if is_installed else {}))
    assert done.returncode == 0, done.stderr
    assert latest(tmp_path).data.homes == ["k8sflow.client.run"]
