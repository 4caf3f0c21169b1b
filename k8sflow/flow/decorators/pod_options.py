"""The options of ``@kubernetes``: what a step requests of its pod, each declared once, here.

The decorator, ``--with kubernetes:…``, the Job manifest and the docs all follow from the fields of ``PodOptions``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators import quantity

RESOURCES = ("cpu", "memory", "disk", "gpu", "shared_memory", "on_oom", "max_memory")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_GPU_VENDORS = ("nvidia", "amd")
_ON_OOM = ("double",)
_CLOUDS = ("aws", "gcp", "azure")
_SHORTEST_GRACE_SECONDS = 5
# How often the memory is doubled at most where no max_memory says so.
_MOST_DOUBLINGS = 3
_TOLERATION_KEYS = {"key", "operator", "value", "effect", "tolerationSeconds"}


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not a text")
    return value.strip()


def _count(value: object) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a whole number of zero or more")
    return value


def _seconds(value: object) -> int:
    seconds = _count(value)
    if seconds == 0:
        raise ValueError("0 seconds is not a time")
    return seconds


def _positive(value: object) -> int:
    count = _count(value)
    if count == 0:
        raise ValueError("0 is not a number of branches")
    return count


def _grace(value: object) -> int:
    seconds = _count(value)
    if seconds < _SHORTEST_GRACE_SECONDS:
        raise ValueError(f"{seconds} seconds leave no time to store output; use {_SHORTEST_GRACE_SECONDS} or more")
    return seconds


def _one_of(choices: tuple[str, ...]) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is none of {', '.join(choices)}")
        return str(value)

    return parse


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is not a list of names")  # noqa: TRY004 - one kind of refusal for the caller
    return tuple(_text(item) for item in value)


def _pairs(value: object) -> dict[str, str]:
    if isinstance(value, str):
        parts = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(separator for _, separator, _ in parts):
            raise ValueError(f"{value!r} is not of the form key=value,key=value")
        value = {key.strip(): text.strip() for key, _, text in parts}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) and key for key in value):
        raise ValueError(f"{value!r} is not a dictionary of texts")
    for key, text in value.items():
        if not isinstance(text, str):
            raise ValueError(f"the value of {key!r} is {text!r}; it has to be a text (quote it)")  # noqa: TRY004
    return dict(value)


def _tolerations(value: object) -> tuple[dict[str, Any], ...]:
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{value!r} is not a list of tolerations")  # noqa: TRY004
    for item in value:
        if not isinstance(item, Mapping) or not item.keys() <= _TOLERATION_KEYS:
            raise ValueError(f"{item!r} is not a toleration; its keys are {', '.join(sorted(_TOLERATION_KEYS))}")
    return tuple(dict(item) for item in value)


def _option(parse: Callable[[object], Any], about: str) -> Any:
    return field(default=None, metadata={"parse": parse, "help": about})


@dataclass(frozen=True)
class PodOptions:
    """The requests of a step for its pod; None for those that are not set.

    Amounts are kept as Kubernetes quantities. ``from_mapping`` parses what a user wrote.
    """

    image: str | None = _option(_text, "image of the task's container, with Python 3.10 or newer")
    image_pull_policy: str | None = _option(_one_of(_PULL_POLICIES), "Always, IfNotPresent or Never")
    image_pull_secrets: tuple[str, ...] | None = _option(_texts, "Secrets with the registry's credentials")
    namespace: str | None = _option(_text, "namespace of the run's Jobs; one for all steps of a run")
    service_account: str | None = _option(_text, "service account of the pod")
    cpu: str | None = _option(quantity.cpu, 'requested cores: 2, 0.5 or "500m"; there is no limit')
    memory: str | None = _option(quantity.size, 'requested memory, also the limit: MB or a quantity ("4Gi")')
    disk: str | None = _option(quantity.size, "requested local disk, also the limit: MB or a quantity")
    gpu: int | None = _option(_count, "number of GPUs")
    gpu_vendor: str | None = _option(_one_of(_GPU_VENDORS), "nvidia (the default) or amd")
    shared_memory: str | None = _option(quantity.share, "size of /dev/shm, part of the memory: MB or a quantity")
    on_oom: str | None = _option(
        _one_of(_ON_OOM), '"double": a task that ran out of memory is run again with twice as much'
    )
    max_memory: str | None = _option(
        quantity.size, f"most memory that on_oom may request: MB or a quantity (default {2**_MOST_DOUBLINGS} x memory)"
    )
    node_selector: Mapping[str, str] | None = _option(_pairs, "labels that the node must have")
    tolerations: tuple[Mapping[str, Any], ...] | None = _option(_tolerations, "taints that the pod tolerates")
    labels: Mapping[str, str] | None = _option(_pairs, "more labels of the Job and the pod")
    annotations: Mapping[str, str] | None = _option(_pairs, "more annotations of the Job and the pod")
    env: Mapping[str, str] | None = _option(_pairs, "more environment variables of the container")
    run_as_user: int | None = _option(_count, "numeric user of the container (default 65532)")
    deadline_seconds: int | None = _option(_seconds, "how long the pod may run (default 5 days)")
    grace_seconds: int | None = _option(
        _grace, "seconds from SIGTERM to SIGKILL, in which the step may finish (default: it ends at SIGTERM)"
    )
    spot: str | None = _option(_one_of(_CLOUDS), "aws, gcp or azure: looks for its notice that a spot node ends")
    pending_timeout_seconds: int | None = _option(
        _seconds,
        "how long the pod may wait to start (default: 600 where its image or settings are wrong, else no limit)",
    )

    branches_per_pod: int | None = _option(_positive, "number of branches of a foreach that share a pod (default 1)")
    branches_at_a_time: int | None = _option(
        _positive,
        "number of branches that run at a time in a pod they share (default: its cores divided by a branch's)",
    )

    def to_document(self) -> dict[str, Any]:
        """The options that are set, as JSON types."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> PodOptions:
        """The options that ``to_document`` wrote."""
        options: dict[str, Any] = {}
        for name, found in document.items():
            options[name] = tuple(found) if isinstance(found, list) else found
        return PodOptions(**options)

    @staticmethod
    def from_mapping(
        values: Mapping[str, object], *, where: str = "@kubernetes", only: Iterable[str] = ()
    ) -> PodOptions:
        """The options that a user wrote, checked.

        Args:
            values: Names and values as written in a decorator or after ``--with kubernetes:``; None is not said.
            where: What the user wrote them in, for the message of an error.
            only: The names that may be used there; all by default. ``@resources`` has ``RESOURCES``.

        Raises:
            FlowDefinitionError: A name or a value is wrong; nothing is known here about file and line.
        """
        allowed = tuple(only) or tuple(option.name for option in fields(PodOptions))
        parsers = {option.name: option.metadata["parse"] for option in fields(PodOptions)}
        found: dict[str, Any] = {}
        for name, value in values.items():
            if name not in allowed:
                raise _unknown(name, where, allowed)
            if value is not None:
                found[name] = _parsed(parsers[name], name, value, where)
        return PodOptions(**found)

    def more_memory(self) -> tuple[str, ...]:
        """The memory of each further execution of a task that ran out of memory, by ``on_oom`` and ``max_memory``.

        Raises:
            FlowDefinitionError: ``max_memory`` can have no effect.
        """
        if self.on_oom is None:
            if self.max_memory is None:
                return ()
            raise FlowDefinitionError(
                f"max_memory={self.max_memory!r} has no effect without on_oom.",
                advice='Add on_oom="double", or leave max_memory out.',
            )
        memory = self.memory or str(DEFAULT_OPTIONS.memory)
        if self.max_memory is None:
            return tuple(quantity.times(memory, 2**count) for count in range(1, _MOST_DOUBLINGS + 1))
        if not is_more(self.max_memory, memory):
            raise FlowDefinitionError(
                f"max_memory={self.max_memory!r} is not more than memory={memory!r}.",
                advice="Raise max_memory, or leave out on_oom and max_memory.",
            )
        found = [quantity.times(memory, 2)]
        while quantity.parse(found[-1]) < quantity.parse(self.max_memory):
            found.append(quantity.times(found[-1], 2))
        return (*found[:-1], self.max_memory)

    def over(self, weaker: PodOptions) -> PodOptions:
        """These options, completed by those of ``weaker``.

        Labels, annotations and environment variables are joined key by key; everything else is replaced whole,
        so that what the user wrote is never mixed with a default.
        """
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        for name, value in values.items():
            other = getattr(weaker, name)
            if value is None:
                values[name] = other
            elif name in {"labels", "annotations", "env"} and other is not None:
                values[name] = {**other, **value}
        return replace(self, **values)


