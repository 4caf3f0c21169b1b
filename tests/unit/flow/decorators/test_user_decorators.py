"""User-defined step decorators: generators and classes that run around a step."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from k8sflow import (
    user_step_decorator,
)
from k8sflow.errors import FlowDefinitionError
from tests.inprocess import Failed, run_source
from tests.support import run_flow, write_flow

WRAPPERS = """
from k8sflow import user_step_decorator, current

@user_step_decorator
def outer(step_name, flow, inputs=None, attributes=None):
    flow.trace = [f"outer {step_name} {attributes} {inputs is not None}"]
    yield
    flow.trace.append("outer after")

@user_step_decorator
def inner(step_name, flow, inputs):
    flow.trace.append("inner")
    yield
    flow.trace.append("inner after")

@user_step_decorator
def fallback(step_name, flow, inputs=None, attributes=None):
    def instead(self):
        self.used = attributes.get("indicator", True)
    if current.retry_count == 0:
        yield
    else:
        yield instead

@user_step_decorator
def skip(step_name, flow, inputs=None, attributes=None):
    flow.value = "from before"
    yield {}

@user_step_decorator
def swallow(step_name, flow, inputs=None, attributes=None):
    try:
        yield
    except ZeroDivisionError as error:
        flow.value = str(error)
"""


CLASSES = """
from k8sflow import UserStepDecorator

class noted(UserStepDecorator):
    def init(self, word="none", *, loud=None):
        self.word = (word, loud)
    def pre_step(self, step_name, flow, inputs=None):
        self.before = f"{step_name} {self.word} {inputs is not None}"
    def post_step(self, step_name, flow, exception=None):
        flow.trace = [self.before, repr(exception)]
        return exception

class bare(UserStepDecorator):
    pass

class skipped(UserStepDecorator):
    def pre_step(self, step_name, flow, inputs=None):
        self.skip_step = True
    def post_step(self, step_name, flow, exception=None):
        flow.value = "skipped"

class replaced(UserStepDecorator):
    def init(self, *, by=1):
        self.by = by
    def pre_step(self, step_name, flow, inputs=None):
        return self.instead
    def instead(self, flow, inputs=None):
        flow.value = f"instead {self.by}"

class dealt(UserStepDecorator):
    def init(self, *kinds, answer=None):
        self.answer = answer
    def post_step(self, step_name, flow, exception=None):
        flow.value = repr(exception)
        return self.answer
"""


WRAPPERS += CLASSES


def flow(decorator: str, body: str = "pass", go_on: str = "self.next(self.end)") -> str:
    """Return a flow whose start is under a decorator."""
    return f"""
{WRAPPERS}
class F(FlowSpec):
    {decorator}
    @step
    def start(self):
        {body}
        {go_on}
    @step
    def end(self): pass
"""


def test_wrappers_run_around_the_step_the_topmost_outermost(tmp_path: Path) -> None:
    """They get their options, and read and write artifacts."""
    run = run_source(tmp_path, flow("@outer(a=1)\n    @inner", "self.trace.append('step')"))
    assert run["start"].task.data.trace == ["outer start {'a': 1} False", "inner", "step", "inner after", "outer after"]


@pytest.mark.parametrize(
    ("decorator", "value"),
    [("@skip", "from before"), ("@swallow", "division by zero"), ("@swallow\n    @inner2", None)],
)
def test_a_wrapper_may_skip_the_step_or_handle_its_error(tmp_path: Path, decorator: str, value: str | None) -> None:
    """The run then continues as the source says."""
    source = flow(decorator.replace("@inner2", "@skip"), "1 / 0")
    run = run_source(tmp_path, source)
    assert run["start"].task.data.value == (value or "from before")
    assert run.successful


def test_a_wrapper_that_does_not_yield_once_is_an_error(tmp_path: Path) -> None:
    """The step's own exception keeps its traceback when a wrapper is around it."""
    none = "@user_step_decorator\ndef odd(step_name, flow, inputs, attributes):\n    if 0: yield\n"
    twice = "@user_step_decorator\ndef odd(step_name, flow, inputs, attributes):\n    yield\n    yield\n"
    text = "@user_step_decorator\ndef odd(step_name, flow, inputs, attributes):\n    yield 5\n"
    for number, (made, words) in enumerate([(none, "did not yield"), (twice, "yielded twice"), (text, "yielded 5")]):
        with pytest.raises(Failed, match=f"@odd {words}"):
            run_source(tmp_path / str(number), flow("@odd").replace("\nclass", f"\n{made}\nclass"))
    with pytest.raises(Failed, match="ZeroDivisionError") as failed:
        run_source(tmp_path / "raises", flow("@outer", "1 / 0"))
    assert "in start" in failed.value.text


@pytest.mark.parametrize(
    ("decorator", "word"),
    [
        ("@noted", ("none", None)),
        ("@noted()", ("none", None)),
        ("@noted('a')", ("a", None)),
        ("@noted(ValueError, loud=1)", (ValueError, 1)),
        ("@noted(ValueError)", (ValueError, None)),
        ("@noted(word=None)", (None, None)),
        ("@bare\n    @noted(word=len)", (len, None)),
    ],
)
def test_a_class_runs_before_and_after_its_step(tmp_path: Path, decorator: str, word: tuple[object, object]) -> None:
    """It gets its options by name or by position; attributes that it sets on the flow are kept."""
    run = run_source(tmp_path, flow(decorator))
    assert run["start"].task.data.trace == [f"start {word} False", "None"]


