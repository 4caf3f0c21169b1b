"""The shapes that a flow may have: switches, loops, limits, starts and ends, and what each task sees in them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.inprocess import Failed, run_all, run_source, runner_of
from tests.support import load_flow, write_flow
from tests.unit.flow.graphs import SEQUENCES, Part, source

SWITCH = """
    class F(FlowSpec):
        kind = Parameter("kind", default="a")
        @step
        def start(self):
            self.way = {value}
            self.next({{'a': self.left, 'b': self.right, 3: self.end}}, condition="way")
        @step
        def left(self):
            self.got = "left"
            self.next(self.meet)
        @step
        def right(self):
            self.got = "right"
            self.next(self.meet)
        @step
        def meet(self):
            self.met = self.got
            self.next(self.end)
        @step
        def end(self):
            self.all = getattr(self, "met", "neither")
"""


@pytest.mark.parametrize(
    ("value", "steps", "met"),
    [
        ("'a'", ["start", "left", "meet", "end"], "left"),
        ("self.kind.replace('a', 'b')", ["start", "right", "meet", "end"], "right"),
        ("3", ["start", "end"], "neither"),
        ("__import__('numpy').int64(3)", ["start", "end"], "neither"),
    ],
)
def test_a_switch_takes_one_way_and_they_meet_in_an_ordinary_step(
    tmp_path: Path, value: str, steps: list[str], met: str
) -> None:
    """Which sees what that way left."""
    run = run_source(tmp_path, SWITCH.format(value=value))
    assert [step.id for step in reversed(list(run))] == steps
    assert run.data is not None
    assert run.data.all == met


@pytest.mark.parametrize(
    ("value", "shown"),
    [("'c'", "'c' (a str)"), ("None", "None"), ("[1]", "[1] (a list)"), ("'3'", "'3' (a str)")],
)
def test_a_switch_without_a_case_for_the_value_says_so(tmp_path: Path, value: str, shown: str) -> None:
    """With the value and the cases; the traceback has the user's line."""
    value = f"(lambda: {value})()"  # so that the check before the run can't see it
    with pytest.raises(Failed) as failed:
        run_source(tmp_path, SWITCH.format(value=value))
    assert f"no case for self.way, which is {shown}" in failed.value.summary
    assert "'a' -> left, 'b' -> right, 3 -> end" in failed.value.summary
    assert "self.next({" in failed.value.text


def test_a_parameter_or_a_constant_may_be_the_condition(tmp_path: Path) -> None:
    """They are on self too."""
    text = """
        class F(FlowSpec):
            deep = Parameter("deep", default=False)
            @step
            def start(self):
                self.next({True: self.a, False: self.end}, condition="deep")
            @step
            def a(self):
                self.next(self.end)
            @step
            def end(self): pass
    """
    assert "a" in [step.id for step in run_source(tmp_path / "1", text, deep=True)]
    assert "a" not in [step.id for step in run_source(tmp_path / "2", text)]


def test_a_step_comes_back_to_itself_with_its_artifacts(tmp_path: Path) -> None:
    """Each turn is a task of its own, named by its number; within a foreach each branch counts its own."""
    run = run_source(
        tmp_path,
        """
        class F(FlowSpec):
            @step
            def start(self):
                self.sizes = [0, 2, 11]
                self.next(self.train, foreach="sizes")
            @step
            def train(self):
                self.turns = getattr(self, "turns", -1) + 1
                self.where = (self.input, self.index, self.foreach_stack())
                self.more = self.turns < self.input
                self.next({True: self.train, False: self.join}, condition="more")
            @step
            def join(self, inputs):
                self.turns = [i.turns for i in inputs]
                self.wheres = [i.where for i in inputs]
                self.names = [repr(i) for i in inputs]
                self.by_name = inputs.train.turns
                self.next(self.end)
            @step
            def end(self): pass
        """,
    )
    data = run.data
    assert data is not None
    assert data.turns == [0, 2, 11]
    assert data.wheres == [(n, i, [(i, 3, n)]) for i, n in enumerate([0, 2, 11])]
    assert data.names == ["<input train/0>", "<input train/1-2>", "<input train/2-11>"]
    assert data.by_name == 0
    ids = [task.id for task in reversed(list(run["train"]))]
    assert ids == ["0", "1", "1-1", "1-2", "2", *(f"2-{i}" for i in range(1, 12))]
    assert run["train"]["1-1"].data.turns == 1


def test_the_first_step_may_come_back_to_itself(tmp_path: Path) -> None:
    """And go on to the end."""
    run = run_source(
        tmp_path,
        """
        class F(FlowSpec):
            @step
            def start(self):
                self.n = getattr(self, "n", 0) + 1
                self.state = "done" if self.n == 3 else "again"
                self.next({"again": self.start, "done": self.end}, condition="state")
            @step
            def end(self): pass
        """,
    )
    assert run.data is not None
    assert run.data.n == 3
    assert [task.id for task in run["start"]] == ["0-2", "0-1", "0"]


