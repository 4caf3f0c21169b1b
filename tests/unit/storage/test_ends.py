"""The ends of tasks in the names of objects: what was written is read, and anything else is ignored."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from k8sflow.storage.ends import TaskEnd, ends_of, name_of_end
from k8sflow.storage.usage import Usage

AMOUNTS = st.none() | st.integers(0, 2**60)
TIMES = st.floats(0, 4e9, allow_nan=False)
USAGES = st.builds(Usage, AMOUNTS, st.none() | st.floats(0, 1e9), AMOUNTS, AMOUNTS, st.booleans()).filter(
    lambda usage: any(value is not None for value in list(vars(usage).values())[:4])
)
ENDS = st.builds(TaskEnd, st.integers(0, 99), TIMES, TIMES, st.booleans(), st.none() | USAGES)


@given(ENDS, st.sampled_from(["0", "3.1", "3.1-2", "99999.99999.99999-7"]))
def test_an_end_is_read_as_it_was_written(end: TaskEnd, task: str) -> None:
    name = name_of_end(task, end)
    assert ends_of([name]) == {task: end}
    assert len(name) < 200
    assert "/" not in name


def test_other_names_are_ignored_and_the_last_attempt_counts() -> None:
    first, second = TaskEnd(1, 1.0, 2.0), TaskEnd(2, 3.0, 4.0)
    names = [name_of_end("7", second), name_of_end("7", first), "7", "8_a1", "8_ax_s1_f1", "9_a0_s1_f2_m1x", ""]
    assert ends_of(names) == {"7": second}
    assert ends_of(["7_a0_s1_f2_z5"]) == {"7": TaskEnd(0, 1.0, 2.0)}, "a newer version adds something"
