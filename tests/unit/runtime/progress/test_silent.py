"""The line about tasks that run without showing their output."""

from __future__ import annotations

import io

from k8sflow.executors.base import Finished, Started
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.progress import reporter as made
from k8sflow.runtime.progress.silent import Silent
from k8sflow.task.result import TaskResult, Transition
from k8sflow.task.spec import TaskName, TaskSpec


def start(silent: Silent, name: TaskName) -> None:
    silent.event(Started(TaskSpec("F", "r1", name), "pod p", is_followed=False))


def end(silent: Silent, name: TaskName) -> None:
    silent.event(Finished(TaskSpec("F", "r1", name), TaskResult(Outcome.SUCCEEDED, Transition())))


def test_the_number_is_reported_when_it_changes_but_not_all_the_time() -> None:
    now = [100.0]
    silent = Silent(lambda: now[0])
    assert silent.due() is None
    start(silent, TaskName("work", (7,)))
    assert silent.due() == "1 more task is running; its output"
    for index in range(379):
        start(silent, TaskName("work", (100 + index,)))
        assert silent.due() is None
    now[0] += 11
    assert silent.due() == "380 more tasks are running; the output of one of them"
    now[0] += 11
    assert silent.due() is None
    assert silent.example == TaskName("work", (478,))
    for index in range(379):
        end(silent, TaskName("work", (100 + index,)))
    assert silent.due() == "1 more task is running; its output"
    end(silent, TaskName("work", (7,)))
    now[0] += 11
    assert silent.due() is None


def test_the_run_says_how_the_output_of_such_a_task_is_read() -> None:
    stream = io.StringIO()
    reporter = made(0.0, "logs r1/{}".format, stream=stream)
    task = TaskSpec("F", "r1", TaskName("work", (1,)))
    reporter.submitted([task])
    reporter.event(Started(task, "pod p", is_followed=False))
    reporter.event(Finished(task, TaskResult(Outcome.SUCCEEDED, Transition())))
    assert "1 more task is running; its output: logs r1/work/1\n" in stream.getvalue()
