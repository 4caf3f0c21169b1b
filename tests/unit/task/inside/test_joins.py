"""Joins: the branches' artifacts in ``inputs``, ``merge_artifacts``, and the methods of an input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.inprocess import Failed, run_source

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


def test_a_set_that_a_branch_reads_is_not_a_conflict(tmp_path: Path) -> None:
    """Reading is not changing."""
    source = JOIN % "self.merge_artifacts(inputs, exclude=['differs'])"
    source = source.replace("list(range(5000))", "{0, 1, -4, 28, ''}")
    data = run_source(tmp_path, source).data
    assert data is not None
    assert data.big == {0, 1, -4, 28, ""}


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
