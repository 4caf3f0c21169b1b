"""Decorators of steps in runs: applied twice, of both kinds, around every way in which a step can end."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from k8sflow.client import Run
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from tests.support import flow_command, run_flow, write_flow

HEAD = """from k8sflow import (
    FlowMutator, FlowSpec, StepMutator, UserStepDecorator, catch, environment, exit_hook, kubernetes, project,
    resources, retry, secrets, step, timeout, trigger, user_step_decorator)
import os

@user_step_decorator
def log(step_name, flow, inputs, attributes):
    flow.words = [*getattr(flow, "words", []), attributes.get("word", "word")]
    yield

"""


def flow(decorators: str = "", body: str = "pass", above: str = "") -> str:
    """Return a flow whose start has some decorators."""
    source = f"{textwrap.dedent(above)}class F(FlowSpec):\n"
    source += "".join(f"    {line}\n" for line in decorators.splitlines())
    return (
        source
        + f"""    @step
    def start(self):
        {body}
        self.next(self.end)
    @step
    def end(self):
        pass
"""
    )


def run(folder: Path, source: str, *arguments: str) -> tuple[Any, Run]:
    """Run a flow, and return its records."""
    done = run_flow(write_flow(folder, source, head=HEAD), "--run-id", "r", *arguments)
    return done, Run(RunStore(FolderStore(str(folder / ".k8sflow")), "F", "r"))


@pytest.mark.parametrize("error", ["StopIteration", "StopAsyncIteration", "GeneratorExit", "KeyboardInterrupt"])
@pytest.mark.parametrize("decorator", ["@environment(vars={'A': '1'})", "@catch(var='e')", "@log", "@measured"])
def test_stop_iteration_in_a_step_is_raised_unchanged(tmp_path: Path, decorator: str, error: str) -> None:
    """This holds under a decorator too; no frame of k8sflow is shown."""
    above = "class measured(UserStepDecorator):\n    pass\n\n"
    body = "next(row for row in [1] if row > 5)" if error == "StopIteration" else f"raise {error}"
    _, found = run(tmp_path, flow(decorator, body, above))
    record = found.run_store.read_outcome("start", "0", 0)
    assert record is not None
    assert record.error_type == f"builtins.{error}"
    assert "RuntimeError" not in record.detail
    assert "k8sflow/task" not in record.detail
    assert "in start\n" in record.detail


def test_a_decorator_that_yields_again_after_an_error_is_a_mistake(tmp_path: Path) -> None:
    """It can't run the step once more; it would hide the error."""
    above = """
        @user_step_decorator
        def again(step_name, flow, inputs, attributes):
            try:
                yield
            except ValueError:
                yield

        """
    done, _ = run(tmp_path, flow("@again", "raise ValueError('no')", above))
    assert done.returncode == 1
    assert "@again yielded twice" in done.stdout


@pytest.mark.parametrize(
    ("decorator", "words"),
    [
        ("yields(0)", "@yields did not yield"),
        ("yields(2)", "@yields yielded twice"),
        ("yields(5)", "@yields yielded 5"),
        ("returns", "post_step of @returns returned 5"),
    ],
)
def test_what_is_wrong_with_a_decorator_comes_without_our_frames(tmp_path: Path, decorator: str, words: str) -> None:
    """Under @catch too, which prints the traceback."""
    above = """
        @user_step_decorator
        def yields(step_name, flow, inputs, attributes):
            if attributes["count"] == 5:
                yield 5
            for _ in range(attributes["count"]):
                yield

        class returns(UserStepDecorator):
            def post_step(self, step_name, flow, exception=None):
                return 5

        """
    written = decorator.replace("(", "(count=")
    for folder, more in ((tmp_path / "bare", ""), (tmp_path / "caught", "@catch(var='failed')\n")):
        folder.mkdir()
        done, _ = run(folder, flow(f"{more}@{written}", "pass", above))
        assert words in done.stdout
        assert "k8sflow/task" not in done.stdout + done.stderr
        assert "k8sflow/flow" not in done.stdout + done.stderr


def test_a_decorator_that_is_applied_twice_works_twice(tmp_path: Path) -> None:
    """The topmost is first; so is one of a class, and one above another's options."""
    above = """
        class tag(UserStepDecorator):
            def init(self, word="tag"):
                self.word = word
            def pre_step(self, step_name, flow, inputs=None):
                flow.words = [*getattr(flow, "words", []), self.word]

        """
    done, found = run(tmp_path, flow("@log(word='a')\n@tag(word='b')\n@log(word='c')\n@tag\n@log", above=above))
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["start"].task.data.words == ["a", "b", "c", "tag", "word"]


def test_variables_and_secrets_of_several_decorators_are_combined(tmp_path: Path) -> None:
    """They are set when the flow is imported; for a duplicate name the decorator next to the step wins."""
    decorators = """@environment(vars={'A': 'upper', 'B': 'upper'})
@environment(vars={'B': 'lower', 'C': 'lower'})
@secrets(sources=[{'S': 's'}])
@secrets(sources=[{'T': 't'}])"""
    above = "AT_IMPORT = [os.environ.get(name) for name in 'ABC']\n\n"
    body = "self.seen = ([os.environ.get(name) for name in 'ABCST'], AT_IMPORT)"
    done, found = run(tmp_path, flow(decorators, body, above))
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["start"].task.data.seen == (["upper", "lower", "lower", "s", "t"], ["upper", "lower", "lower"])


