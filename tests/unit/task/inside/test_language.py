"""The language of steps and its results: artifacts, foreach, joins, parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
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


FOREACH = """
    import numpy as np
    class F(FlowSpec):
        @step
        def start(self):
            self.items = {items}
            self.next(self.work, foreach="items")
        @step
        def work(self):
            self.seen = self.input
            self.at = (self.index, self.foreach_stack())
            self.next(self.join)
        @step
        def join(self, inputs):
            self.all = [i.seen for i in inputs]
            self.ats = [i.at for i in inputs]
            self.branch = [(i.index, i.input) for i in inputs]
            self.own = (self.index, self.input, self.foreach_stack())
            self.count = len(inputs)
            self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("[3, 1, 2]", [3, 1, 2]),
        ("(1, 'a', None)", [1, "a", None]),
        ("range(3)", [0, 1, 2]),
        ("'añ🦆'", ["a", "ñ", "🦆"]),
        ("{'b': 1, 'a': 2}", ["b", "a"]),
        ("{7}", [7]),
        ("(x * x for x in range(4))", [0, 1, 4, 9]),
        ("map(str, range(2))", ["0", "1"]),
        ("{'a': 1}.items()", [("a", 1)]),
        ("{'a': 1}.values()", [1]),
        ("zip('ab', range(2))", [("a", 0), ("b", 1)]),
        ("b'ab'", [97, 98]),
        ("[['x'] * 200_000, [], 'y' * 3_000_000]", [["x"] * 200_000, [], "y" * 3_000_000]),
        ("[None]", [None]),
        ("[]", []),
        ("iter(())", []),
        ("{}", []),
    ],
    ids=lambda value: str(value)[:30],
)
def test_foreach_takes_anything_iterable(tmp_path: Path, items: str, expected: list[Any]) -> None:
    """One branch per item, in order; the join sees them in order, and knows its own place."""
    data = run_source(tmp_path, FOREACH.replace("{items}", items)).data
    assert data is not None
    assert data.all == expected
    assert data.count == len(expected)
    assert data.ats == [(i, [(i, len(expected), item)]) for i, item in enumerate(expected)]
    assert data.branch == list(enumerate(expected))
    assert data.own == (None, None, [])


def test_foreach_over_an_array_gives_its_rows(tmp_path: Path) -> None:
    """Arrays of one and of two dimensions."""
    data = run_source(tmp_path, FOREACH.replace("{items}", "np.arange(6).reshape(3, 2)")).data
    assert data is not None
    assert np.array_equal(data.all, np.arange(6).reshape(3, 2))


@pytest.mark.parametrize("items", ["5", "None", "np.array(1)", "print"])
def test_foreach_over_a_value_without_items_is_reported(tmp_path: Path, items: str) -> None:
    """With the attribute and its type."""
    with pytest.raises(Failed, match=r"over self\.items, which is a .* and has no items"):
        run_source(tmp_path, FOREACH.replace("{items}", items))


def test_a_generator_that_fails_is_not_taken_for_one_without_items(tmp_path: Path) -> None:
    """Its own error counts."""
    with pytest.raises(Failed) as failed:
        run_source(tmp_path, FOREACH.replace("{items}", "(len(x) for x in [1])"))
    assert "object of type 'int' has no len()" in failed.value.summary


def test_foreach_over_an_attribute_that_is_not_set_is_reported(tmp_path: Path) -> None:
    """The transition names it, where it could have been set in a way that the static check can't see."""
    with pytest.raises(Failed, match=r"self\.items is not set"):
        run_source(tmp_path, FOREACH.replace("self.items = {items}", "vars(self)"))


def test_branches_get_the_items_as_the_step_left_them(tmp_path: Path) -> None:
    """A generator can be read again afterwards; a change of the list in a branch is that branch's own."""
    data = run_source(
        tmp_path,
        """
        class F(FlowSpec):
            @step
            def start(self):
                self.items = (x for x in "ab")
                self.next(self.work, foreach="items")
            @step
            def work(self):
                self.items.append(self.input)
                self.next(self.join)
            @step
            def join(self, inputs):
                self.all = [i.items for i in inputs]
                self.next(self.end)
            @step
            def end(self): pass
        """,
    ).data
    assert data is not None
    assert data.all == [["a", "b", "a"], ["a", "b", "b"]]