@pytest.mark.parametrize(
    ("decorator", "value"),
    [
        ("@skipped", "skipped"),
        ("@replaced(by=2)", "instead 2"),
        ("@dealt", "ZeroDivisionError('division by zero')"),
        ("@dealt(answer=(None, None))", "ZeroDivisionError('division by zero')"),
    ],
)
def test_a_class_may_skip_or_replace_its_step_or_handle_its_error(tmp_path: Path, decorator: str, value: str) -> None:
    """The run then continues as the source says."""
    run = run_source(tmp_path, flow(decorator, "1 / 0"))
    assert run["start"].task.data.value == value
    assert run.successful


@pytest.mark.parametrize(
    ("decorator", "body", "words"),
    [
        ("@bare", "1 / 0", "ZeroDivisionError"),
        ("@noted", "1 / 0", "ZeroDivisionError"),
        ("@dealt(answer=KeyError('other'))", "1 / 0", "KeyError: 'other'"),
        ("@dealt(answer=(KeyError('other'), None))", "pass", "KeyError: 'other'"),
        ("@dealt(answer=5)", "pass", "post_step of @dealt returned 5"),
    ],
)
def test_the_exception_that_a_class_returns_ends_the_step(
    tmp_path: Path, decorator: str, body: str, words: str
) -> None:
    """The step's own exception is raised if the class doesn't return another."""
    with pytest.raises(Failed, match=words) as failed:
        run_source(tmp_path, flow(decorator, body))
    if decorator in {"@bare", "@noted"}:  # these leave it unchanged
        assert "wrappers.py" not in failed.value.text


def test_a_retry_may_fall_back_by_a_wrapper_from_the_command_line(tmp_path: Path) -> None:
    """It is named as ``module.name``, from a file beside the flow; its options are parsed as JSON if possible."""
    (tmp_path / "wrappers.py").write_text(WRAPPERS)
    source = """
        class F(FlowSpec):
            @step
            def start(self):
                self.used = False
                1 / 0
                self.next(self.end)
            @step
            def end(self): print("used", self.used, self.trace)
    """
    done = run_flow(
        write_flow(tmp_path, source),
        "--with",
        "retry:times=1",
        "--with",
        "wrappers.fallback:indicator=5",
        "--with",
        "wrappers.noted:word=5",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "used 5 ['start (5, None) False', 'None']" in done.stdout


def test_a_built_in_name_and_a_function_without_yield_are_refused() -> None:
    """The error is raised when the decorator is used."""

    def retry(step_name: str, flow: Any, inputs: Any, attributes: Any) -> Any:
        yield

    def plain(step_name: str, flow: Any, inputs: Any, attributes: Any) -> None: ...

    with pytest.raises(FlowDefinitionError, match="exists already"):
        user_step_decorator(retry)(plain)
    with pytest.raises(FlowDefinitionError, match="does not yield"):
        user_step_decorator(plain)(plain)


SAME_NAMES = {
    "first.py": """
from k8sflow import user_step_decorator

@user_step_decorator
def log(step_name, flow, inputs=None, attributes=None):
    print("first", step_name)
    yield
""",
    "second.py": """
from k8sflow import UserStepDecorator

class log(UserStepDecorator):
    def pre_step(self, step_name, flow, inputs=None):
        print("second", step_name)
""",
}


TWO_LOGS = """
    import first, second
    from k8sflow import FlowMutator
    class change(FlowMutator):
        def mutate(self, flow):
            pass
    class F(FlowSpec):
        @first.log
        @second.log
        @step
        def start(self): self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.mark.parametrize(
    ("added", "printed"),
    [
        ("second.log", "second start, first start, second end"),
        ("first.log", "first start, first end"),
        ("log", "first start, first end"),
    ],
)
def test_decorators_of_one_name_in_two_modules_are_two(tmp_path: Path, added: str, printed: str) -> None:
    """One of them on a step doesn't keep the other one of --with away; the name alone means the one that is used."""
    for name, text in SAME_NAMES.items():
        (tmp_path / name).write_text(text)
    file = write_flow(tmp_path, TWO_LOGS.replace("@second.log", ""))
    done = run_flow(file, "--with", added)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.partition("] ")[2] for line in done.stdout.splitlines()]
    found = [line for line in lines if line.partition(" ")[0] in {"first", "second"} and len(line.split()) == 2]
    assert ", ".join(found) == printed


def test_a_name_that_two_used_decorators_share_is_refused(tmp_path: Path) -> None:
    """The error says what to write for each; a base class is not among the decorators."""
    for name, text in SAME_NAMES.items():
        (tmp_path / name).write_text(text)
    file = write_flow(tmp_path, "from k8sflow import UserStepDecorator\n" + textwrap.dedent(TWO_LOGS))
    refused = run_flow(file, "--with", "log")
    assert refused.returncode == 1
    assert "there are several decorators 'log': first.log, second.log" in refused.stderr
    unknown = run_flow(file, "--with", "nothing")
    assert "The decorators are batch, cache, card, catch, " in unknown.stderr
    assert "UserStepDecorator" not in unknown.stderr


def test_a_mutator_changes_the_one_decorator_that_it_means(tmp_path: Path) -> None:
    """Another one of the same name stays where it is."""
    for name, text in SAME_NAMES.items():
        (tmp_path / name).write_text(text)
    changes = """
            for name, each in flow.steps:
                if name == "start":
                    assert each.remove_decorator(first.log) and not each.remove_decorator("first.log")
                    assert each.add_decorator(second.log) is None
                    assert each.add_decorator("first.log").name == "log"
                else:
                    assert each.add_decorator(first.log)
                    assert each.add_decorator(second.log, duplicates=each.OVERRIDE)
    """
    text = TWO_LOGS.replace("            pass\n", changes.rstrip() + "\n", 1)
    text = text.replace("    class F(", "    @change\n    class F(")
    done = run_flow(write_flow(tmp_path, text))
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("[start/0] second start", "[start/0] first start", "[end/0] first end", "[end/0] second end"):
        assert line in done.stdout
