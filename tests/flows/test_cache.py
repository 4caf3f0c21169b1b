"""``@cache``: results of earlier runs are taken where nothing that matters has changed, and only there."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from k8sflow.client import Run
from k8sflow.storage.cache_index import cache_prefix
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from tests import s3server
from tests.cluster.s3 import S3Server
from tests.support import HEAD, flow_command, run_flow, run_in, write_flow

CACHED = HEAD.replace("step\n", "cache, catch, current, retry, step\n")
# Each task writes its name to a file outside of the flow's folder.
MARK = """
import os
import helpers
def mark():
    with open(os.environ["RAN"], "a") as file:
        file.write(f"{current.step_name}/{current.task_id}\\n")
"""
FLOW = (
    MARK
    + """
class Model:
    def __init__(self, n):
        self.n = n
    def predict(self):
        return self.n * 10

class F(FlowSpec):
    n = Parameter("n", default=3)
    unused = Parameter("unused", default=3)
    @cache
    @step
    def start(self):
        mark()
        self.items = list(range(self.n))
        self.passed = "anything"
        self.large = list(range(2000))
        self.next(self.work, foreach="items")
    @cache
    @step
    def work(self):
        mark()
        print("working on", self.input)
        self.y = helpers.scale(self.input)
        self.model = Model(self.input)
        self.next(self.use)
    @cache
    @step
    def use(self):
        mark()
        self.p = self.model.predict()
        self.next(self.join)
    @cache
    @step
    def join(self, inputs):
        mark()
        self.total = sum(i.y + i.p for i in inputs)
        self.next({"high": self.high, "low": self.low}, condition="kind")
    @property
    def kind(self):
        return "high" if self.total > 50 else "low"
    @cache
    @step
    def high(self):
        mark()
        self.label = "high"
        self.next(self.end)
    @cache
    @step
    def low(self):
        mark()
        self.label = "low"
        self.next(self.end)
    @step
    def end(self):
        print("total", self.total, self.label)
"""
)
HELPERS = "def scale(x):\n    return x * 2\n"
ALL = ["start/0", "work/0", "work/1", "work/2", "use/0", "use/1", "use/2", "join/0", "low/0"]


class Runs:
    """Runs of F in a folder, and which tasks have run in each.

    Args:
        folder: The folder.
        source: The flow's source.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder / "flow"
        self.ran = folder / "ran"
        self.file = write_flow(self.folder, source, head=CACHED)
        (self.folder / "helpers.py").write_text(HELPERS)

    def edit(self, name: str, old: str, new: str) -> None:
        """Edit a file."""
        path = self.folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def __call__(self, *arguments: str, code: int = 0, command: str = "run", **changes: str) -> list[str]:
        """Run the flow, and return the tasks that have run."""
        done = flow_command(self.file, command, *arguments, RAN=str(self.ran), **changes)
        assert done.returncode == code, done.stdout + done.stderr
        self.output = done.stdout
        found = self.ran.read_text().split() if self.ran.exists() else []
        self.ran.unlink(missing_ok=True)
        return sorted(found)

    @property
    def store(self) -> FolderStore:
        """The store of the runs."""
        return FolderStore(str(self.folder / ".k8sflow"))

    def run(self, name: str) -> Run:
        """Open a run."""
        return Run(RunStore(self.store, "F", name))


def test_a_second_run_takes_all_results(tmp_path: Path) -> None:
    """Through a foreach, a join and a switch; the client knows where they are from, and shows their output."""
    runs = Runs(tmp_path, FLOW)
    assert runs("--run-id", "first") == sorted(ALL)
    assert runs("--run-id", "second") == []
    assert "[work/1] cached from F/first/work/1 (" in runs.output
    assert "3 cached" in runs.output
    assert "10 tasks, 9 cached" in runs.output
    assert "total 36 low" in runs.output
    second = runs.run("second")
    task = second["work"]["1"]
    assert task.is_cached
    assert task.origin_pathspec == "F/first/work/1"
    assert task.stdout == "working on 1\n"
    assert task.data.model.predict() == 10
    assert not second["end"]["0"].is_cached
    assert second.data.total == runs.run("first").data.total
    assert runs("--run-id", "third", "--no-cache") == sorted(ALL)
    assert runs("--run-id", "fourth") == []
    assert "cached from F/third/work/1" in runs.output