def test_nested_foreach_and_branches_know_where_they_are(tmp_path: Path) -> None:
    """A foreach in a branch in a foreach, some of them empty."""
    run = run_source(
        tmp_path,
        """
        class F(FlowSpec):
            @step
            def start(self):
                self.outer = ["a", "b", "c"]
                self.next(self.each, foreach="outer")
            @step
            def each(self):
                self.next(self.left, self.right)
            @step
            def left(self):
                self.inner = list(range(self.index))
                self.next(self.cell, foreach="inner")
            @step
            def cell(self):
                self.got = (self.input, self.index, self.foreach_stack())
                self.next(self.cells)
            @step
            def cells(self, inputs):
                self.got = [i.got for i in inputs]
                self.stack = self.foreach_stack()
                self.next(self.both)
            @step
            def right(self):
                self.letter = self.input
                self.next(self.both)
            @step
            def both(self, inputs):
                self.got = (inputs.right.letter, inputs.cells.got, inputs[0].stack, inputs[-1].letter, self.input)
                self.next(self.all)
            @step
            def all(self, inputs):
                self.got = [i.got for i in inputs]
                self.next(self.end)
            @step
            def end(self): pass
        """,
    )
    a, b, c = run.data.got  # type: ignore[union-attr]
    assert a == ("a", [], [(0, 3, "a")], "a", "a")
    assert b == ("b", [(0, 0, [(1, 3, "b"), (0, 1, 0)])], [(1, 3, "b")], "b", "b")
    assert [cell[0] for cell in c[1]] == [0, 1]
    assert [task.id for task in run["cell"]] == ["2.1", "2.0", "1.0"]
    assert [task.id for task in run["cells"]] == ["2", "1", "0"]
    assert [task.index for task in run["cell"]] == [1, 0, 0]


JOIN = """
    class F(FlowSpec):
        constant = [1, 2]
        p = Parameter("p", default=3)
        @step
        def start(self):
            self.common, self.big = "common", list(range(5000))
            self.next(self.a, self.b)
        @step
        def a(self):
            self.only_a, self.differs, self.same = 1, "a", {"x": 1}
            self.next(self.join)
        @step
        def b(self):
            len(self.big)
            self.only_b, self.differs, self.same = 2, "b", {"x": 1}
            self.next(self.join)
        @step
        def join(self, inputs):
            %s
            self.next(self.end)
        @step
        def end(self): pass
"""


def _join(folder: Path, body: str) -> Any:
    return run_source(folder, JOIN % body).data


def test_a_join_reads_its_branches_by_name_index_and_iteration(tmp_path: Path) -> None:
    """In the order of self.next(), slices and negative indices included."""
    data = _join(
        tmp_path,
        "self.got = (inputs.a.only_a, inputs[1].only_b, [i.differs for i in inputs], inputs[-1].differs,"
        " [i.differs for i in inputs[::-1]], len(inputs), inputs.a.p, inputs.b.constant, list(inputs)[0].common)",
    )
    assert data.got == (1, 2, ["a", "b"], "b", ["b", "a"], 2, 3, [1, 2], "common")
    assert "differs" not in data
    assert "common" not in data


