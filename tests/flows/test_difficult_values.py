"""Values, names and texts that can't be shown: the rest is shown, without a traceback of k8sflow."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from tests.sources import one_step
from tests.support import flow_command, write_flow

SOURCE = """
class Broken:
    def __repr__(self):
        raise RuntimeError("no repr")
class Worse:
    def __repr__(self):
        raise SystemExit(Broken())
class Unpicklable:
    armed = False
    def __reduce__(self):
        if Unpicklable.armed:
            raise ValueError("once only")
        return (_again, ())
def _again():
    Unpicklable.armed = True
    return Unpicklable()
class F(FlowSpec):
    @step
    def start(self):
        self.a_huge = 10**6000
        self.b_broken = Broken()
        self.c_nested = {"fine": [1, Broken(), {"n": -(10**6000)}], "worse": Worse()}
        self.d_name = "caf\\udce9.csv"
        self.e_gigantic = 1 << 1_000_000
        self.f_names = {"caf\\udce9": 1, "caf\\udce8": 2}
        self.g_fine = 7
        self.next(self.end)
    @step
    def end(self): pass
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a flow with a run."""
    found = write_flow(tmp_path_factory.mktemp("values"), SOURCE)
    done = flow_command(found, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    return found


def test_dump_shows_as_much_as_possible_of_each_value(file: Path) -> None:
    """A value that fails doesn't hide those after it."""
    done = flow_command(file, "dump", "--max-value-size", "1000000")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    shown = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert shown["a_huge"].endswith(f"  1{'0' * 6000}")
    assert "<Broken whose repr raised RuntimeError: no repr>" in shown["b_broken"]
    assert (
        f"'fine': [1, <Broken whose repr raised RuntimeError: no repr>, {{'n': -1{'0' * 6000}}}]" in shown["c_nested"]
    )
    assert "<Worse whose repr raised SystemExit>" in shown["c_nested"]
    assert "'caf\\udce9.csv'" in shown["d_name"]
    assert "<int of 1,000,001 bits>" in shown["e_gigantic"]
    assert shown["g_fine"].endswith("  7")


def test_dump_json_keeps_every_text_unchanged(file: Path) -> None:
    """JSON can represent texts that UTF-8 can't; two names are two keys."""
    done = flow_command(file, "dump", "--json", "--max-value-size", "1000000")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (found,) = (each for pathspec, each in json.loads(done.stdout).items() if "/start/" in pathspec)
    assert found["d_name"]["value"] == "caf\udce9.csv"
    assert "caf\\udce9.csv" in done.stdout
    assert list(found["f_names"]["value"].items()) == [("caf\udce9", 1), ("caf\udce8", 2)]
    assert found["a_huge"]["repr"] == f"1{'0' * 6000}"
    assert "no repr" in found["b_broken"]["repr"]
    assert found["g_fine"]["value"] == 7


def test_dump_into_a_file_names_the_failing_value(tmp_path: Path) -> None:
    """A class that can't be pickled a second time is reported by k8sflow's error; without it the rest is written."""
    source = SOURCE.replace("self.a_huge = 10**6000", "self.z_once = Unpicklable()")
    file = write_flow(tmp_path, source)
    done = flow_command(file, "run")
    assert done.returncode == 0, done.stdout + done.stderr
    target = tmp_path / "values.pickle"
    done = flow_command(file, "dump", "--file", str(target))
    assert done.returncode == 1
    assert "the values can't be pickled: ValueError: once only" in done.stderr
    assert "Traceback" not in done.stderr
    assert flow_command(file, "dump", "--file", str(target), "--include", "g_fine").returncode == 0
    assert [7] in [list(each.values()) for each in pickle.loads(target.read_bytes()).values()]


FAILS = """
from k8sflow import catch
class Silent(Exception):
    def __str__(self):
        raise KeyError("no text")
class F(FlowSpec):
    @step
    def start(self):
        self.items = [0, 1]
        self.next(self.work, foreach="items")
    @catch(var="problem")
    @step
    def work(self):
        if self.index == 0:
            raise FileNotFoundError("caf\\udce9.csv")
        if self.index == 1:
            raise Silent
        self.next(self.join)
    @step
    def join(self, inputs):
        self.problems = [str(branch.problem) for branch in inputs]
        assert "caf\\udce9.csv" in self.problems[0]
        self.next(self.end)
    @step
    def end(self):
        raise ValueError("caf\\udce9.csv")
"""


def test_texts_of_exceptions_keep_names_that_are_not_utf8(tmp_path: Path) -> None:
    """They are kept in @catch's artifact, on the terminal, in `logs` and in `runs --json`."""
    file = write_flow(tmp_path, FAILS)
    done = flow_command(file, "run")
    assert done.returncode == 1
    assert "ValueError: caf\\udce9.csv" in done.stdout
    assert "AssertionError" not in done.stdout
    for words in (("logs",), ("logs", "--json"), ("runs",), ("runs", "--json"), ("dump",), ("dump", "--json")):
        shown = flow_command(file, *words)
        assert shown.returncode == 0, (words, shown.stderr)
        assert "k8sflow/cli" not in shown.stdout + shown.stderr
    document = flow_command(file, "dump", "--json").stdout
    assert "caf\\udce9.csv" in document


@pytest.mark.parametrize(
    ("body", "summary", "advice"),
    [
        ("breakpoint()", "the step stopped in a debugger", "run_step"),
        ("import pdb; pdb.set_trace()", "the step stopped in a debugger", "run_step"),
        ("input('name? ')", "EOFError: EOF when reading a line", "as a Parameter"),
    ],
)
def test_a_step_that_reads_from_a_terminal_is_advised(tmp_path: Path, body: str, summary: str, advice: str) -> None:
    """A task has none; frames of the debugger are omitted."""
    done = flow_command(write_flow(tmp_path, one_step(body)), "run")
    assert done.returncode == 1
    assert summary in done.stdout
    assert advice in done.stdout
    assert "bdb.py" not in done.stdout
    assert 'flow.py", line' in done.stdout


def test_a_users_own_end_of_file_is_left_unchanged(tmp_path: Path) -> None:
    """It has nothing to do with a terminal."""
    source = """
        class F(FlowSpec):
            @step
            def start(self):
                raise EOFError("the archive is cut off")
            @step
            def end(self): pass
    """.replace('cut off")\n', 'cut off")\n                self.next(self.end)\n')
    done = flow_command(write_flow(tmp_path, source), "run")
    assert "EOFError: the archive is cut off" in done.stdout
    assert "Parameter" not in done.stdout


def test_spin_shows_as_much_as_possible_too(file: Path) -> None:
    """The step's artifacts are shown."""
    done = flow_command(file, "spin", "start")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "<Broken whose repr raised RuntimeError: no repr>" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_an_exit_with_a_difficult_value_is_the_steps_failure(tmp_path: Path) -> None:
    """It is not reported as one of the process."""
    source = """
        class Broken:
            def __repr__(self):
                raise RuntimeError("no repr")
        class F(FlowSpec):
            @step
            def start(self):
                raise SystemExit(Broken())
                self.next(self.end)
            @step
            def end(self): pass
    """
    done = flow_command(write_flow(tmp_path, source), "run")
    assert done.returncode == 1
    assert "the step called sys.exit(<Broken whose repr raised RuntimeError: no repr>)" in done.stdout
