"""``@retry``, ``@timeout`` and ``@catch``: what happens when a step fails or takes too long.

What they say travels in the run's record as ``StepPolicy``, so that a driver without the flow's code can act on it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from k8sflow.flow.decorators.kind import Decoration, DecoratorKind, Option
from k8sflow.flow.decorators.step import options_of

# The outcomes that a user's retries are spent on; what the infrastructure does is retried on a budget of its own.
PAID = ("user_error", "timed_out", "out_of_memory")
# The pauses where minutes_between_retries is not written. On Kubernetes what failed may need minutes to recover. On
# this machine a person waits: 1 s, 2 s, 4 s, so that a server that fails for a moment doesn't meet all retries at once.
DEFAULT_MINUTES_ON_KUBERNETES = 2.0
DEFAULT_SECONDS_HERE = 1.0
DEFAULT_BACKOFF_HERE = 2.0
DEFAULT_LONGEST_SECONDS_HERE = 60.0
# How long a step has for its except and finally blocks, and for saving what it has set, after its timeout.
DEFAULT_GRACE_SECONDS = 10.0
_SECONDS = 60.0


@dataclass(frozen=True)
class Retry:
    """How often a task is run again, and after what pause.

    Args:
        times: How many times at most.
        pause_seconds: How long it waits before the first of them.
        backoff: What each pause is multiplied with for the next one.
        longest_pause_seconds: What no pause is longer than.
        on: The outcomes after which it is run again.
    """

    times: int = 0
    pause_seconds: float = 0.0
    backoff: float = 1.0
    longest_pause_seconds: float | None = None
    on: tuple[str, ...] = PAID

    def pause_before(self, number: int) -> float:
        """Seconds to wait before the retry of this number, from 1."""
        try:
            pause = self.pause_seconds * self.backoff ** (number - 1)
        except OverflowError:
            pause = float("inf")
        longest = self.longest_pause_seconds
        return pause if longest is None else min(pause, longest)


@dataclass(frozen=True)
class Catch:
    """What becomes of a step that has failed for good.

    Args:
        var: The artifact that holds the exception, or None.
        print_exception: Whether it is shown.
    """

    var: str | None = None
    print_exception: bool = True


@dataclass(frozen=True)
class TimeLimit:
    """How long an execution of a step's task may take.

    Args:
        seconds: When TimeoutException is raised in the step.
        grace_seconds: How much later the task is killed, if it is still there; 0 kills it at once.
    """

    seconds: float
    grace_seconds: float = DEFAULT_GRACE_SECONDS


@dataclass(frozen=True)
class StepPolicy:
    """The rules for the tasks of a step.

    Args:
        retry: How often a failed task is run again.
        timeout_seconds: How long an execution may take; None for any time.
        catch: What becomes of a task that has failed for good; None where it ends the run.
        grace_seconds: How long a task may take to end after its timeout.
    """

    retry: Retry = Retry()
    timeout_seconds: float | None = None
    catch: Catch | None = None
    grace_seconds: float = DEFAULT_GRACE_SECONDS

    @property
    def time_limit(self) -> TimeLimit | None:
        """How long an execution may take; None for any time."""
        return None if self.timeout_seconds is None else TimeLimit(self.timeout_seconds, self.grace_seconds)

    def is_run_again(self, outcome: str, execution: int) -> bool:
        """Whether a task is certainly run again after it failed in its execution of this number, from 0."""
        return outcome in self.retry.on and execution < self.retry.times

    def to_document(self) -> dict[str, Any]:
        """The policy as JSON types."""
        return asdict(self)

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> StepPolicy:
        """The policy that ``to_document`` wrote."""
        again = document["retry"]
        return StepPolicy(
            Retry(**{**again, "on": tuple(again["on"])}),
            document["timeout_seconds"],
            Catch(**document["catch"]) if document["catch"] is not None else None,
            document.get("grace_seconds", DEFAULT_GRACE_SECONDS),
        )

    @staticmethod
    def of(decorations: Sequence[Decoration], *, on_kubernetes: bool) -> StepPolicy:
        """The policy that a step's decorators ask for."""
        limit = options_of(decorations, "timeout")
        caught = options_of(decorations, "catch")
        return StepPolicy(
            _retry_of(options_of(decorations, "retry"), on_kubernetes=on_kubernetes),
            _total_seconds(limit) if limit is not None else None,
            Catch(**caught) if caught is not None else None,
            limit["grace_seconds"] if limit is not None else DEFAULT_GRACE_SECONDS,
        )


