"""The language of steps and its results: artifacts, parameters, transitions, and the names on self."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8sflow import FlowSpec, Parameter, step
from k8sflow.testing import run_step
from tests.inprocess import Failed, run_source


def test_artifacts_flow_from_step_to_step(tmp_path: Path) -> None:
    """Set, changed in place, set again, deleted; each step's own state stays readable."""
    run = run_source(
        tmp_path,
        """
        class F(FlowSpec):
            @step
            def start(self):
                self.kept, self.changed, self.replaced, self.deleted = "kept", [1], 1, "deleted"
                self._private = "private"
                self.ünï = "日本語"
                self.next(self.middle)
            @step
            def middle(self):
                self.changed.append(2)
                self.replaced += 1
                del self.deleted
                self.has_deleted = hasattr(self, "deleted")
                self.next(self.end)
            @step
            def end(self):
                self.seen = (self.kept, self.changed, self.replaced, hasattr(self, "deleted"), self._private, self.ünï)
        """,
    )
    assert run["end"].task.data.seen == ("kept", [1, 2], 2, False, "private", "日本語")
    assert run["start"].task.data.changed == [1]
    assert run["start"].task.data.deleted == "deleted"
    assert "deleted" not in run["middle"].task
    assert run["middle"].task.data.has_deleted is False
    assert run["start"].task["kept"].sha == run["end"].task["kept"].sha


MISSING = """
    class F(FlowSpec):
        total_of_all = 1
        @step
        def start(self):
            self.early = 1
            self.way = "b"
            {start}
            self.next(self.a, self.b)
        @step
        def a(self):
            self.of_a = 1
            self.next(self.join)
        @step
        def b(self):
            {b}
            self.next({{"b": self.join, "c": self.c}}, condition="way")
        @step
        def c(self):
            self.of_c = 1
            self.next(self.join)
        @step
        def join(self, inputs):
            {join}
            self.next(self.end)
        def helper(self):
            self.helped = 1
        @step
        def end(self):
            {end}
            self.late = 1
            self.helper()
"""


@pytest.mark.parametrize(
    ("step", "body", "words"),
    [
        ("start", "self.totl_of_all", ["not set in step start. No step sets it. Did you mean 'total_of_all'?"]),
        ("start", "self.anything", ["self.anything is not set in step start. No step sets it."]),
        ("start", "self.late", ["It is set in step end (flow.py:32), which comes later or runs in another branch."]),
        ("start", "self.helped", ["It is set in step end (flow.py:28), which comes later"]),
        ("b", "self.of_a", ["It is set in step a (flow.py:13), which comes later or runs in another branch."]),
        ("b", "print(self.mine); self.mine = 1", ["The step sets it itself in line 17, but has not done so"]),
        ("join", "self.early", ["It is set in step start (flow.py:7)", "Read inputs[i].early", "merge_artifacts"]),
        ("join", "inputs.b.of_c", ["b/0 left no artifact 'of_c'", "It is set in step c (flow.py:21)"]),
        (
            "end",
            "self.early",
            ["It is set in step start (flow.py:7), but the join join comes between", "In join, write"],
        ),
        ("end", "self.mine", ["self.mine is not set in step end. No step sets it."]),
    ],
)
def test_reading_what_is_not_set_says_which_step_could_have_set_it(
    tmp_path: Path, step: str, body: str, words: list[str]
) -> None:
    """With the line, and why it is not there."""
    bodies = dict.fromkeys(("start", "b", "join", "end"), "pass") | {step: body}
    with pytest.raises(Failed) as failed:
        run_source(tmp_path, MISSING.format(**bodies))
    for word in words:
        assert word in failed.value.summary
    assert "line" in failed.value.text


def test_a_branch_that_a_switch_skipped_is_reported(tmp_path: Path) -> None:
    """The step that would have set it did not run."""
    with pytest.raises(Failed, match=r"set in step a \(flow.py:10\), but did not do so on the way that this run took"):
        run_source(
            tmp_path,
            """
            class F(FlowSpec):
                @step
                def start(self):
                    self.n = 2
                    self.next({1: self.a, 2: self.end}, condition="n")
                @step
                def a(self): self.x = 1; self.next(self.end)
                @step
                def end(self): self.x
            """.replace("self.x = 1; self.next", "\n                    self.x = 1\n                    self.next"),
        )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("self.p = 5", ["self.p is the Parameter 'p'", "can't change"]),
        ("del self.p", ["self.p is the Parameter 'p'", "can't change"]),
        ("self.constant = 5", ["self.constant is a constant of the class F"]),
        ("del self.constant", ["self.constant is a constant of the class F"]),
        ("self.end = 5", ["self.end is a step"]),
        ("self.next = 5", ["self.next"]),
        ("self.input = 5", ["self.input"]),
        ("self.index = 5", ["self.index"]),
        ("self.merge_artifacts = 5", ["self.merge_artifacts"]),
        ("self.foreach_stack = 5", ["self.foreach_stack"]),
    ],
)
def test_what_belongs_to_the_flow_cant_be_set(tmp_path: Path, line: str, words: list[str]) -> None:
    """A later step would not see the value, or the run could not go on; also where the check can't see it."""
    with pytest.raises(Failed) as failed:
        run_source(
            tmp_path,
            f"""
            class F(FlowSpec):
                constant = 1
                p = Parameter("p", default=3)
                def helper(self):
                    {line}
                @step
                def start(self):
                    self.helper()
                    self.next(self.end)
                @step
                def end(self): pass
            """,
        )
    for word in words:
        assert word in failed.value.summary
    assert line in failed.value.text


