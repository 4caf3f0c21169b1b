"""Advice about ``@resources``: the amounts that the steps of a flow asked for, next to those that their tasks used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from k8sflow.flow.decorators import quantity
from k8sflow.storage.ends import TaskEnd
from k8sflow.storage.records import RunRecord

_MEGABYTE = 10**6
# A request is far off if less than half of it was ever used, or nearly all of it.
_LITTLE, _NEARLY_ALL = 0.5, 0.9
# A suggestion leaves so much room above the most that was used, and is a multiple of this.
_ROOM, _MEMORY_STEP_MB = 1.3, 128
# The number of cores that a shorter task used says little.
_SHORT_SECONDS = 5.0


@dataclass(frozen=True)
class Requested:
    """The resources that a step requests for each task; None for those that it leaves to the default.

    Args:
        memory_bytes: The memory.
        cores: The number of cores.
    """

    memory_bytes: int | None = None
    cores: float | None = None

    @staticmethod
    def of(record: RunRecord, step: str) -> Requested:
        """The resources that a step requested in a run."""
        pod, job = record.pods.get(step), record.batch.get(step)
        named: Mapping[str, str | None] = record.resources.get(step, {})
        if job is not None:
            named = {"cpu": job.cpu, "memory": job.memory}
        elif pod is not None and (pod.branches_per_pod or 1) == 1:
            named = {"cpu": pod.cpu, "memory": pod.memory}
        cpu, memory = named.get("cpu"), named.get("memory")
        return Requested(int(quantity.parse(memory)) if memory else None, float(quantity.parse(cpu)) if cpu else None)


@dataclass
class StepUse:
    """The use of resources by the tasks of one step, in several runs.

    Args:
        step: The step.
        requested: The resources that it requested in the latest of these runs.
        runs: The number of runs in which tasks were measured.
        tasks: The number of these tasks.
        memory_bytes: The largest peak of a task's memory; None if it was not measured.
        is_partial: True if this is only that of one of several processes of a task.
        cores: The most CPU seconds per second that a task of some length used; None if there was none.
    """

    step: str
    requested: Requested
    runs: int = 0
    tasks: int = 0
    memory_bytes: int | None = None
    is_partial: bool = False
    cores: float | None = None

    def add(self, ends: Iterable[TaskEnd]) -> None:
        """Adds the tasks of one run."""
        measured = [end for end in ends if end.usage is not None]
        self.runs += bool(measured)
        self.tasks += len(measured)
        for end in measured:
            usage, seconds = end.usage, end.finished - end.started
            if usage is None:
                continue
            if usage.memory_bytes is not None:
                self.memory_bytes = max(self.memory_bytes or 0, usage.memory_bytes)
                self.is_partial |= usage.is_partial
            if usage.cpu_seconds is not None and seconds >= _SHORT_SECONDS:
                self.cores = max(self.cores or 0.0, usage.cpu_seconds / seconds)

    @property
    def advice(self) -> list[str]:
        """Sentences about the requests that are far off; none if they fit, or if too little is known."""
        return [*self._about_memory(), *self._about_cores()]

    def _about_memory(self) -> Iterable[str]:
        asked, used = self.requested.memory_bytes, self.memory_bytes
        if asked is None or used is None:
            return
        enough = math.ceil(used * _ROOM / _MEGABYTE / _MEMORY_STEP_MB) * _MEMORY_STEP_MB
        how = "or more" if self.is_partial else "at most"
        said = f"asked for {_megabytes(asked)}, used {_megabytes(used)} {how} in {self._where}"
        if used < asked * _LITTLE and enough * _MEGABYTE < asked:
            if self.is_partial:
                yield f"{said}: its tasks had several processes, whose memory was not added up"
                return
            yield f"{said}: @resources(memory={enough}) would do"
        elif used > asked * _NEARLY_ALL:
            yield f"{said}, which is nearly all: @resources(memory={enough}) would leave some room"

    def _about_cores(self) -> Iterable[str]:
        asked, used = self.requested.cores, self.cores
        if asked is None or used is None or asked <= 1 or used >= asked * _LITTLE:
            return
        enough = max(1, math.ceil(used * _ROOM))
        if enough < asked:
            said = f"asked for {asked:g} cores, used {used:.1f} at most in {self._where}"
            yield f"{said}: @resources(cpu={enough}) would do"

    @property
    def _where(self) -> str:
        return f"{self.runs:,} run{'' if self.runs == 1 else 's'}"


@dataclass
class FlowUse:
    """The use of resources by the steps of a flow.

    Args:
        steps: The steps of the latest run, in the order of the source.
        unreadable: The runs whose records can't be read, and why.
    """

    steps: dict[str, StepUse] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def add(self, record: RunRecord, ends: Mapping[str, Iterable[TaskEnd]]) -> None:
        """Adds a run; the latest one first.

        Args:
            record: Its record.
            ends: The ends of its tasks, by step.
        """
        if not self.steps:
            self.steps = {step: StepUse(step, Requested.of(record, step)) for step in record.steps}
        for step, found in ends.items():
            if step in self.steps:
                self.steps[step].add(found)


def _megabytes(count: int) -> str:
    return f"{count / _MEGABYTE:,.0f} MB"
