"""The start of processes that run together: none of them begins its step before all of them have a pod."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from k8sflow.flow.outcome import Outcome
from k8sflow.task.result import TaskResult, failed
from k8sflow.task.spec import TaskName, TaskSpec

# The type of the failure: the driver, which sees why the pods wait, explains it.
MISSING_PEERS = "MissingPeersError"
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_REPORT_AFTER_SECONDS = 10.0


class MissingPeersError(Exception):
    """Some of the processes had no pod in time.

    Args:
        result: How the task ends because of it.
    """

    def __init__(self, result: TaskResult) -> None:
        super().__init__(result.explained.summary)
        self.result = result


def wait_for_peers(
    peers: str,
    spec: TaskSpec,
    seconds: float,
    say: Callable[[str], None],
    address_of: Callable[[str], str] | None = None,
) -> str:
    """Waits until all processes have a pod; returns the address of the first.

    Args:
        peers: The host name of each, with ``%d`` for its index.
        spec: The task of one of them.
        seconds: How long it waits at most.
        say: Takes a message for people.
        address_of: Resolves a host name; raises OSError where it has no address.

    Raises:
        MissingPeersError: Some have none in time.
    """
    resolve = address_of or _address_of
    started, pause, is_reported = time.monotonic(), _FIRST_PAUSE_SECONDS, False
    missing = list(range(spec.nodes))
    addresses: dict[int, str] = {}
    while True:
        for index in missing:
            try:
                addresses[index] = resolve(peers % index)
            except OSError:
                continue
        missing = [index for index in missing if index not in addresses]
        waited = time.monotonic() - started
        if not missing:
            return addresses[0]
        if waited >= seconds:
            raise MissingPeersError(_missed(spec, missing, seconds))
        if waited >= _REPORT_AFTER_SECONDS and not is_reported:
            say(f"waits until all {spec.nodes} processes have a pod; missing: {_named(spec, missing)}.")
            is_reported = True
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def _address_of(host: str) -> str:
    return str(socket.getaddrinfo(host, None)[0][4][0])


def _missed(spec: TaskSpec, missing: list[int], seconds: float) -> TaskResult:
    return failed(
        Outcome.NEVER_STARTED,
        f"{len(missing)} of the {spec.nodes} processes that have to run together had no pod within {seconds:g} s: "
        f"{_named(spec, missing)}.",
        "The others, which had one, don't start without them.",
        "Request less with @resources, or wait longer with @kubernetes(hostname_resolution_timeout=…).",
        MISSING_PEERS,
    )


def _named(spec: TaskSpec, indices: list[int]) -> str:
    around = spec.name.path[:-1]
    return ", ".join(str(TaskName(spec.name.step, (*around, index), spec.name.turn)) for index in indices)
