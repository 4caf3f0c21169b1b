"""The timeline of a traced run: which phase of which task took how long, and which tasks the run's duration is made of.

The times of the driver and of the nodes come from different clocks. An effect can't precede its cause: a pod's process
starts after the driver has submitted its task, and the driver sees the end after it has come. So each task gives
bounds for the difference of two clocks; where they exclude 0, the node's times are shifted by the smallest difference
within them. The API server's times, which have whole seconds, are not used.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from k8sflow.storage.trace import DriverMoment, ExecutionTrace, RunTrace

# The phases of an execution in their order; one of which the end is not known is a part of the next one.
PHASES = {
    "queued": "waiting for its Job, or on this machine for a worker",
    "scheduling": "waiting for a node",
    "container": "image pull and start of the container",
    "python": "start of Python and of the agent",
    "fetching": "download of the code package",
    "turn": "waiting for its turn in a pod that branches share",
    "loading": "import of the flow, and its inputs",
    "user code": "your step",
    "storing": "its artifacts, and the commit",
    "reporting": "until the driver knew",
    "unknown": "killed, or still running: it has no times of its own",
}
DRIVER = "driver"
# The moment that ends each phase.
_QUEUED = {"queued": "created", "scheduling": "scheduled"}
_OWN = {"loading": "began", "user code": "ended", "storing": "committed", "reporting": "seen"}
_STARTING = {**_QUEUED, "container": "process", "python": "agent", "fetching": "fetched"}
_IN_POD = {**_STARTING, **_OWN}
_IN_SHARED_POD = {**_STARTING, "turn": "forked", **_OWN}
_IN_KILLED_POD = {**_QUEUED, "container": "started", "unknown": "seen"}
_HERE = {"queued": "forked", **_OWN}
_KILLED_HERE = {"queued": "started", "unknown": "seen"}
_Key = tuple[str, str, int]


@dataclass(frozen=True)
class Span:
    """A phase of an execution: its beginning and its end, in seconds since 1970 by the driver's clock."""

    phase: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.end - self.start


@dataclass(frozen=True)
class Execution:
    """An execution of a task.

    Args:
        step: The task's step.
        task: Its id.
        attempt: The execution.
        spans: Its phases.
        outcome: How it ended; empty while it runs.
        node: The node of its pod; empty on the driver's machine.
        pod: Its pod.
    """

    step: str
    task: str
    attempt: int
    spans: tuple[Span, ...]
    outcome: str = ""
    node: str = ""
    pod: str = ""

    @property
    def name(self) -> str:
        """``step/task``, and the attempt if there was one before it."""
        return f"{self.step}/{self.task}" + (f" (attempt {self.attempt})" if self.attempt else "")

    @property
    def start(self) -> float:
        """When it was submitted."""
        return self.spans[0].start

    @property
    def ready(self) -> float:
        """When it no longer waited for its Job, or for a worker."""
        return self.spans[0].end if self.spans[0].phase == "queued" else self.start

    @property
    def released(self) -> float:
        """When it had ended, and another one could start in its stead."""
        return self.spans[-1].start if self.spans[-1].phase == "reporting" else self.end

    @property
    def end(self) -> float:
        """When the driver saw its end, or the last that is known of it."""
        return self.spans[-1].end


@dataclass(frozen=True)
class ClockOffset:
    """A node's clock, which is between ``least`` and ``most`` seconds ahead of the driver's."""

    node: str
    least: float
    most: float

    @property
    def ahead(self) -> float:
        """The difference nearest to none within the bounds."""
        if self.least > self.most:  # it was changed while the run was under way
            return (self.least + self.most) / 2
        return min(max(0.0, self.least), self.most)


@dataclass(frozen=True)
class Timeline:
    """The timeline of a run.

    Args:
        start: When the run was created.
        end: When it ended, or the last that is known.
        executions: Its executions, the first submitted first.
        chain: The executions that each waited for the one before, from the run's start to its end.
        clocks: The clocks of the nodes.
        drivers: The processes that drove it.
        durations: The seconds of the run's duration by phase, along the chain, and those of the driver.
    """

    start: float
    end: float
    executions: tuple[Execution, ...]
    chain: tuple[Execution, ...] = ()
    clocks: tuple[ClockOffset, ...] = ()
    drivers: tuple[str, ...] = ()
    durations: Mapping[str, float] = field(default_factory=dict)

    def of_step(self, step: str) -> Timeline:
        """The part of a step, from its first task to its last."""
        found = tuple(execution for execution in self.executions if execution.step == step)
        start, end = found[0].start, max(execution.end for execution in found)
        return _timeline(start, end, found, self.clocks, self.drivers)


