"""The jobs of the steps that run on AWS Batch: CPU, memory and all other options, from decorators and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from k8sflow.config import Settings
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators.base import Decoration, options_of
from k8sflow.flow.decorators.batch_options import DEFAULT_BATCH_OPTIONS, BatchOptions, merge_batch
from k8sflow.flow.decorators.environment import variables_elsewhere
from k8sflow.flow.decorators.policy import StepPolicy

_KNOWN = {option.name for option in fields(BatchOptions)}


def job_options(
    own: tuple[Decoration, ...], added: tuple[Decoration, ...], settings: Settings, policy: StepPolicy
) -> BatchOptions:
    """The options of a step's job, strongest first: the step, --with, the settings, the default.

    Args:
        own: The step's decorators.
        added: Those of ``--with``.
        settings: The settings.
        policy: The step's policy, with its timeout.

    Raises:
        FlowDefinitionError: They can't be used together.
    """
    written = merge_batch(
        *_options(own),
        *_options(added),
        *(BatchOptions(env=variables_elsewhere(found, "AWS Batch")) for found in (own, added)),
    )
    try:
        written.check_definition()
        options = merge_batch(written, _from_settings(settings, written), DEFAULT_BATCH_OPTIONS)
        options.check()
    except ValueError as error:
        raise FlowDefinitionError(f"its job on AWS Batch can't be made: {error}.") from error
    return replace(options, deadline_seconds=policy.deadline_seconds(options.deadline_seconds))


def recorded_jobs(recorded: Mapping[str, BatchOptions], settings: Settings) -> dict[str, BatchOptions]:
    """The options of a run's jobs from its record; settings of this process apply where they say nothing."""
    return {
        step: merge_batch(options, _from_settings(settings, options), DEFAULT_BATCH_OPTIONS)
        for step, options in recorded.items()
    }


def _options(found: tuple[Decoration, ...]) -> list[BatchOptions]:
    """The options of ``@batch``, and those of ``@resources`` that a job of AWS Batch can have."""
    both = (options_of(found, name) for name in ("batch", "resources"))
    return [
        BatchOptions(**{name: value for name, value in options.items() if name in _KNOWN})
        for options in both
        if options is not None
    ]


def _from_settings(settings: Settings, written: BatchOptions) -> BatchOptions:
    if written.job_definition is not None:  # which has them
        return BatchOptions(queue=settings.batch_queue)
    return BatchOptions(
        queue=settings.batch_queue,
        image=settings.batch_image or settings.kubernetes_runtime_image,
        iam_role=settings.batch_job_role,
        execution_role=settings.batch_execution_role,
    )