def _retry_of(options: dict[str, Any] | None, *, on_kubernetes: bool) -> Retry:
    if options is None or not options["times"]:
        return Retry()
    minutes, backoff, longest_minutes = (options[name] for name in ("minutes_between_retries", "backoff", "max_delay"))
    longest = None if longest_minutes is None else longest_minutes * _SECONDS
    if minutes is None and not on_kubernetes:
        pause, default_backoff = DEFAULT_SECONDS_HERE, DEFAULT_BACKOFF_HERE
        longest = DEFAULT_LONGEST_SECONDS_HERE if longest is None else longest
    else:
        pause, default_backoff = (DEFAULT_MINUTES_ON_KUBERNETES if minutes is None else minutes) * _SECONDS, 1.0
    return Retry(
        times=options["times"],
        pause_seconds=pause,
        backoff=default_backoff if backoff is None else backoff,
        longest_pause_seconds=longest,
        on=options["on"],
    )


def _total_seconds(options: Mapping[str, Any]) -> float:
    return float(options["seconds"] + _SECONDS * (options["minutes"] + _SECONDS * options["hours"]))


def _count(value: object) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a whole number of zero or more")
    return value


def _amount(value: object) -> float:
    try:
        found = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        found = -1.0
    if not 0 <= found < float("inf"):
        raise ValueError(f"{value!r} is not a number of zero or more")
    return found


def _factor(value: object) -> float:
    found = _amount(value)
    if found < 1:
        raise ValueError(f"{value!r} would make each pause shorter than the one before")
    return found


def _outcomes(value: object) -> tuple[str, ...]:
    given = [part.strip() for part in value.split("|")] if isinstance(value, str) else value
    if not isinstance(given, list | tuple | set | frozenset) or not given:
        raise ValueError(f"{value!r} is not a list of outcomes")
    if unknown := [outcome for outcome in given if outcome not in PAID]:
        raise ValueError(
            f"{unknown[0]!r} is none of {', '.join(PAID)} (what the infrastructure does is retried without a price)"
        )
    return tuple(outcome for outcome in PAID if outcome in given)


def _variable(value: object) -> str:
    if not isinstance(value, str) or not value.isidentifier() or value.startswith("_k8sflow"):
        raise ValueError(f"{value!r} can't be the name of an artifact")
    return value


def flag(value: object) -> bool:
    """A yes or no, in Python or as a text."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.strip().lower() not in words:
        raise ValueError(f"{value!r} is neither True nor False")
    return words[value.strip().lower()]


def _no_exception(
    _step_name: str,
    flow: Any,
    _inputs: Any,
    attributes: Mapping[str, Any],
) -> Generator[None, None, None]:
    """Sets the artifact of ``@catch`` for the steps that come after a success."""
    yield
    if attributes["var"] is not None:
        setattr(flow, attributes["var"], None)


def _check_timeout(options: Mapping[str, Any]) -> None:
    if _total_seconds(options) <= 0:
        raise ValueError("it needs a time: write for example @timeout(minutes=10)")


retry = DecoratorKind(
    "retry",
    "runs a failed task again",
    (
        Option("times", _count, "how many times a failed task is run again; 0 keeps --with retry away", 3),
        Option(
            "minutes_between_retries", _amount,
            "how many minutes it waits before it is run again (by default 2 on Kubernetes; locally 1 s, 2 s, 4 s, …)",
        ),
        Option(
            "backoff", _factor,
            "what each pause is multiplied with for the next one (by default 1, and 2 for the local default pauses)",
        ),
        Option("max_delay", _amount, "how many minutes a pause lasts at most"),
        Option("on", _outcomes, f"the outcomes after which it is run again, of {', '.join(PAID)}", PAID),
    ),
)  # fmt: skip

timeout = DecoratorKind(
    "timeout",
    "ends a step that takes too long: raises TimeoutException in it, and later kills what is left of the task",
    (
        Option("seconds", _amount, "how many seconds an execution may take, besides minutes and hours", 0.0),
        Option("minutes", _amount, "how many minutes an execution may take, besides seconds and hours", 0.0),
        Option("hours", _amount, "how many hours an execution may take, besides seconds and minutes", 0.0),
        Option(
            "grace_seconds",
            _amount,
            "how many seconds after TimeoutException the task is killed, if it is still there; 0 kills it at once",
            DEFAULT_GRACE_SECONDS,
        ),
    ),
    check=_check_timeout,
)

catch = DecoratorKind(
    "catch",
    "lets the run go on after a step has failed for good",
    (
        Option("var", _variable, "the name of the artifact that holds the exception; None where the step did not fail"),
        Option("print_exception", flag, "whether the exception is shown", True),
    ),
    around=_no_exception,
    outermost=True,
)
