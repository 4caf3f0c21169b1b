"""User-defined decorators: wrappers of steps, and mutators of steps and flows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k8sflow import (
    FlowMutator,
    FlowSpec,
    Parameter,
    StepMutator,
    UserStepDecorator,
    retry,
    step,
    timeout,
    user_step_decorator,
)
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow, declared
from k8sflow.flow.decorators.base import options_of
from k8sflow.flow.decorators.mutators import mutated
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
    """A flow whose start is under a decorator."""
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
    """With their options; they read and write artifacts."""
    run = run_source(tmp_path, flow("@outer(a=1)\n    @inner", "self.trace.append('step')"))
    assert run["start"].task.data.trace == ["outer start {'a': 1} False", "inner", "step", "inner after", "outer after"]


@pytest.mark.parametrize(
    ("decorator", "value"),
    [("@skip", "from before"), ("@swallow", "division by zero"), ("@swallow\n    @inner2", None)],
)
def test_a_wrapper_may_skip_the_step_or_deal_with_its_error(tmp_path: Path, decorator: str, value: str | None) -> None:
    """Then the run goes on as the source says."""
    source = flow(decorator.replace("@inner2", "@skip"), "1 / 0")
    run = run_source(tmp_path, source)
    assert run["start"].task.data.value == (value or "from before")
    assert run.successful


def test_a_wrapper_that_does_not_yield_once_is_told(tmp_path: Path) -> None:
    """And what the step raises reaches the user's traceback through it."""
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
    """With its options, by name or by position; what it sets on the flow is kept."""
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
def test_a_class_may_skip_replace_or_mend_its_step(tmp_path: Path, decorator: str, value: str) -> None:
    """Then the run goes on as the source says."""
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
    """That of the step where it says nothing else."""
    with pytest.raises(Failed, match=words) as failed:
        run_source(tmp_path, flow(decorator, body))
    if decorator in {"@bare", "@noted"}:  # which leave it as it is
        assert "wrappers.py" not in failed.value.text


def test_a_retry_may_fall_back_by_a_wrapper_of_the_command_line(tmp_path: Path) -> None:
    """As ``module.name``, from a file beside the flow; its options are JSON where they can be."""
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
    done = run_flow(write_flow(tmp_path, source), "--with", "retry:times=1", "--with", "wrappers.fallback:indicator=5",
                    "--with", "wrappers.noted:word=5")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "used 5 ['start (5, None) False', 'None']" in done.stdout


def test_a_name_of_ours_and_a_function_without_yield_are_told() -> None:
    """When they are used."""

    def retry(step_name: str, flow: Any, inputs: Any, attributes: Any) -> Any:
        yield

    def plain(step_name: str, flow: Any, inputs: Any, attributes: Any) -> None: ...

    with pytest.raises(FlowDefinitionError, match="exists already"):
        user_step_decorator(retry)(plain)
    with pytest.raises(FlowDefinitionError, match="does not yield"):
        user_step_decorator(plain)(plain)


class Sturdy(StepMutator):
    """Adds retries."""

    def init(self, times: int = 5) -> None:
        self.times = times

    def mutate(self, mutable_step: Any) -> None:
        mutable_step.add_decorator("retry", deco_kwargs={"times": self.times}, duplicates=mutable_step.IGNORE)


class Everywhere(FlowMutator):
    """Changes all steps, and the parameters."""

    def init(self, **options: Any) -> None:
        self.options = options

    def pre_mutate(self, mutable_flow: Any) -> None:
        mutable_flow.add_parameter("added", Parameter("added", default=3))
        assert mutable_flow.remove_parameter("gone")
        assert not mutable_flow.remove_parameter("never")

    def mutate(self, mutable_flow: Any) -> None:
        for name, mutable in mutable_flow.steps:
            specs = {found: options for found, _, _, options in mutable.decorator_specs}
            if "retry" in specs:
                mutable.add_decorator(
                    "retry", deco_kwargs={**specs["retry"], **self.options}, duplicates=mutable.OVERRIDE
                )
            assert mutable.remove_decorator("timeout") == (name == "start")
        assert mutable_flow.start.name == "start"
        assert dict(mutable_flow.parameters)["added"].default == 3


def test_mutators_change_decorators_and_parameters() -> None:
    """Those of the flow before those of the steps; once, and in this flow alone."""

    class Base(FlowSpec):
        @timeout(seconds=5)
        @retry(times=1)
        @step
        def start(self) -> None: ...

        @Sturdy
        @step
        def middle(self) -> None: ...

        @Sturdy(times=2)
        @retry(times=0)
        @step
        def end(self) -> None: ...

    @Everywhere(backoff=2)
    class Derived(Base):
        gone = Parameter("gone")

    for _ in range(2):
        mutated(declared(Derived))
    definition = mutated(declared(Derived))
    found = {name: options_of(definition.decorations_of(name), "retry") for name in ("start", "middle", "end")}
    assert {name: options["times"] for name, options in found.items() if options} == {"start": 1, "middle": 5, "end": 0}
    assert found["start"] is not None
    assert found["start"]["backoff"] == 2
    assert [d.name for d in definition.decorations_of("start")] == ["retry"]
    assert [d.name for d in declared(Base).decorations_of("start")] == ["retry", "timeout"]
    assert list(definition.parameters) == ["added"]