def test_the_origin_of_an_artifact_is_found_whatever_self_is_called(tmp_path: Path) -> None:
    """The first argument of a step is self, by its position."""
    source = (JOIN % "self.common").replace("self", "this")
    with pytest.raises(Failed, match="a join takes over nothing by itself"):
        run_source(tmp_path, source)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("inputs.c", ["no branch 'c'", "a, b"]),
        ("inputs[2]", ["2 branches"]),
        ("inputs.a.only_b", ["a/0", "no artifact 'only_b'", "only_a"]),
        ("self.common", ["a join takes over nothing by itself", "inputs[i].common", "merge_artifacts"]),
        ("self.merge_artifacts(inputs)", ["disagree", "differs", ": str of ", "exclude"]),
        ("self.merge_artifacts(inputs, include=['nothing'])", ["no branch has 'nothing'", "only_a"]),
        ("self.merge_artifacts(inputs, include=['differs'])", ["disagree", "differs"]),
        ("self.merge_artifacts(inputs, include=['same'], exclude=['common'])", ["not both"]),
        ("self.merge_artifacts([1, 2])", ["given list", "with int in it"]),
        ("self.merge_artifacts(inputs[0])", ["given Branch"]),
    ],
)
def test_a_mistake_in_a_join_is_reported(tmp_path: Path, body: str, words: list[str]) -> None:
    """With what there is, and the line."""
    with pytest.raises(Failed) as failed:
        _join(tmp_path, body)
    for word in words:
        assert word in failed.value.text
    assert body in failed.value.text, "the message contains the user's line"


@pytest.mark.parametrize(
    ("body", "there", "absent"),
    [
        (
            "self.merge_artifacts(inputs, exclude=['differs'])",
            {"common", "big", "same", "only_a", "only_b"},
            {"differs"},
        ),
        ("self.merge_artifacts(inputs, include=['same'])", {"same"}, {"common", "differs", "only_a"}),
        ("self.differs = 'c'; self.merge_artifacts(inputs)", {"common", "differs", "only_b"}, set()),
    ],
)
def test_merge_artifacts_takes_what_the_branches_agree_on(
    tmp_path: Path, body: str, there: set[str], absent: set[str]
) -> None:
    """Equal values, and those that only one of them has."""
    data = _join(tmp_path, body)
    assert all(name in data for name in there)
    assert not any(name in data for name in absent)
    if "differs" in there:
        assert data.differs == "c"


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


def test_a_set_that_a_branch_reads_is_not_a_conflict(tmp_path: Path) -> None:
    """Reading is not changing."""
    source = JOIN % "self.merge_artifacts(inputs, exclude=['differs'])"
    source = source.replace("list(range(5000))", "{0, 1, -4, 28, ''}")
    data = run_source(tmp_path, source).data
    assert data is not None
    assert data.big == {0, 1, -4, 28, ""}


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


def test_an_input_has_the_methods_of_the_flow(tmp_path: Path) -> None:
    """And its properties, constants and place in the foreach, all of them on what the branch left."""
    run = run_source(
        tmp_path,
        """
        class F(FlowSpec):
            unit = "kg"
            p = Parameter("p", default=3)
            @property
            def double(self): return self.value * 2
            def plus(self, n): return self.value + n + self.p
            @staticmethod
            def same(n): return n
            @step
            def start(self):
                self.items = "ab"
                self.next(self.outer, foreach="items")
            @step
            def outer(self):
                self.numbers = [1, 2]
                self.next(self.work, foreach="numbers")
            @step
            def work(self):
                self.value = self.input
                self.next(self.join)
            @step
            def join(self, inputs):
                self.seen = [(i.double, i.plus(1), i.same(4), i.unit, i.foreach_stack()) for i in inputs]
                self.refused = []
                for call in (lambda: inputs[0].next(inputs[0].end), lambda: inputs[0].merge_artifacts(inputs)):
                    try: call()
                    except RuntimeError as error: self.refused.append(str(error))
                self.next(self.joined)
            @step
            def joined(self, inputs):
                self.seen, self.refused = inputs[1].seen, inputs[1].refused
                self.next(self.end)
            @step
            def end(self): pass
        """,
    )
    assert run.data is not None
    assert run.data.seen == [
        (2, 5, 4, "kg", [(1, 2, "b"), (0, 2, 1)]),
        (4, 6, 4, "kg", [(1, 2, "b"), (1, 2, 2)]),
    ]
    assert all("has ended" in text for text in run.data.refused)
    assert len(run.data.refused) == 2


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