SKIP = """
    class F(FlowSpec):
        @step
        def start(self):
            self.items = ["skip", "work", "fan", "work", "skip"]
            self.next(self.look, foreach="items")
        @step
        def look(self):
            self.got = "looked"
            self.kind = self.input
            self.next({"skip": self.join, "work": self.work, "fan": self.fan}, condition="kind")
        @step
        def work(self):
            self.got = f"worked {self.index}"
            self.next(self.join)
        @step
        def fan(self):
            self.letters = "xyz"
            self.next(self.letter, foreach="letters")
        @step
        def letter(self):
            self.got = (self.input, self.foreach_stack())
            self.next(self.letters_done)
        @step
        def letters_done(self, inputs):
            self.got = [i.got for i in inputs]
            self.next(self.join)
        @step
        def join(self, inputs):
            self.got = [i.got for i in inputs]
            self.indices = [(i.index, i.input) for i in inputs]
            self.named = (inputs.work.got, inputs.look.got)
            self.last, self.some = inputs[-1].got, [i.got for i in inputs[1:4:2]]
            self.next(self.end)
        @step
        def end(self): pass
"""


def test_branches_of_a_foreach_may_end_in_different_steps(tmp_path: Path) -> None:
    """Straight from the switch, from a step behind it, from a join of another foreach; each once, in order."""
    data = run_source(tmp_path, SKIP).data
    assert data is not None
    letters = [(letter, [(2, 5, "fan"), (i, 3, letter)]) for i, letter in enumerate("xyz")]
    assert data.got == ["looked", "worked 1", letters, "worked 3", "looked"]
    assert data.indices == list(enumerate(["skip", "work", "fan", "work", "skip"]))
    assert data.named == ("worked 1", "looked")
    assert data.last == "looked"
    assert data.some == ["worked 1", "worked 3"]


def test_a_branch_that_was_not_reached_is_reported_by_name(tmp_path: Path) -> None:
    """Apart from one that there never is."""
    with pytest.raises(Failed, match="no branch 'work' this time: a switch took another way"):
        run_source(tmp_path / "1", SKIP.replace('"work", "fan", "work"', '"skip"'))
    with pytest.raises(Failed, match="no branch 'wrok': the joined steps are look, work, letters_done"):
        run_source(tmp_path / "2", SKIP.replace("inputs.work", "inputs.wrok"))


def test_static_branches_may_end_in_different_steps(tmp_path: Path) -> None:
    """The join's inputs come in the order of the split, whatever way each of them took."""
    text = """
        class F(FlowSpec):
            @step
            def start(self):
                self.n = 1
                self.next(self.a, self.b)
            @step
            def a(self):
                self.next({1: self.join, 2: self.far}, condition="n")
            @step
            def far(self):
                self.who = "far"
                self.next(self.join)
            @step
            def b(self):
                self.n += 1
                self.next({1: self.b, 2: self.b, 3: self.b, 4: self.join}, condition="n")
            @step
            def join(self, inputs):
                self.got = [repr(i) for i in inputs]
                self.n = (inputs.a.n, inputs.b.n)
                self.next(self.end)
            @step
            def end(self): pass
    """
    data = run_source(tmp_path, text).data
    assert data is not None
    assert data.got == ["<input a/0>", "<input b/0-2>"]
    assert data.n == (1, 4)


@settings(max_examples=15, deadline=None)
@given(SEQUENCES, st.lists(st.integers(0, 2), max_size=6), st.integers(0, 10**6))
def test_any_shape_runs_and_every_join_sees_each_branch_once(
    tmp_path_factory: pytest.TempPathFactory, parts: tuple[Part, ...], numbers: list[int], seed: int
) -> None:
    """In the order of the foreach, with the foreach stack of the branch; whatever order the tasks finish in."""
    folder = tmp_path_factory.mktemp("flow")
    text = source(parts, numbers)
    runner = runner_of(load_flow(write_flow(folder, text)), folder)
    run = run_all(runner, random.Random(seed))
    order = runner.definition.graph.by_time()
    assert sorted(order) == sorted(runner.definition.graph.nodes)
    assert all(
        order.index(parent) <= order.index(name) for name in order for parent in runner.definition.graph[name].parents
    )
    for join in (node for node in runner.definition.graph.nodes.values() if node.joins and node.name in run):
        split = runner.definition.graph[str(join.joins)]
        for task in run[join.name]:
            stacks, own = [stack for _, stack in task.data.seen], task.data.trace[1]
            if split.is_wide:
                assert stacks == [(*own, i) for i in range(len(stacks))]
            else:
                assert stacks == [own] * len(split.next)