@pytest.mark.parametrize(
    "name", ["_context", "_name", "_task", "_commit", "_artifacts", "artifact_refs", "_run_values", "data", "id"]
)
def test_no_name_that_an_author_may_choose_is_ours(tmp_path: Path, name: str) -> None:
    """On self, in a join's inputs and in the client."""
    run = run_source(
        tmp_path,
        f"""
        class F(FlowSpec):
            @step
            def start(self):
                self.{name} = "mine"
                self.next(self.a, self.b)
            @step
            def a(self):
                self.next(self.join)
            @step
            def b(self):
                self.next(self.join)
            @step
            def join(self, inputs):
                assert inputs[0].{name} == "mine", inputs[0].{name}
                self.merge_artifacts(inputs)
                self.next(self.end)
            @step
            def end(self):
                assert self.{name} == "mine"
        """,
    )
    assert getattr(run["end"].task.data, name) == "mine"


def test_parameters_and_constants_are_read_everywhere(tmp_path: Path) -> None:
    """Under the attribute's name, in every step, and by the client."""
    run = run_source(
        tmp_path,
        """
        class Base(FlowSpec):
            shared = Parameter("shared", default="s")
            size = 1
            @step
            def start(self):
                self.got = (self.shared, self.rate, self.size, self.flag, self.helper(2), self.maybe)
                self.next(self.end)
            def helper(self, x):
                return x * self.size
        class F(Base):
            rate = Parameter("learning-rate", default=0.5)
            flag = Parameter("flag", default=False)
            maybe = Parameter("maybe", type=int)
            size = 10
            @step
            def end(self): pass
        """,
        rate=0.25,
    )
    assert run["start"].task.data.got == ("s", 0.25, 10, False, 20, None)
    assert run["end"].task.data.rate == 0.25
    assert run["end"].task.data.size == 10


