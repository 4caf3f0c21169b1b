"""The pods of the steps that run on Kubernetes: CPU, memory and all other options, from decorators and settings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from k8sflow.config import Settings
from k8sflow.errors import ConfigurationError, FlowDefinitionError
from k8sflow.flow.decorators import quantity
from k8sflow.flow.decorators.base import Decoration, options_of
from k8sflow.flow.decorators.environment import variables_elsewhere
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions, merge
from k8sflow.flow.decorators.policy import StepPolicy
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.script import script_of

_HOST_BYTES = 128_000_000  # of the processes that start the branches of a shared pod: about 110 MB were measured


def pod_options(
    own: tuple[Decoration, ...],
    added: tuple[Decoration, ...],
    settings: Settings,
    policy: StepPolicy,
    *,
    is_gang: bool = False,
) -> PodOptions:
    """The options of a step's pod, strongest first: the step, --with, the settings, the default.

    Args:
        own: The step's decorators.
        added: Those of ``--with``.
        settings: The settings.
        policy: The step's policy, with its timeout.
        is_gang: Whether the step's tasks run together.

    Raises:
        FlowDefinitionError: They can't be used together.
    """
    named = [PodOptions(env=variables_elsewhere(found, "Kubernetes")) for found in (own, added)]
    asked = [*_options(own), *_options(added)]
    options = merge(*asked, *named, from_settings(settings), DEFAULT_OPTIONS)
    options = _without_idle_gpu(options, own)
    if is_gang:
        options = _unshared(options, own)
    elif (options.branches_per_pod or 1) > 1:
        options = _shared(options, own, added)
    try:
        options.check()
    except ValueError as error:
        raise FlowDefinitionError(f"its pod can't be made: {error}.") from error
    turns = math.ceil((options.branches_per_pod or 1) / (options.branches_at_a_time or 1))
    return replace(options, deadline_seconds=policy.deadline_seconds(options.deadline_seconds, turns))


def requested(definition: FlowDefinition, with_: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """The ``cpu`` and ``memory`` of ``@resources``, as quantities, by step; local runs ignore them, and record them."""
    added = definition.added(with_)
    found = {
        step: merge(*_options(definition.decorations_of(step), "resources"), *_options(added, "resources"))
        for step in definition.graph.nodes
    }
    amounts = {step: {"cpu": options.cpu, "memory": options.memory} for step, options in found.items()}
    known = {step: {name: text for name, text in named.items() if text} for step, named in amounts.items()}
    return {step: named for step, named in known.items() if named}


def recorded_pods(recorded: Mapping[str, PodOptions], settings: Settings) -> dict[str, PodOptions]:
    """The options of a run's pods from its record; settings of this process apply where they say nothing."""
    own = from_settings(settings)
    return {step: merge(options, own, DEFAULT_OPTIONS) for step, options in recorded.items()}


def with_template(options: PodOptions, definition: FlowDefinition) -> PodOptions:
    """The options with the content of their pod template, which the run's record keeps.

    Raises:
        FlowDefinitionError: Its file can't be used.
    """
    from k8sflow.kubernetes import pod_template  # noqa: PLC0415  few runs have one

    assert options.pod_template is not None
    file = str(options.pod_template["file"])
    return replace(options, pod_template=pod_template.load(script_of(definition.flow).folder / file, file))


def check_gpu(added: tuple[Decoration, ...], pods: Mapping[str, PodOptions]) -> None:
    """Returns if some step has GPUs, or ``--with`` doesn't say which.

    Raises:
        FlowDefinitionError: It says which, and no step has any.
    """
    asked = merge(*_options(added))
    for name in ("gpu_vendor", "gpu_model"):
        value = getattr(asked, name)
        if value is not None and pods and not any(options.has_devices for options in pods.values()):
            raise FlowDefinitionError(
                f"--with kubernetes:{name}={value} has no effect: no step requests a GPU.",
                advice="Request GPUs where they are needed with @resources(gpu=1), or in all steps by adding gpu=1.",
            )


def _without_idle_gpu(options: PodOptions, own: tuple[Decoration, ...]) -> PodOptions:
    """The options of a step without GPUs, less those about GPUs that ``--with`` adds to every step."""
    if options.has_devices:
        return options
    written = merge(*_options(own))
    return replace(options, gpu_vendor=written.gpu_vendor, gpu_model=written.gpu_model)


def _shared(options: PodOptions, own: tuple[Decoration, ...], added: tuple[Decoration, ...]) -> PodOptions:
    """The options of a pod that branches share: ``@resources`` describes a branch, ``@kubernetes`` the pod.

    A pod that has no size of its own has the cores of one branch, and memory for those that run at a time and for the
    processes that start them.
    """
    if options.spot is not None:
        raise FlowDefinitionError(
            "spot can't be used with branches_per_pod.",
            cause="A spot notice ends one task early, and is no reason for the failure of several.",
            advice="Leave one of them out: branches without a result run again in another pod in any case.",
        )
    branch = merge(*_options(own, "resources"), *_options(added, "resources"))
    pod = merge(*_options(own, "kubernetes"), *_options(added, "kubernetes"))
    branch_cpu = branch.cpu or DEFAULT_OPTIONS.cpu or "1"
    cpu = pod.cpu or branch_cpu
    fitting = max(1, int(quantity.parse(cpu) / quantity.parse(branch_cpu)))
    at_a_time = min(options.branches_at_a_time or fitting, options.branches_per_pod or 1)
    memory = pod.memory or options.memory
    if pod.memory is None and branch.memory is not None:
        memory = quantity.megabytes(quantity.parse(branch.memory) * at_a_time + _HOST_BYTES)
    return replace(options, cpu=cpu, memory=memory, branches_at_a_time=at_a_time)


def _unshared(options: PodOptions, own: tuple[Decoration, ...]) -> PodOptions:
    """The options of a step whose tasks run together, each in a pod of its own, whatever ``--with`` says."""
    if (merge(*_options(own)).branches_per_pod or 1) > 1:
        raise FlowDefinitionError(
            "branches_per_pod can't be used in a step with @parallel.",
            cause="Its tasks run together, each in a pod of its own, and find each other by the pods' names.",
            advice="Remove branches_per_pod, or make the step a foreach.",
        )
    return replace(options, branches_per_pod=None, branches_at_a_time=None)


def _options(found: tuple[Decoration, ...], *names: str) -> list[PodOptions]:
    """The options of some decorators, those of ``@kubernetes`` before those of ``@resources``."""
    both = (options_of(found, name) for name in names or ("kubernetes", "resources"))
    return [PodOptions(**options) for options in both if options is not None]


def from_settings(settings: Settings) -> PodOptions:
    """The options that the settings ``kubernetes_…`` give to steps without them.

    Raises:
        ConfigurationError: One can't be used.
    """
    written: dict[str, Any] = {"image": settings.kubernetes_image or settings.kubernetes_runtime_image}
    for option in fields(PodOptions):
        text = getattr(settings, f"kubernetes_{option.name}", None)
        if text and option.name not in {"image", "namespace"}:  # the run has one namespace, of whichever step
            written[option.name] = _parsed(option.name, text, option.metadata["parse"])
    return PodOptions(**written)


def _parsed(name: str, text: str, parse: Callable[[object], Any]) -> Any:
    try:
        return parse(json.loads(text) if text.startswith(("[", "{")) else text)
    except ValueError as error:
        raise ConfigurationError(
            f"the setting kubernetes_{name} is {text!r}: {error}.",
            advice=f"Write it as after --with kubernetes:{name}=, or as JSON (docs/pods.md).",
        ) from error
