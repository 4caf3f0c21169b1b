"""The runs that a system such as Kubernetes or AWS Batch works for: which a person means, and their end.

Another process may drive a run; it is asked to cancel it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from k8sflow.errors import K8sflowError, NotFoundError, RunError, StorageError
from k8sflow.flow.outcome import Outcome
from k8sflow.runtime.lookup import Runs
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.storage.lease import EXPIRY_SECONDS, lease_of
from k8sflow.storage.records import CancelRequest, OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.user import current_user

_LOOK_SECONDS = 0.5
_READ_AT_ONCE = 16
# A driver looks for a request every ten seconds, and then deletes what there is.
_ANSWER_SECONDS = EXPIRY_SECONDS + 30.0


class Work(Protocol):
    """A Job, a pod or a job of a run, with one or more of its tasks."""

    @property
    def run(self) -> str:
        """The run's id."""

    @property
    def is_over(self) -> bool:
        """True if nothing of it runs or will."""


_Work_co = TypeVar("_Work_co", bound=Work, covariant=True)


class RemoteRuns(Protocol[_Work_co]):
    """The runs of a flow on a system."""

    @property
    def system(self) -> str:
        """The name of the system, for people."""

    @property
    def command(self) -> str:
        """The group of commands about it."""

    @property
    def fate(self) -> str:
        """The effect of a kill on the work of a run: ``its Jobs are deleted``."""

    @property
    def runs(self) -> Runs:
        """The records of the runs."""

    def work(self, run: str | None = None) -> Iterable[_Work_co]:
        """The work for one run or for all, including recently ended work that the system still knows."""

    def has_steps(self, record: RunRecord) -> bool:
        """True if the system runs a step of the run."""

    def check(self, run: RunStore) -> None:
        """Raises an error if the work of the run can't be ended."""

    def end(self, run: RunStore) -> None:
        """Ends the work of a run."""


def selected(remote: RemoteRuns[_Work_co], run: str | None, user: str | None, *, ended: bool) -> list[_Work_co]:
    """The work that a person asks for.

    Args:
        remote: The flow's runs.
        run: The run, ``run`` or ``flow/run``; None for all.
        user: Who started the runs; None for everybody.
        ended: Whether work that is over counts too.

    Raises:
        NotFoundError: There is no such run.
    """
    found = remote.work(remote.runs.named(run).run if run is not None else None)
    found = [work for work in found if ended or not work.is_over]
    if user is None:
        return found
    users = _users(remote.runs, {work.run for work in found})
    return [work for work in found if users.get(work.run) == user]


def runs_to_kill(remote: RemoteRuns[Work], run: str | None, user: str | None) -> list[RunStore]:
    """The runs that a person asks to end: one, or all of a user for which there is unfinished work.

    Args:
        remote: The flow's runs.
        run: The run; None for the user's own latest one, unless a user is named.
        user: Whose runs.

    Raises:
        NotFoundError: There is no such run.
        RunError: It has ended.
    """
    if user is not None:
        return [remote.runs[name] for name in sorted({work.run for work in selected(remote, None, user, ended=False)})]
    found = remote.runs.named(run) if run is not None else remote.runs.latest_own()
    outcome = found.read_run_outcome()
    if outcome is not None and all(work.is_over for work in remote.work(found.run)):
        raise RunError(
            f"{found.pathspec} is over: it {'succeeded' if outcome.outcome is Outcome.SUCCEEDED else 'has ended'}.",
            advice=f"`{remote.command} list` shows the runs that have unfinished tasks.",
        )
    if outcome is None and not remote.has_steps(found.read()):
        raise RunError(
            f"no step of {found.pathspec} runs on {remote.system}.", advice="Press Ctrl-C where it is driven."
        )
    return [found]


def kill_all(remote: RemoteRuns[Work], runs: Iterable[RunStore], console: Console) -> None:
    """Ends runs; where one can't be ended, the others are ended too before its error is raised.

    Raises:
        K8sflowError: The first that ``kill`` raised.
    """
    failures = []
    for run in runs:
        try:
            kill(remote, run, console)
        except K8sflowError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def kill(remote: RemoteRuns[Work], run: RunStore, console: Console) -> None:
    """Ends a run: its driver is asked to cancel it, and its work is ended; without a driver, it is marked.

    Of a run that has ended, as after a failure, the work that nobody could end is ended.

    Raises:
        KubernetesError: The Jobs may not be deleted, or the cluster is another one, without the run's namespace.
        BatchError: The jobs may not be terminated.
        RunError: Its driver doesn't answer.
    """
    if run.read_run_outcome() is not None:
        remote.check(run)
        remote.end(run)
        console.say(f"{run.pathspec} had ended already; {remote.fate}.", Tone.GOOD)
        return
    request = CancelRequest(current_user(), socket.gethostname(), time.time())
    is_detached = run.read().is_detached
    remote.check(run)
    run.request_cancel(request)
    remote.end(run)
    if _ended_by_driver(run, request, is_detached=is_detached):
        console.say(f"{run.pathspec} was {request.summary}; {remote.fate}.", Tone.GOOD)
        return
    console.say(f"{run.pathspec} had no driver; it is marked as cancelled, and {remote.fate}.", Tone.GOOD)


def _users(runs: Runs, names: set[str]) -> dict[str, str]:
    """The users who started some runs; without those that aren't in the bucket of the settings."""

    def user(name: str) -> tuple[str, str | None]:
        try:
            return name, runs[name].read().user
        except (NotFoundError, RunError, StorageError):
            return name, None

    with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        return {name: found for name, found in pool.map(user, sorted(names)) if found is not None}


def _ended_by_driver(run: RunStore, request: CancelRequest, *, is_detached: bool) -> bool:
    """Waits for the run's end; False if it had no driver, and this process has written its end.

    Raises:
        RunError: Its driver lives and doesn't end it.
    """
    lease = lease_of(run)
    for _ in _looks(_ANSWER_SECONDS):
        if run.read_run_outcome() is not None:
            return True
        if not is_detached and lease.acquire():
            try:
                if run.read_run_outcome() is not None:
                    return True
                run.write_run_outcome(OutcomeRecord(Outcome.CANCELLED, time.time(), request.summary))
            finally:
                lease.release()
            return False
    if is_detached:  # its driver was killed before it could write the end
        run.write_run_outcome(OutcomeRecord(Outcome.CANCELLED, time.time(), request.summary))
        return False
    raise RunError(
        f"{run.pathspec} was not cancelled within {_ANSWER_SECONDS:.0f} s: "
        f"its driver, {lease.holder()}, doesn't answer.",
        cause="Its jobs are ended, and the driver was asked to end the run; it may run an older version of k8sflow.",
        advice="End that process.",
    )


def _looks(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(_LOOK_SECONDS)