def test_what_changed_runs_again_and_nothing_else(tmp_path: Path) -> None:
    """A new branch, a helper, a class that only a value brings with it, a parameter that is not read."""
    runs = Runs(tmp_path, FLOW)
    runs()
    assert runs("--n", "4") == ["high/0", "join/0", "start/0", "use/3", "work/3"]
    runs.edit("helpers.py", "x * 2", "x * 2 + 0")
    again = runs()  # a model may come with any function: those that read one run too
    assert again == ["join/0", "use/0", "use/1", "use/2", "work/0", "work/1", "work/2"]
    runs.edit("helpers.py", "x * 2 + 0", "x * 3")
    assert set(again) <= set(runs())
    assert "total 39 low" in runs.output
    runs.edit("flow.py", "self.n * 10", "self.n * 11")
    assert {"use/0", "use/1", "use/2"} <= set(runs())
    assert "total 42 low" in runs.output
    assert runs("--unused", "9") == ["join/0"]  # which may read any parameter through its inputs


def test_an_artifact_that_a_cached_step_passes_on_is_that_of_the_run(tmp_path: Path) -> None:
    """It is not the one of the origin: the step has not read it."""
    runs = Runs(tmp_path, FLOW)
    runs("--run-id", "first")
    runs.edit("flow.py", '"anything"', '"something else"')
    found = runs("--run-id", "second")
    assert "start/0" in found
    assert not {"work/0", "use/0"} & set(found)
    assert runs.run("second")["use"]["1"].data.passed == "something else"
    assert runs.run("second")["use"]["1"].data.p == 10


@pytest.mark.parametrize("change", ["version", "variable", "data"])
def test_version_environment_and_files_are_parts_of_the_key(tmp_path: Path, change: str) -> None:
    """A data file of the folder, or a variable that the step reads, makes it run again."""
    source = (
        MARK
        + """
class F(FlowSpec):
    @cache(version="1")
    @step
    def start(self):
        mark()
        with open(os.path.join(os.path.dirname(__file__), "data.txt")) as file:
            self.data = file.read() + os.environ.get("GREETING", "")
        self.next(self.end)
    @step
    def end(self):
        print("data", self.data)
"""
    )
    runs = Runs(tmp_path, source)
    (runs.folder / "data.txt").write_text("one")
    assert runs(GREETING="hello") == ["start/0"]
    assert runs(GREETING="hello") == []
    if change == "version":
        runs.edit("flow.py", 'version="1"', 'version="2"')
    if change == "data":
        (runs.folder / "data.txt").write_text("two")
    greeting = "bye" if change == "variable" else "hello"
    assert runs(GREETING=greeting) == ["start/0"]
    assert f"data {'two' if change == 'data' else 'one'}{greeting}" in runs.output


def test_an_ignored_parameter_and_an_old_result(tmp_path: Path) -> None:
    """``ignore`` leaves a parameter out, ``max_age`` refuses a result that is too old."""
    source = (
        MARK
        + """
class F(FlowSpec):
    label = Parameter("label", default="a")
    @cache(ignore=["label"], max_age=3600)
    @step
    def start(self):
        mark()
        self.made_for = self.label
        self.next(self.end)
    @step
    def end(self):
        print(self.made_for, self.label)
"""
    )
    runs = Runs(tmp_path, source)
    assert runs() == ["start/0"]
    assert runs("--label", "b") == []
    assert "a b" in runs.output
    for entry in (runs.folder / ".k8sflow").glob("F/cache/*/*/*/*"):
        text = entry.read_text()
        finished = text.partition('"finished":')[2].partition("}")[0]
        entry.write_text(text.replace(finished, str(float(finished) - 4000)))
    assert runs() == ["start/0"]


def test_results_of_retries_are_kept_and_caught_failures_are_not(tmp_path: Path) -> None:
    """A result of ``@catch`` is none of the step's."""
    source = (
        MARK
        + """
class F(FlowSpec):
    @cache
    @retry(times=1, minutes_between_retries=0)
    @step
    def start(self):
        mark()
        if current.retry_count == 0:
            raise ValueError("once")
        self.x = 1
        self.next(self.fails)
    @cache
    @catch(var="failed")
    @step
    def fails(self):
        mark()
        if os.path.exists(os.environ["RAN"] + ".broken"):
            raise ValueError("broken")
        self.next(self.end)
    @step
    def end(self):
        print("failed:", self.failed)
"""
    )
    runs = Runs(tmp_path, source)
    (tmp_path / "ran.broken").touch()
    assert runs() == ["fails/0", "start/0", "start/0"]
    assert runs() == ["fails/0"]
    (tmp_path / "ran.broken").unlink()
    assert runs() == ["fails/0"]
    assert runs() == []
    assert "failed: None" in runs.output


@pytest.mark.parametrize("lost", ["blob", "origin", "entry"])
def test_lost_results_are_a_miss(tmp_path: Path, lost: str) -> None:
    """A blob that is missing, a run that was deleted, a damaged entry."""
    runs = Runs(tmp_path, FLOW)
    runs("--run-id", "first")
    if lost == "blob":
        shutil.rmtree(runs.folder / ".k8sflow" / "F" / "blobs")
    elif lost == "origin":
        shutil.rmtree(runs.folder / ".k8sflow" / "F" / "runs" / "first")
    else:
        for entry in (runs.folder / ".k8sflow").glob("F/cache/*/*/*/*"):
            entry.write_text('{"format": 1, "parts": 3}')
    found = runs("--run-id", "second")
    assert "start/0" in found
    assert "total 36 low" in runs.output