def test_max_parallel_is_a_number_that_the_step_may_compute(tmp_path: Path) -> None:
    """The branches come out as without it; a wrong number is reported."""
    text = """
        class F(FlowSpec):
            @step
            def start(self):
                self.items = range(7)
                self.next(self.work, foreach="items", max_parallel={limit})
            @step
            def work(self):
                self.square = self.input ** 2
                self.next(self.join)
            @step
            def join(self, inputs):
                self.squares = [i.square for i in inputs]
                self.next(self.end)
            @step
            def end(self): pass
    """
    for number, limit in enumerate(["1", "len(self.items) // 3", "100", "None"]):
        data = run_source(tmp_path / str(number), text.replace("{limit}", limit)).data
        assert data is not None
        assert data.squares == [i * i for i in range(7)]
    for limit, words in {"len([])": "it has to be at least 1", "self.items": "not a number"}.items():
        with pytest.raises(Failed, match=f"max_parallel of step start is .*{words}"):
            run_source(tmp_path / words, text.replace("{limit}", limit))


def test_num_parallel_runs_a_step_that_often(tmp_path: Path) -> None:
    """Each process knows which one it is, how many there are and where the first one is."""
    run = run_source(
        tmp_path,
        """
        from k8sflow import current, parallel
        class F(FlowSpec):
            nodes = Parameter("nodes", default=3)
            @step
            def start(self):
                self.next(self.train, num_parallel=self.nodes)
            @parallel
            @step
            def train(self):
                p = current.parallel
                self.seen = (p.main_ip, p.node_index, p.num_nodes, p.control_task_id)
                self.where = (self.index, self.input, current.is_parallel)
                self.next(self.after)
            @step
            def after(self):
                self.is_parallel = current.is_parallel
                self.next(self.join)
            @step
            def join(self, inputs):
                self.seen = [i.seen for i in inputs]
                self.wheres = [i.where for i in inputs]
                self.later = [i.is_parallel for i in inputs]
                self.next(self.end)
            @step
            def end(self): pass
        """,
    )
    data = run.data
    assert data is not None
    assert data.seen == [("127.0.0.1", i, 3, "0") for i in range(3)]
    assert data.wheres == [(i, i, True) for i in range(3)]
    assert data.later == [False] * 3


@pytest.mark.parametrize(("nodes", "words"), [("0 * 1", "at least 1"), ("'2'.strip()", "not a number")])
def test_a_wrong_num_parallel_is_reported(tmp_path: Path, nodes: str, words: str) -> None:
    """When the step has computed it."""
    with pytest.raises(Failed, match=words):
        run_source(
            tmp_path,
            f"""
            from k8sflow import parallel
            class F(FlowSpec):
                @step
                def start(self):
                    self.next(self.train, num_parallel={nodes})
                @parallel
                @step
                def train(self):
                    self.next(self.join)
                @step
                def join(self, inputs):
                    self.next(self.end)
                @step
                def end(self): pass
            """,
        )


def test_a_flow_begins_and_ends_where_it_says(tmp_path: Path) -> None:
    """Under other names, also in a flow of one step."""
    run = run_source(
        tmp_path / "1",
        """
        class F(FlowSpec):
            @step(start=True)
            def load(self):
                self.x = 1
                self.next(self.start)
            @step
            def start(self):
                self.x += 1
                self.next(self.save)
            @step(end=True)
            def save(self):
                self.x += 1
        """,
    )
    assert run.successful
    assert run.data is not None
    assert run.data.x == 3
    assert run.end_task is not None
    assert run.end_task.pathspec == "F/r1/save/0"
    single = run_source(
        tmp_path / "2", "class F(FlowSpec):\n    @step(start=True, end=True)\n    def only(self):\n        self.x = 7\n"
    )
    assert single.data is not None
    assert single.data.x == 7


def test_a_flow_inherits_switches_and_starts(tmp_path: Path) -> None:
    """And a step of its own takes the place of its base's, also that of the start."""
    run = run_source(
        tmp_path,
        """
        class Base(FlowSpec):
            rounds = 2
            @step(start=True)
            def load(self):
                self.n = 0
                self.next(self.turn)
            @step
            def turn(self):
                self.n += self.by()
                self.enough = self.n >= self.rounds
                self.next({True: self.end, False: self.turn}, condition="enough")
            @step
            def end(self): pass
            def by(self):
                return 1
        class Middle(Base):
            rounds = 8
            def by(self):
                return 2
        class F(Middle):
            @step(start=True)
            def load(self):
                self.n = 1
                self.next(self.turn)
        """,
    )
    assert run.data is not None
    assert run.data.n == 9
    assert len(list(run["turn"])) == 4
