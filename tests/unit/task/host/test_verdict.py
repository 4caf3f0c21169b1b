"""The verdict on a task's process: every combination of exit status, report, commit, order to end and kernel kills."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sflow.flow.outcome import Outcome
from k8sflow.task.failure import timed_out
from k8sflow.task.host.oom import Kills
from k8sflow.task.host.verdict import death, reported, verdict
from k8sflow.task.result import TaskResult, Transition, failed

CANCELLED = failed(Outcome.CANCELLED, "its pod was sent SIGTERM")
SUCCESS = TaskResult(Outcome.SUCCEEDED, Transition(("end",)))
USER_ERROR = failed(Outcome.USER_ERROR, "ValueError: x", "traceback")
NO_KILLS, ONE_KILL = Kills(3, 3), Kills(3, 4)

STATUSES = st.integers(0, 255).map(lambda code: code << 8) | st.sampled_from([9, 15, 11, 11 | 0x80, 26])
SAID = (
    st.none()
    | st.sampled_from([o for o in Outcome if o.is_failure]).map(lambda outcome: failed(outcome, "said"))
    | st.just(SUCCESS)
)
COMMITTED = st.none() | st.just(SUCCESS)
ENDED_FOR = st.none() | st.just(CANCELLED) | st.floats(1, 100).map(timed_out)
KILLS = st.builds(
    lambda before, more, explained: Kills(before, before + more, explained),
    st.integers(0, 5),
    st.integers(0, 2),
    st.none() | st.integers(0, 8),
)


@given(STATUSES, SAID, COMMITTED, ENDED_FOR, KILLS)
def test_a_success_and_an_explained_failure_stand(
    status: int, said: TaskResult | None, committed: TaskResult | None, ended_for: TaskResult | None, kills: Kills
) -> None:
    """A result that the host can't know better is returned as it is, the same object; so is every commit."""
    found = said or committed
    result = verdict(status, said, committed, ended_for, kills)
    if found is not None and found.outcome is not Outcome.USER_ERROR:
        assert result is found
    else:
        assert result.outcome in {Outcome.USER_ERROR, Outcome.CANCELLED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY}
        assert result.failure is not None


@given(STATUSES, st.none() | st.just(USER_ERROR), KILLS)
def test_a_cancelled_task_is_not_blamed(status: int, said: TaskResult | None, kills: Kills) -> None:
    """The signal reaches its children too, so its code may fail after it; that failure is the detail."""
    result = verdict(status, said, None, CANCELLED, kills)
    assert result.outcome is Outcome.CANCELLED
    assert result.failure is not None
    assert result.failure.summary == CANCELLED.explained.summary
    assert result.failure.detail == ("ValueError: x" if said else "")


@given(STATUSES, KILLS)
def test_a_task_that_was_killed_after_its_timeout_timed_out(status: int, kills: Kills) -> None:
    """Also where the kernel killed something meanwhile; one that reported its own failure failed."""
    assert verdict(status, None, None, timed_out(1), kills) == timed_out(1)
    assert verdict(status, USER_ERROR, None, timed_out(1), NO_KILLS) is USER_ERROR


@given(STATUSES, st.none() | st.just(USER_ERROR), KILLS)
def test_a_failure_is_out_of_memory_where_a_kill_explains_it(
    status: int, said: TaskResult | None, kills: Kills
) -> None:
    """Never without a kill since the task's start; the other explanation stays in the detail."""
    result = verdict(status, said, None, None, kills)
    assert result.outcome in {Outcome.USER_ERROR, Outcome.OUT_OF_MEMORY}
    if kills.now == kills.before:
        assert result == (said or death(status))
    elif kills.explained is None or status == signal.SIGKILL:
        assert result.outcome is Outcome.OUT_OF_MEMORY
        assert result.failure is not None
        assert (said or death(status)).explained.summary in (result.failure.detail)


def test_a_shared_cgroups_kill_explains_one_failure() -> None:
    """Local tasks share one counter: a kill that explains another task's failure doesn't explain a child's death."""
    beside = Kills(3, 4, explained=4)
    assert verdict(1 << 8, USER_ERROR, None, None, beside) is USER_ERROR
    assert verdict(1 << 8, USER_ERROR, None, None, Kills(3, 4, explained=3)).outcome is Outcome.OUT_OF_MEMORY
    assert verdict(9, None, None, None, beside).outcome is Outcome.OUT_OF_MEMORY
    assert verdict(1 << 8, USER_ERROR, None, None, ONE_KILL).outcome is Outcome.OUT_OF_MEMORY


def test_the_figures_and_the_remedy_depend_on_who_shares_the_memory() -> None:
    """A pod asks for more; a task on this machine may also have fewer beside it."""
    figures = {"limit": 210_000_000, "peak": 209_000_000}
    pod = verdict(9, None, None, None, Kills(0, 1, None, figures)).failure
    local = verdict(9, None, None, None, Kills(0, 1, 0, figures)).failure
    assert pod is not None
    assert local is not None
    assert "its limit of 210 MB" in pod.summary
    assert "limit 210 MB, peak 209 MB" in pod.detail
    assert "--max-workers" in local.resolution
    assert all("memory=420" in found.resolution for found in (pod, local))


@pytest.mark.parametrize("number", range(1, signal.NSIG))
def test_every_signal_has_a_diagnosis(number: int) -> None:
    """Real-time signals too, which have no names in Python."""
    found = death(number)
    assert "killed by" in found.explained.summary
    assert found.outcome is Outcome.USER_ERROR


def test_the_common_ends_say_what_to_do() -> None:
    """As far as one can know."""
    assert "SIGKILL" in death(9).explained.summary
    assert "out-of-memory" in death(9).explained.resolution
    assert "SIGSEGV" in death(11 | 0x80).explained.summary
    assert "exit code 3" in death(3 << 8).explained.summary
    assert "os._exit" in death(0).explained.resolution


def test_a_killed_processs_report_is_ignored() -> None:
    """It may be half a document."""
    text = TaskResult(Outcome.SUCCEEDED, Transition()).to_json().encode()
    assert reported(text, 0) == TaskResult(Outcome.SUCCEEDED, Transition())
    assert reported(text, 9) is None
    assert reported(b"", 0) is None
    assert reported(text[:-1], 0) is None
    assert reported(b"\xff", 0) is None