def test_a_step_that_writes_into_the_folder_is_not_kept(tmp_path: Path) -> None:
    """Its files are a part of the key of every step, so its own key is no longer true; the output says so."""
    source = (
        MARK
        + """
class F(FlowSpec):
    @cache
    @step
    def start(self):
        mark()
        with open(os.path.join(os.path.dirname(__file__), "output.txt"), "w") as file:
            file.write("x")
        self.next(self.end)
    @step
    def end(self):
        pass
"""
    )
    runs = Runs(tmp_path, source)
    assert runs() == ["start/0"]
    assert "@cache doesn't keep this result: files of the flow's folder have changed" in runs.output
    assert "output.txt" in runs.output
    (runs.folder / ".k8sflowignore").write_text("output.txt\n")
    assert runs() == ["start/0"]
    assert runs() == []


def test_resume_and_attach_know_cached_tasks(tmp_path: Path) -> None:
    """A clone of a cached task names the run in which it ran; a step that ``resume`` names runs."""
    runs = Runs(tmp_path, FLOW)
    runs("--run-id", "first")
    runs("--run-id", "second")
    assert runs("high", "--origin-run-id", "second", "--run-id", "third", command="resume", code=1) == []
    assert runs("low", "--origin-run-id", "second", "--run-id", "third", command="resume") == ["low/0"]
    assert runs.run("third")["use"]["2"].origin_pathspec == "F/first/use/2"
    assert runs("second", command="attach") == []
    assert "succeeded" in runs.output


def test_a_step_under_parallel_is_refused(tmp_path: Path) -> None:
    """Its processes have one result together."""
    file = write_flow(
        tmp_path,
        """
class F(FlowSpec):
    @step
    def start(self):
        self.next(self.work, num_parallel=2)
    @cache
    @parallel
    @step
    def work(self):
        self.next(self.join)
    @step
    def join(self, inputs):
        self.next(self.end)
    @step
    def end(self):
        pass
""",
        head=CACHED.replace("cache,", "cache, parallel,"),
    )
    done = run_flow(file)
    assert done.returncode
    assert "@cache can't be on step work, which is under @parallel" in done.stderr


def test_gc_deletes_entries_with_their_runs(tmp_path: Path) -> None:
    """A run that has taken results keeps their blobs alive."""
    runs = Runs(tmp_path, FLOW)
    runs("--run-id", "first")
    runs("--run-id", "second")
    old = time.time() - 3 * 24 * 3600
    for blob in (runs.folder / ".k8sflow" / "F" / "blobs").glob("*/*"):
        os.utime(blob, (old, old))
    assert list(runs.store.list_keys(cache_prefix("F")))
    assert flow_command(runs.file, "gc", "--keep", "1").returncode == 0
    assert list(runs.store.list_folders("F/runs/")) == ["second"]
    assert not list(runs.store.list_keys(cache_prefix("F")))
    assert runs.run("second")["start"]["0"].data.large == list(range(2000))
    assert "start/0" in runs("--run-id", "third")


def test_why_names_the_parts_of_the_key_and_what_changed(tmp_path: Path) -> None:
    """Between the last two results, and between the last one and the current code; also without the flow's file."""
    runs = Runs(tmp_path, FLOW)
    runs("--run-id", "first")
    runs.edit("helpers.py", "x * 2", "x * 3")
    runs("--run-id", "second")
    runs.edit("helpers.py", "x * 3", "x * 4")
    done = flow_command(runs.file, "cache", "why", "work/1")
    assert done.returncode == 0, done.stderr
    assert "The key of F/second/work/1 is made of:" in done.stdout
    assert "self.input" in done.stdout
    before, _, now = done.stdout.partition("It differs from the current code")
    assert "from that of F/first/work/1:\n  changed   function helpers.scale" in before
    assert "  changed   function helpers.scale" in now
    program = str(Path(sys.executable).parent / "k8sflow")
    found = json.loads(run_in(runs.folder, program, "cache", "why", "F/work/1", "--json").stdout)
    assert found["differences"] == {"function helpers.scale": "changed"}
    assert found["differences_of_current_code"] is None
    done = flow_command(runs.file, "cache", "why", "end")
    assert done.returncode
    assert "no result of F/end is kept" in done.stderr