def build(trace: RunTrace, start: float, end: float | None) -> Timeline:
    """The timeline of what was traced.

    Args:
        trace: The trace.
        start: When the run was created, by the driver's clock.
        end: When it ended; None while it runs.
    """
    seen: dict[_Key, dict[str, DriverMoment]] = defaultdict(dict)
    for moment in trace.moments:
        seen[moment.step, moment.task, moment.attempt][moment.moment] = moment
    own = {(found.step, found.task, found.attempt): found for found in trace.executions}
    clocks = _clocks(seen, own)
    executions = [
        _execution(key, moments, own.get(key), clocks) for key, moments in seen.items() if "submitted" in moments
    ]
    executions.sort(key=lambda execution: execution.start)
    last = max((execution.end for execution in executions), default=start)
    return _timeline(start, max(end or last, last), tuple(executions), tuple(clocks.values()), tuple(trace.drivers))


def _timeline(
    start: float,
    end: float,
    executions: tuple[Execution, ...],
    clocks: tuple[ClockOffset, ...],
    drivers: tuple[str, ...],
) -> Timeline:
    chain: list[Execution] = []
    durations = dict.fromkeys(PHASES, 0.0)
    for execution, since, until in _chain(executions):
        chain.append(execution)
        for span in execution.spans:
            durations[span.phase] += max(0.0, min(span.end, until) - max(span.start, since))
    durations[DRIVER] = max(0.0, end - start - sum(durations.values()))
    return Timeline(start, end, executions, tuple(reversed(chain)), clocks, drivers, durations)


def _clocks(
    seen: Mapping[_Key, Mapping[str, DriverMoment]], own: Mapping[_Key, ExecutionTrace]
) -> dict[str, ClockOffset]:
    """The clocks of the nodes, from the bounds that the executions on them give."""
    found: dict[str, ClockOffset] = {}
    for key, trace in own.items():
        if not trace.node or not trace.moments:
            continue
        moments = seen.get(key, {})
        # A driver that has taken the Job over from another one submitted the task later than that.
        submitted = moments["submitted"].at if "created" in moments else float("-inf")
        end = moments["seen"].at if "seen" in moments else float("inf")
        least, most = max(trace.moments.values()) - end, min(trace.moments.values()) - submitted
        known = found.get(trace.node, ClockOffset(trace.node, float("-inf"), float("inf")))
        found[trace.node] = ClockOffset(trace.node, max(known.least, least), min(known.most, most))
    return found


def _execution(
    key: _Key, seen: Mapping[str, DriverMoment], own: ExecutionTrace | None, clocks: Mapping[str, ClockOffset]
) -> Execution:
    node = own.node if own is not None else ""
    ahead = clocks[node].ahead if node in clocks else 0.0
    times = {name: moment.at for name, moment in seen.items()}
    times |= {name: at - ahead for name, at in (own.moments if own is not None else {}).items()}
    node = node or (seen["scheduled"].detail if "scheduled" in seen else "")
    in_pod = _IN_SHARED_POD if "shared" in times else _IN_POD
    with_own, without = (in_pod, _IN_KILLED_POD) if node else (_HERE, _KILLED_HERE)
    return Execution(
        *key,
        spans=tuple(_spans(times, with_own if own is not None else without)),
        outcome=seen["seen"].detail if "seen" in seen else "",
        node=node,
        pod=own.pod if own is not None else "",
    )


def _spans(times: Mapping[str, float], ends: Mapping[str, str]) -> Iterator[Span]:
    """The phases between the moments; one whose end seems to precede its beginning takes no time."""
    now = times["submitted"]
    known = {phase: times[moment] for phase, moment in ends.items() if moment in times}
    for phase, end in (known or {"unknown": now}).items():
        yield Span(phase, now, max(now, end))
        now = max(now, end)


def _chain(executions: Sequence[Execution]) -> Iterator[tuple[Execution, float, float]]:
    """The executions that the duration is made of, from the last to the first, and since when until when each counts.

    Each waited for the one before: it was submitted when that one had ended, or it was queued until then.
    """
    ordered = sorted(executions, key=lambda execution: execution.released)
    releases = [execution.released for execution in ordered]
    index, until = len(ordered) - 1, float("inf")
    while index >= 0:
        execution = ordered[index]
        index = min(index, bisect.bisect_right(releases, execution.ready)) - 1
        since = float("-inf")
        if index >= 0:
            before = ordered[index]
            since = max(before.released, min(before.end, execution.start))
        yield execution, since, until
        until = since
