"""A task's result fits the termination message, whatever a person wrote into an exception."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sflow.flow.outcome import Outcome
from k8sflow.task.result import TERMINATION_MESSAGE_BYTES, Failure, TaskResult, Transition, failed
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec

TEXT = st.text(st.characters(), max_size=50)
# A little text many times: as long as a traceback with output in it.
LONG = st.builds(lambda text, times: text * times, TEXT, st.integers(0, 2000))
FAILURES = st.builds(
    failed,
    st.sampled_from([o for o in Outcome if o.is_failure]),
    LONG,
    LONG,
    LONG,
)


@given(FAILURES)
def test_a_termination_message_is_always_json_and_always_fits(result: TaskResult) -> None:
    """Kubernetes would cut it, and half a document is none."""
    message = result.to_termination_message()
    assert len(message.encode()) <= TERMINATION_MESSAGE_BYTES
    read = TaskResult.from_json(message)
    assert read.outcome is result.outcome
    assert read.failure is not None
    assert "\n" not in message


@given(FAILURES)
def test_what_is_cut_keeps_as_much_as_fits(result: TaskResult) -> None:
    """The end of a traceback is worth more than its head: of any script, most of the room is used for it."""
    message = result.to_termination_message()
    if message != result.to_json():
        assert len(message.encode()) > TERMINATION_MESSAGE_BYTES - 100


@pytest.mark.parametrize("letter", ["x", "ü", "語", "🦆", "\x01", '"', "\n", "\ud800"])
def test_a_long_detail_keeps_its_end(letter: str) -> None:
    """Whatever a letter costs in JSON."""
    diagnosis = Failure("ValueError: x", "head" + letter * 10_000 + "the last line", "do this")
    read = TaskResult.from_json(TaskResult(Outcome.USER_ERROR, failure=diagnosis).to_termination_message()).failure
    assert read is not None
    assert read.summary == "ValueError: x"
    assert read.resolution == "do this"
    assert read.detail.endswith("the last line")
    assert read.detail.startswith("…")
    assert len(read.detail) > 600


def test_a_long_summary_keeps_its_beginning() -> None:
    """An exception's text of a megabyte."""
    diagnosis = Failure("ValueError: begin" + "語" * 1_000_000, "detail " * 1000, "resolution")
    read = TaskResult.from_json(TaskResult(Outcome.USER_ERROR, failure=diagnosis).to_termination_message()).failure
    assert read is not None
    assert read.summary.startswith("ValueError: begin語")
    assert read.detail.endswith("detail ")


@given(st.lists(TEXT, max_size=5), st.none() | st.integers(0, 10**9))
def test_a_result_comes_back_from_json(steps: list[str], width: int | None) -> None:
    """As it was."""
    result = TaskResult(Outcome.SUCCEEDED, Transition(tuple(_clean(s) for s in steps), width))
    assert TaskResult.from_json(result.to_json()) == result


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def test_a_transition_that_does_not_fit_is_left_to_the_store() -> None:
    """Hundreds of branches with long names: the commit has them."""
    result = TaskResult(Outcome.SUCCEEDED, Transition(tuple(f"step_{i:060}" for i in range(200))))
    message = result.to_termination_message()
    assert len(message.encode()) <= TERMINATION_MESSAGE_BYTES
    with pytest.raises(ValueError, match="not a task result"):
        TaskResult.from_json(message)
    json.loads(message)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", "null", '"x"', "{}", '{"outcome": "lost"}', '{"outcome": 1}',
     '{"outcome":"succeeded","transition":1}',
             '{"outcome":"user_error","diagnosis":{"x":1}}', '{"outcome":"succeeded","transition":{"steps":["a"]}}'],
)  # fmt: skip
def test_text_that_is_not_a_result_is_refused(text: str) -> None:
    """With one kind of error."""
    with pytest.raises(ValueError):  # noqa: PT011  the text is free
        TaskResult.from_json(text)


PATHS = st.lists(st.integers(0, 10**6), max_size=4).map(tuple)
SPECS = st.builds(
    TaskSpec,
    TEXT,
    TEXT,
    st.builds(TaskName, TEXT, PATHS),
    st.integers(0, 9),
    st.lists(st.builds(TaskInput, TEXT, PATHS, st.none() | st.integers(0, 10**6)), max_size=3).map(tuple),
)


@given(SPECS)
def test_a_task_comes_back_from_json(spec: TaskSpec) -> None:
    """On one line, as it was."""
    assert TaskSpec.from_json(spec.to_json()) == spec
    assert "\n" not in spec.to_json()


def test_a_range_of_parents_is_not_a_list_of_them() -> None:
    """A hundred thousand branches are three words."""
    inputs = TaskInput("work", (3,), 100_000)
    assert len(inputs) == 100_000
    assert inputs[99_999] == TaskName("work", (3, 99_999))
    with pytest.raises(IndexError):
        inputs[100_000]
    assert TaskInput("start", ())[0] == TaskName("start")
    assert len(TaskInput("work", (), 0)) == 0


@given(st.text(st.characters(), max_size=50), st.integers(0, 2000))
def test_a_note_travels_with_the_result_where_there_is_room(text: str, times: int) -> None:
    """It never makes a result unreadable; a success goes before its note."""
    result = TaskResult(Outcome.SUCCEEDED, Transition(("end",), 3), note=text * times)
    message = result.to_termination_message()
    assert len(message.encode()) <= TERMINATION_MESSAGE_BYTES
    found = TaskResult.from_json(message)
    assert (found.outcome, found.transition) == (result.outcome, result.transition)
    assert found.note in {result.note, ""}
    if len(result.note) < 300:
        assert found.note == result.note


def test_parts_of_names_that_are_not_utf8_are_kept() -> None:
    """As escapes, which JSON has for them."""
    diagnosis = Failure("caf\udce9.csv", is_final=True)
    result = TaskResult(Outcome.STORAGE_ERROR, failure=diagnosis)
    assert TaskResult.from_json(result.to_json().encode().decode()) == result
    assert "caf\\udce9.csv" in result.to_json()


def test_a_result_without_an_explanation_names_its_outcome() -> None:
    """A commit that another execution wrote and the store lost, say."""
    assert TaskResult(Outcome.STORAGE_ERROR).explained == Failure("storage_error")
    assert failed(Outcome.USER_ERROR, "it broke").explained == Failure("it broke")