def test_a_parameter_is_added_to_each_flow_under_its_attribute() -> None:
    """Also where it is one object."""
    shared = Parameter("rows", default=3)

    class Adds(FlowMutator):
        def init(self, name: str) -> None:
            self.name = name

        def pre_mutate(self, mutable_flow: Any) -> None:
            mutable_flow.add_parameter(self.name, shared)

    @Adds("rows")
    class One(FlowSpec): ...

    @Adds("lines")
    class Other(FlowSpec): ...

    for flow_class, name in ((One, "rows"), (Other, "lines")):
        parameters = mutated(declared(flow_class)).parameters
        assert {attribute: found.attribute for attribute, found in parameters.items()} == {name: name}


def test_a_mutator_that_asks_for_what_can_not_be_is_told() -> None:
    """An unknown decorator, a duplicate, the wrong place."""

    class Twice(StepMutator):
        def mutate(self, mutable_step: Any) -> None:
            mutable_step.add_decorator("retry", duplicates=mutable_step.ERROR)

    class Unknown(StepMutator):
        def mutate(self, mutable_step: Any) -> None:
            mutable_step.add_decorator("rety")

    for mutator, words in ((Twice, "step start has @retry already"), (Unknown, "Did you mean 'retry'")):

        class F(FlowSpec):
            @mutator
            @retry
            @step
            def start(self) -> None: ...

        with pytest.raises(FlowDefinitionError, match=words):
            compile_flow(F)
    with pytest.raises(FlowDefinitionError, match="goes above a step's def"):
        Sturdy()(int)
    with pytest.raises(FlowDefinitionError, match="goes above a flow's class"):
        Everywhere()(len)


def test_what_a_mutators_own_code_raises_is_one_of_the_mistakes() -> None:
    """With its place there, and without a traceback of ours."""

    class Broken(StepMutator):
        def mutate(self, mutable_step: Any) -> None:
            raise KeyError(mutable_step.name)

    class F(FlowSpec):
        @Broken
        @step
        def start(self) -> None: ...

    with pytest.raises(FlowDefinitionError) as raised:
        compile_flow(F)
    told = str(raised.value)
    assert "the mutator Broken failed: KeyError: 'start'" in told
    assert f"It was raised in mutate(), {__file__}:" in told


def test_a_mutator_adds_and_removes_a_class_of_decorators() -> None:
    """As any other decorator."""

    class kept(UserStepDecorator):  # noqa: N801  a decorator
        def init(self, word: str = "") -> None: ...

    class With(StepMutator):
        def mutate(self, mutable_step: Any) -> None:
            assert mutable_step.remove_decorator(kept, deco_kwargs={"word": "a"})
            assert mutable_step.add_decorator(kept, deco_kwargs={"word": "b"})
            assert not mutable_step.add_decorator(kept)

    class F(FlowSpec):
        @With
        @kept("a")
        @step
        def start(self) -> None: ...

    decorations = mutated(declared(F)).decorations_of("start")
    assert [(d.name, d.options) for d in decorations] == [("kept", {"word": "b"})]


def test_a_run_is_mutated_by_its_configs(tmp_path: Path) -> None:
    """In every task's process."""
    source = """
        from k8sflow import Config, FlowMutator, StepMutator, current, user_step_decorator
        @user_step_decorator
        def marked(step_name, flow, inputs=None, attributes=None):
            flow.mark = attributes["mark"]
            yield
        class with_mark(StepMutator):
            def init(self, mark): self.mark = mark
            def mutate(self, mutable_step):
                mutable_step.add_decorator(marked, deco_kwargs={"mark": self.mark})
        class all_of_it(FlowMutator):
            def mutate(self, mutable_flow):
                for name, mutable in mutable_flow.steps:
                    mutable.add_decorator("retry", deco_kwargs={"times": mutable_flow.settings.times})
        @all_of_it
        class F(FlowSpec):
            settings = Config("settings", default_value={"times": 1, "mark": "m"})
            @with_mark(mark=settings.mark)
            @step
            def start(self):
                assert current.retry_count == 1
                print("mark", self.mark)
                self.next(self.end)
            @step
            def end(self): assert current.retry_count == 1
    """
    done = run_flow(write_flow(tmp_path, source), "--config-value", "settings", '{"times": 2, "mark": "given"}')
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mark given" in done.stdout