TWO_STEPS = """
    class F(FlowSpec):
        def helper(self, *targets, **options):
            self.next(*targets, **options)
        @step
        def start(self):
            {body}
            self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return", ["step start", "self.next"]),
        ("self.helper(self.start)", ["start", "end"]),
        ("self.helper(self.end, self.start)", ["start", "end"]),
    ],
)
def test_a_transition_that_is_not_the_one_in_the_source_fails(tmp_path: Path, body: str, words: list[str]) -> None:
    """Also none at all: the run must not come to a standstill."""
    with pytest.raises(Failed) as failed:
        run_source(tmp_path, TWO_STEPS.replace("{body}", body))
    assert failed.value.spec.name.step == "start"
    for word in words:
        assert word in failed.value.summary


def test_an_artifact_that_cant_be_pickled_fails_its_step(tmp_path: Path) -> None:
    """Named; and nothing of the task is committed."""
    with pytest.raises(Failed, match="'lock'") as failed:
        run_source(tmp_path, TWO_STEPS.replace("{body}", "import threading; self.lock = threading.Lock()"))
    assert failed.value.spec.name.step == "start"
    assert not list(tmp_path.rglob("commit.json"))


def test_a_lambda_is_an_artifact(tmp_path: Path) -> None:
    """It is saved by value, with the variables of its closure."""
    run = run_source(tmp_path, TWO_STEPS.replace("{body}", "k = 3; self.f = lambda x: x * k"))
    assert run["end"].task.data.f(5) == 15


def test_one_function_can_be_several_steps(tmp_path: Path) -> None:
    """Made by a factory, or under another name; each is known by the name that the class has it under."""
    run = run_source(
        tmp_path,
        """
        from k8sflow import user_step_decorator
        @user_step_decorator
        def named(step_name, flow):
            yield
            flow.step_name = step_name
        def make(word):
            @named
            @step
            def work(self):
                self.word = word
                self.next(self.join)
            return work
        class F(FlowSpec):
            @step
            def start(self):
                self.next(self.a, self.b, self.c)
            a, b = make("x"), make("y")
            c = a
            unused = b
            @step
            def join(self, inputs):
                self.words = [(inputs.a.word, inputs.b.word, inputs.c.word), [i.step_name for i in inputs]]
                self.way = 2
                self.next({1: self.one, 2: self.two, 3: self.end}, condition="way")
            @step
            def one(self):
                self.next(self.end)
            two = one
            @step
            def end(self): pass
            finish = end
        """,
    )
    assert run.data is not None
    assert run.data.words == [("x", "y", "x"), ["a", "b", "c"]]
    assert {step.id for step in run} == {"start", "a", "b", "c", "join", "two", "end"}


def test_a_value_takes_the_place_of_a_default_of_the_class(tmp_path: Path) -> None:
    """In every step after the one that set it, also where a join took it over; a cached property is computed again."""
    run = run_source(
        tmp_path,
        """
        from functools import cached_property
        class F(FlowSpec):
            _model = None
            kind = int
            def helper(self): return "method"
            @cached_property
            def cached(self): return self._model
            @step
            def start(self):
                self._model, self.kind, self.helper = "fitted", "text", "value"
                self.at_start = self.cached
                self.next(self.a, self.b)
            @step
            def a(self):
                self.seen = (self._model, self.kind, self.helper)
                self._model = "again"
                self.next(self.join)
            @step
            def b(self):
                self._model = "again"
                self.next(self.join)
            @step
            def join(self, inputs):
                self.before = self._model
                self.merge_artifacts(inputs)
                self.after = (self._model, self.kind, self.helper, self.seen, self.cached)
                self.next(self.end)
            @step
            def end(self):
                del self._model
                self.deleted = self._model
        """,
    )
    assert run.data is not None
    assert run.data.before is None
    assert run.data.after == ("again", "text", "value", ("fitted", "text", "value"), "again")
    assert run.data.deleted is None


def test_what_no_step_can_set_keeps_its_place() -> None:
    """As in a resumed run, of which the code had an artifact under that name."""

    class F(FlowSpec):
        limit = 10
        p = Parameter("p", default=1)

        @step
        def start(self) -> None:
            self.next(self.end)

        @step
        def end(self) -> None:
            self.seen = (self.limit, self.p, callable(self.start))

    assert run_step(F, "end", artifacts={"limit": 1, "p": 2, "start": 3}).artifacts["seen"] == (10, 1, True)


def test_a_decorator_without_functools_wraps_hides_no_step(tmp_path: Path) -> None:
    """The graph is that of the step which is written in the class."""
    run = run_source(
        tmp_path,
        """
        def noted(function):
            def wrapper(self, *more):
                self.notes = [*getattr(self, "notes", []), "before"]
                function(self, *more)
            return wrapper
        class F(FlowSpec):
            @step
            @noted
            def start(self):
                self.items = [1, 2]
                self.next(self.work, foreach="items")
            @step
            @noted
            def work(self):
                self.next(self.join)
            @step
            @noted
            def join(self, inputs):
                self.notes = [*self.notes, *[i.notes for i in inputs]]
                self.next(self.end)
            @step
            @noted
            def end(self): pass
        """,
    )
    assert run.data is not None
    assert run.data.notes == ["before", ["before"] * 2, ["before"] * 2, "before"]


def test_a_property_tells_what_it_did_not_find(tmp_path: Path) -> None:
    """The error is not that the property itself isn't an artifact; this holds for a join's inputs too."""
    run = run_source(
        tmp_path,
        """
        from functools import cached_property

        def message(read):
            try: return read()
            except AttributeError as error: return str(error)

        class F(FlowSpec):
            @property
            def half(self): return self.whole / 2
            @cached_property
            def third(self): return self.whole / 3
            @step
            def start(self):
                self.said = [message(lambda: self.half), message(lambda: self.third)]
                self.next(self.a, self.b)
            @step
            def a(self): self.next(self.join)
            @step
            def b(self): self.next(self.join)
            @step
            def join(self, inputs):
                self.said = inputs.a.said + [message(lambda: inputs.a.half), message(lambda: inputs.b.third)]
                self.next(self.end)
            @step
            def end(self): pass
        """,
    )
    assert run.data is not None
    assert len(run.data.said) == 4
    assert all("whole" in text and "half" not in text and "third" not in text for text in run.data.said), run.data.said


def test_an_object_that_runs_nothing() -> None:
    """As Metaflow's flows make it in tests."""

    class F(FlowSpec):
        def __init__(self, use_cli: bool = True) -> None:
            super().__init__(use_cli)

        def helper(self) -> int:
            return 5

    assert F(use_cli=False).helper() == 5


def test_a_flow_has_the_names_that_metaflow_gives_it(tmp_path: Path) -> None:
    """Until a step sets one; an artifact of that name reaches the next step."""
    run = run_source(
        tmp_path,
        """
        class F(FlowSpec):
            @step
            def start(self):
                self.seen = (self.name, self.script_name)
                place = self.name + ".txt"
                self.out = self.cmd(f"cat {place}; printf b > {place}", input={place: "a"}, output=[place])
                self.name = "mine"
                self.next(self.end)
            @step
            def end(self):
                self.later = (self.name, self.script_name, self.cmd("true"))
                try:
                    self.cmd("exit 3")
                except Exception as error:
                    self.error = str(error)
        """.replace('self.name + ".txt"', repr(str(tmp_path / "in.txt"))),
    )
    assert run["start"].task.data.seen == ("F", "flow.py")
    assert run["start"].task.data.out == b"b"
    assert run["end"].task.data.later == ("mine", "flow.py", [])
    assert "'exit 3' failed with exit code 3" in run["end"].task.data.error