DEFAULT_OPTIONS = PodOptions(cpu="1", memory="4096M")


def merge(*options: PodOptions) -> PodOptions:
    """The options that hold, strongest first: ``@kubernetes``, ``@resources``, ``--with``, settings, default."""
    merged = PodOptions()
    for weaker in options:
        merged = merged.over(weaker)
    return merged


def is_more(max_memory: str, memory: str) -> bool:
    """True if a maximum leaves room for more memory than that of the first execution."""
    return quantity.parse(max_memory) > quantity.parse(memory)


def common_namespace(steps: Mapping[str, PodOptions], default: str) -> str:
    """The one namespace of a run.

    Raises:
        FlowDefinitionError: Two steps ask for different namespaces; a run's objects have one owner, so it has one.
    """
    asked = {options.namespace or default: step for step, options in steps.items()}
    if len(asked) > 1:
        listed = ", ".join(f"{step} in {namespace}" for namespace, step in sorted(asked.items()))
        raise FlowDefinitionError(
            f"the steps of the flow ask for different namespaces: {listed}.",
            cause="All Jobs of a run live in one namespace, with one owner.",
            advice="Name the namespace once: --with kubernetes:namespace=… or the setting kubernetes_namespace.",
        )
    return next(iter(asked), default)


def _parsed(parse: Callable[[object], Any], name: str, value: object, where: str) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise FlowDefinitionError(
            f"{where} can't be used with {name}={value!r}: {error}.",
            advice=f"{name} is the {_help(name)}.",
        ) from error


def _unknown(name: str, where: str, allowed: tuple[str, ...]) -> FlowDefinitionError:
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return FlowDefinitionError(
        f"{where} has no option {name!r}.", advice=f"{hint}The options are {', '.join(sorted(allowed))}."
    )


def _help(name: str) -> str:
    return next(str(option.metadata["help"]) for option in fields(PodOptions) if option.name == name)
