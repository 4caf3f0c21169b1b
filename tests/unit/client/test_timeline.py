"""The timeline of a traced run: phases, clocks that differ, killed tasks, and the chain that makes the duration."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from k8sflow.client.timeline import DRIVER, Execution, Timeline, build
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.trace import DriverMoment, ExecutionTrace, RunTrace, open_driver_trace, read_trace, write_execution

# A task that took a second for each phase in a pod.
SEEN = {"submitted": 0.0, "created": 1.0, "scheduled": 2.0, "started": 3.5, "seen": 9.0}
OWN = {"process": 3.0, "agent": 4.0, "fetched": 5.0, "forked": 5.1, "began": 6.0, "ended": 7.0, "committed": 8.0}


def seen(step: str, times: Mapping[str, float], task: str = "0", node: str = "n1") -> list[DriverMoment]:
    details = {"scheduled": node, "seen": "succeeded"}
    return [DriverMoment(step, task, 0, name, at, details.get(name, "")) for name, at in times.items()]


def own(step: str, times: Mapping[str, float], task: str = "0", node: str = "n1", ahead: float = 0.0) -> ExecutionTrace:
    return ExecutionTrace(step, task, 0, {name: at + ahead for name, at in times.items()}, node)


def phases(execution: Execution) -> dict[str, float]:
    return {span.phase: round(span.seconds, 3) for span in execution.spans}


def of(moments: list[DriverMoment], *executions: ExecutionTrace, end: float | None = None) -> Timeline:
    return build(RunTrace(["driver"], moments, list(executions)), 0.0, end)


def test_the_phases_of_a_task_in_a_pod():
    """Each moment ends one phase; together they are the time from its submission until the driver saw its end."""
    timeline = of(seen("a", SEEN), own("a", OWN))
    (execution,) = timeline.executions
    assert phases(execution) == dict.fromkeys(
        ["queued", "scheduling", "container", "python", "fetching", "loading", "user code", "storing", "reporting"], 1.0
    )
    assert (execution.start, execution.end, execution.outcome) == (0.0, 9.0, "succeeded")


def test_a_moment_that_is_not_known_makes_its_phase_a_part_of_the_next():
    timeline = of(seen("a", SEEN), own("a", {"fetched": 5.0, "began": 6.0, "ended": 7.0}))
    assert phases(timeline.executions[0]) == {
        "queued": 1.0,
        "scheduling": 1.0,
        "fetching": 3.0,
        "loading": 1.0,
        "user code": 1.0,
        "reporting": 2.0,
    }


def test_a_branch_in_a_shared_pod_waits_for_its_turn():
    """Neither that nor the start of its pod counts as the import of its flow."""
    shared = {**OWN, "shared": 5.5, "forked": 8.0, "began": 9.0, "ended": 10.0, "committed": 11.0}
    timeline = of(seen("a", {**SEEN, "seen": 12.0}), own("a", shared))
    assert phases(timeline.executions[0]) == {
        "queued": 1.0,
        "scheduling": 1.0,
        "container": 1.0,
        "python": 1.0,
        "fetching": 1.0,
        "turn": 3.0,
        "loading": 1.0,
        "user code": 1.0,
        "storing": 1.0,
        "reporting": 1.0,
    }


def test_a_killed_task_has_no_times_of_its_own():
    """The driver still knows when its container started, and when it ended."""
    timeline = of(seen("a", SEEN))
    assert phases(timeline.executions[0]) == {"queued": 1.0, "scheduling": 1.0, "container": 1.5, "unknown": 5.5}
    here = {"submitted": 0.0, "started": 2.0, "seen": 3.0}
    assert phases(of(seen("a", here)).executions[0]) == {"queued": 2.0, "unknown": 1.0}


@pytest.mark.parametrize("ahead", [3600.0, -3600.0])
def test_times_of_a_node_whose_clock_is_an_hour_off_are_shifted(ahead: float):
    """Until its process starts after the submission, and its end comes before the driver sees it."""
    timeline = of(seen("a", SEEN), own("a", OWN, ahead=ahead))
    (clock,) = timeline.clocks
    assert clock.least <= ahead <= clock.most
    assert abs(clock.ahead - ahead) <= clock.most - clock.least == 4.0
    assert phases(timeline.executions[0])["user code"] == 1.0
    assert timeline.end == 9.0


def test_clocks_that_may_agree_are_not_touched():
    timeline = of(seen("a", SEEN), own("a", OWN, ahead=0.4))
    assert timeline.clocks[0].ahead == 0.0
    assert phases(timeline.executions[0])["reporting"] == 0.6


def test_a_driver_that_took_a_job_over_says_nothing_about_the_clock_of_its_node():
    """It has submitted the task after the pod had started."""
    adopted = {"submitted": 6.5, "scheduled": 6.6, "started": 6.6, "seen": 9.0}
    timeline = of(seen("a", adopted), own("a", OWN))
    assert timeline.clocks[0].ahead == 0.0
    assert phases(timeline.executions[0])["storing"] == 1.0


def test_the_chain_goes_through_the_slowest_branch():
    """Its phases, and the driver's time between tasks, add up to the run's duration."""
    here = {"submitted": 1.0, "seen": 2.0}
    fast, slow = {"submitted": 2.1, "seen": 3.0}, {"submitted": 2.1, "seen": 5.0}
    join = {"submitted": 5.1, "seen": 6.0}
    timeline = of(
        [*seen("start", here), *seen("work", fast, "0"), *seen("work", slow, "1"), *seen("join", join)],
        own("start", {"forked": 1.1, "began": 1.2, "ended": 1.9, "committed": 1.9}, node=""),
        own("work", {"forked": 2.2, "began": 2.3, "ended": 4.9, "committed": 4.9}, "1", node=""),
        own("join", {"forked": 5.2, "began": 5.3, "ended": 5.9, "committed": 5.9}, node=""),
        end=6.5,
    )
    assert [each.name for each in timeline.chain] == ["start/0", "work/1", "join/0"]
    assert sum(timeline.durations.values()) == pytest.approx(6.5)
    assert timeline.durations[DRIVER] == pytest.approx(1.0 + 0.1 + 0.1 + 0.5)


def test_a_task_that_waited_for_a_worker_follows_the_one_that_had_it():
    """So that the time is that of the tasks before it, and not of the queue."""
    moments = [*seen("work", {"submitted": 0.0, "seen": 3.1}, "0"), *seen("work", {"submitted": 0.0, "seen": 6.2}, "1")]
    timeline = of(
        moments,
        own("work", {"forked": 0.1, "began": 0.1, "ended": 3.0, "committed": 3.0}, "0", node=""),
        own("work", {"forked": 3.05, "began": 3.05, "ended": 6.0, "committed": 6.0}, "1", node=""),
    )
    assert [each.name for each in timeline.chain] == ["work/0", "work/1"]
    assert timeline.durations["queued"] == pytest.approx(0.15)
    assert timeline.durations["user code"] == pytest.approx(5.85)


def test_ten_thousand_tasks_are_put_together():
    moments = [
        m for i in range(10_000) for m in seen("work", {"submitted": 0.0, "seen": i / 100 + 0.1}, str(i), node="")
    ]
    assert len(of(moments).executions) == 10_000


def test_a_trace_is_read_back_without_a_truncated_last_line():
    store = RunStore(MemoryStore(), "F", "r1")
    log = open_driver_trace(store, "d1")
    for moment in seen("a", SEEN):
        log.write(moment.to_line())
    log.write(b'{"step": "a", "task"')
    log.close()
    write_execution(store, own("a", OWN))
    trace = read_trace(store)
    assert trace == RunTrace(["d1"], seen("a", SEEN), [own("a", OWN)])
