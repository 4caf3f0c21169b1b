"""Mutators of steps and flows."""

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
)
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow, declared
from k8sflow.flow.decorators.base import options_of
from k8sflow.flow.decorators.mutators import mutated
from k8sflow.flow.parameters import ParameterContext
from tests.support import load_flow, run_flow, write_flow


class Sturdy(StepMutator):
    """A mutator that adds retries."""

    def init(self, times: int = 5) -> None:
        self.times = times

    def mutate(self, mutable_step: Any) -> None:
        mutable_step.add_decorator("retry", deco_kwargs={"times": self.times}, duplicates=mutable_step.IGNORE)


class Everywhere(FlowMutator):
    """A mutator that changes all steps and the parameters."""

    def init(self, **options: Any) -> None:
        self.options = options

    def pre_mutate(self, mutable_flow: Any) -> None:
        mutable_flow.add_parameter("added", Parameter("added", default=3))
        assert mutable_flow.remove_parameter("removed")
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
    """Those of the flow run before those of the steps, once, and change this flow alone."""

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
        removed = Parameter("removed")

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
    """One object may have another attribute in each flow."""
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


def test_a_file_that_a_mutator_includes_is_found_beside_the_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of an IncludeFile in the flow's class."""
    (tmp_path / "data.txt").write_text("beside")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    flow = load_flow(
        write_flow(
            tmp_path,
            """
            from k8sflow import FlowMutator, IncludeFile
            class Adds(FlowMutator):
                def pre_mutate(self, mutable_flow):
                    mutable_flow.add_parameter("data", IncludeFile("data", default="data.txt"))

            @Adds
            class F(FlowSpec):
                @step
                def start(self): self.next(self.end)
                @step
                def end(self): pass
            """,
        )
    )
    included = mutated(declared(flow)).parameters["data"]
    assert included.default_value(ParameterContext("F", "u", "data")) == "beside"


def test_an_impossible_change_is_refused() -> None:
    """Examples are an unknown decorator, a duplicate, and a mutator on something else than a step or flow."""

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


def test_an_exception_in_a_mutator_is_reported_as_a_mistake() -> None:
    """The report has its line in the mutator, and no traceback of k8sflow."""

    class Broken(StepMutator):
        def mutate(self, mutable_step: Any) -> None:
            raise KeyError(mutable_step.name)

    class F(FlowSpec):
        @Broken
        @step
        def start(self) -> None: ...

    with pytest.raises(FlowDefinitionError) as raised:
        compile_flow(F)
    report = str(raised.value)
    assert "the mutator Broken failed: KeyError: 'start'" in report
    assert f"It was raised in mutate(), {__file__}:" in report


def test_a_mutator_adds_and_removes_a_class_of_decorators() -> None:
    """It is handled like any other decorator."""

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
    """Every task's process applies them."""
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


class Late(FlowMutator):
    """A mutator that another one adds."""

    def init(self, name: str = "late") -> None:
        self.name = name

    def pre_mutate(self, mutable_flow: Any) -> None:
        mutable_flow.add_parameter(self.name, Parameter(self.name, default=1))
        for _, mutable in mutable_flow.steps:
            mutable.add_decorator(Sturdy, [7])

    def mutate(self, mutable_flow: Any) -> None:
        assert self.name in dict(mutable_flow.parameters)


class Adding(FlowMutator):
    """A mutator that adds others."""

    def init(self, when: str = "pre_mutate", added: type = Late) -> None:
        self.when, self.added = when, added

    def pre_mutate(self, mutable_flow: Any) -> None:
        self._add(mutable_flow, "pre_mutate")

    def mutate(self, mutable_flow: Any) -> None:
        self._add(mutable_flow, "mutate")

    def _add(self, mutable_flow: Any, now: str) -> None:
        if self.when == now:
            assert mutable_flow.add_decorator(self.added, deco_kwargs={"name": "n"} if self.added is Late else None)


def _with(mutator: Any) -> Any:
    @mutator
    class F(FlowSpec):
        @step
        def start(self) -> None:
            self.next(self.end)

        @step
        def end(self) -> None:
            pass

    return mutated(declared(F))


def test_a_mutator_adds_mutators() -> None:
    """All of their methods are called, with the options given."""
    found = _with(Adding())
    assert not found.problems
    assert found.parameters["n"].default == 1
    for each in found.steps.values():
        assert [(added.name, dict(added.options)) for added in each.decorations] == [("retry", {"times": 7})]


@pytest.mark.parametrize(
    ("mutator", "words"),
    [
        (Adding("mutate"), "@Late is a mutator, and mutate() can't add more of them. Add it in pre_mutate()."),
        (Adding(added=Sturdy), "add_decorator on F: @Sturdy is a mutator of steps."),
    ],
    ids=["late", "of steps"],
)
def test_a_mutator_that_cannot_be_added_is_a_problem(mutator: Any, words: str) -> None:
    (problem,) = _with(mutator).problems
    assert words in f"{problem.message} {problem.advice}"