@pytest.mark.s3
def test_colleagues_take_each_others_results_from_a_bucket(tmp_path: Path, s3_server: S3Server) -> None:
    """From another folder of another user, with the same code."""
    bucket = {"K8SFLOW_ENDPOINT": s3_server.endpoint, "K8SFLOW_ROOT": f"s3://{s3server.BUCKET}/cache"}
    variables = {**s3server.KEYS, **s3server.NO_FILES, **bucket}
    mine, theirs = Runs(tmp_path / "mine", FLOW), Runs(tmp_path / "theirs", FLOW)
    assert mine("--run-id", "first", **variables, USER="ada") == sorted(ALL)
    theirs.ran = mine.ran  # its name is a part of the key
    assert theirs("--run-id", "second", **variables, USER="bob") == []
    assert "cached from F/first/join/0" in theirs.output
    assert "total 36 low" in theirs.output


def test_values_that_a_module_reads_from_elsewhere_are_in_the_key(tmp_path: Path) -> None:
    """In a private slot, in a dictionary that can't be pickled, and by a class that comes with an artifact."""
    source = (
        MARK
        + """
class F(FlowSpec):
    @cache
    @step
    def start(self):
        mark()
        self.slot = helpers.SLOT.get()
        self.next(self.table)
    @cache
    @step
    def table(self):
        mark()
        self.found = helpers.TABLE["a"]
        self.next(self.by_name)
    @cache
    @step
    def by_name(self):
        mark()
        self.name = getattr(helpers, "RA" + "TE")
        self.model = helpers.Model()
        self.next(self.by_artifact)
    @cache
    @step
    def by_artifact(self):
        mark()
        self.predicted = self.model.predict()
        self.next(self.end)
    @step
    def end(self):
        print("RESULT", self.slot, self.found, self.name, self.predicted)
"""
    )
    runs = Runs(tmp_path, source)
    rate = tmp_path / "rate"
    (runs.folder / "helpers.py").write_text(
        f"""
import pathlib
from collections import defaultdict
class Slot:
    __slots__ = ("__r",)
    def __init__(self, r): self.__r = r
    def get(self): return self.__r
RATE = float(pathlib.Path({str(rate)!r}).read_text())
SLOT = Slot(float(pathlib.Path({str(rate)!r}).read_text()))
TABLE = defaultdict(lambda: 0, a=float(pathlib.Path({str(rate)!r}).read_text()))
class Model:
    def predict(self): return RATE
"""
    )
    every = ["by_artifact/0", "by_name/0", "start/0", "table/0"]
    for value in ("1.5", "2.5"):
        rate.write_text(value)
        assert runs() == every
        assert f"RESULT {value} {value} {value} {value}" in runs.output
        assert runs() == []
        assert f"RESULT {value} {value} {value} {value}" in runs.output


REFUSING = (
    MARK
    + """
import requests
from k8sflow import Flow, S3
VALUES = (n for n in [1])
class F(FlowSpec):
    @cache
    @step
    def start(self):
        mark()
        self.values = str(type(helpers.VALUES))
        self.next(self.client)
    @cache
    @step
    def client(self):
        mark()
        self.runs = len(list(Flow("F")))
        self.next(self.declared)
    @cache(version=1)
    @step
    def declared(self):
        mark()
        self.more = len(list(Flow("F")))
        self.next(self.bucket)
    @cache
    @step
    def bucket(self):
        mark()
        import k8sflow
        self.s3 = k8sflow.S3.__name__
        self.next(self.web)
    @cache
    @step
    def web(self):
        mark()
        self.session = repr(requests.Session)
        self.next(self.aged)
    @cache(max_age="1d")
    @step
    def aged(self):
        mark()
        self.session = repr(requests.Session)
        self.next(self.end)
    @step
    def end(self):
        pass
"""
)


def test_a_step_that_cannot_be_compared_runs_each_time_and_says_why(tmp_path: Path) -> None:
    """A generator in a module, the client, S3 and the web; not if the user says how long a result is good."""
    runs = Runs(tmp_path, REFUSING)
    (runs.folder / "helpers.py").write_text("VALUES = (n for n in [1])\n")
    refused = ["bucket/0", "client/0", "start/0", "web/0"]
    assert set(refused) < set(runs())
    assert "@cache doesn't keep this result: helpers.VALUES has a builtins.generator, which can't be" in runs.output
    assert "its code uses k8sflow.client, and what that reads may have changed" in runs.output
    assert "its code uses k8sflow.s3" in runs.output
    assert "its code uses requests" in runs.output
    assert runs() == refused
    done = flow_command(runs.file, "cache", "why", "client", RAN=str(tmp_path / "ran"))
    assert done.returncode
    assert "The step is not cached: its code uses k8sflow.client" in done.stderr
    runs.edit("flow.py", "@cache(version=1)", "@cache")
    done = flow_command(runs.file, "cache", "why", "declared", RAN=str(tmp_path / "ran"))
    assert "The current code is not cached: its code uses k8sflow.client" in done.stdout