@pytest.mark.parametrize(
    "decorator",
    ["retry(times={})", "timeout(minutes={})", "catch(print_exception={})", "resources(cpu={})", "kubernetes(cpu={})"],
)
def test_a_second_decorator_without_effect_is_a_mistake(tmp_path: Path, decorator: str) -> None:
    """The error has the line of the one that would be ignored."""
    file = write_flow(tmp_path, flow("\n".join(f"@{decorator.format(value)}" for value in (1, 0.5))), head=HEAD)
    source = file.read_text().splitlines()
    line = next(number for number, text in enumerate(source, 1) if text.strip() == f"@{decorator.format(1)}")
    done = flow_command(file, "check")
    assert done.returncode == 1
    name = decorator.partition("(")[0]
    assert f"flow.py:{line}: @{name} is applied twice to start, and only one can take effect." in done.stderr


def test_flow_decorators_applied_twice(tmp_path: Path) -> None:
    """Those of a base class may be replaced."""
    for decorators, expected in (
        ("@project(name='a')\n@project(name='b')", "@project is applied twice to F"),
        ("@trigger(event='a')\n@trigger(event='b')", "@trigger is applied twice to F"),
        ("@exit_hook(on_success=[print])\n@exit_hook(on_error=[print])", ""),
    ):
        source = flow().replace("class F", f"{decorators}\nclass F")
        done = flow_command(write_flow(tmp_path, source, head=HEAD), "check")
        assert (done.returncode == 1) is bool(expected), done.stdout + done.stderr
        assert expected in done.stderr
    base = flow().replace("class F(", "@project(name='a')\nclass Base(")
    source = f"{base}\n@project(name='b')\nclass F(Base):\n    pass\n"
    assert flow_command(write_flow(tmp_path, source, head=HEAD), "check").returncode == 0


def test_with_given_twice(tmp_path: Path) -> None:
    """Two values of an option are refused, other options are combined; a decorator of the file may be named."""
    done, _ = run(tmp_path, flow(), "--with", "retry:times=1", "--with", "retry:times=2")
    assert done.returncode != 0
    assert "--with retry is given twice" in done.stdout + done.stderr
    twice = ("--with", "retry", "--with", "retry:times=1", "--with", "retry:minutes_between_retries=0")
    (tmp_path / "added/.k8sflow").mkdir(parents=True)
    done, found = run(tmp_path / "added", flow(body="from k8sflow import current; assert current.retry_count"), *twice)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["start"].task.current_attempt == 1
    done, found = run(tmp_path, flow(), "--with", "log:word=a", "--with", "log:word=b")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(found["start"].task.data.words) == ["a", "b"]


def test_a_mutator_adds_decorators_of_the_same_file_by_name(tmp_path: Path) -> None:
    """It may be of any kind; and the mutator sees that a step has one already."""
    above = """
        class tag(UserStepDecorator):
            def pre_step(self, step_name, flow, inputs=None):
                flow.tagged = True

        class adds(FlowMutator):
            def mutate(self, mutable_flow):
                for name, s in mutable_flow.steps:
                    s.add_decorator("tag")
                    s.add_decorator("log", deco_kwargs={"word": name}, duplicates=s.IGNORE)

        @adds
        """
    done, found = run(tmp_path, flow("@log(word='own')", above=above.rstrip(" ")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (found["start"].task.data.words, found["start"].task.data.tagged) == (["own"], True)
    assert found.data.words == ["own", "end"]


@pytest.mark.parametrize("bases", ["UserStepDecorator, StepMutator", "StepMutator, UserStepDecorator"])
@pytest.mark.parametrize("written", ["@measured", "@measured(times=2)"])
def test_one_class_may_be_a_decorator_and_a_mutator(tmp_path: Path, bases: str, written: str) -> None:
    """It changes the step before the run, and runs around it, with its attributes from then."""
    above = f"""
        class measured({bases}):
            def init(self, times=1):
                self.times = times
            def mutate(self, mutable_step):
                mutable_step.add_decorator("retry", deco_kwargs={{"times": self.times, "minutes_between_retries": 0}})
                self.noted = mutable_step.name
            def pre_step(self, step_name, flow, inputs=None):
                flow.seen = (self.times, self.noted)
            def post_step(self, step_name, flow, exception=None):
                flow.ended = True
                return exception

        """
    body = "from k8sflow import current; assert current.retry_count == self.seen[0]"
    done, found = run(tmp_path, flow(written, body, above))
    assert done.returncode == 0, done.stdout + done.stderr
    times = 2 if "2" in written else 1
    assert (found["start"].task.data.seen, found["start"].task.data.ended) == ((times, "start"), True)
    assert found["start"].task.current_attempt == times
