"""Where each step runs, and what its pod is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from k8sflow.config import Settings
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow import decorators
from k8sflow.flow.decorators import Decoration
from k8sflow.flow.graph import Mistake, Place, refuse
from k8sflow.flow.pod_options import DEFAULT_OPTIONS, PodOptions, common_namespace, merge
from k8sflow.flow.spec import FlowSpec, steps


@dataclass(frozen=True)
class Placement:
    """The steps that run on Kubernetes, with what they ask for; every other step runs on this machine."""

    pods: Mapping[str, PodOptions]
    namespace: str

    @property
    def uses_kubernetes(self) -> bool:
        """Whether any step runs on Kubernetes."""
        return bool(self.pods)

    def to_document(self) -> dict[str, dict[str, Any]]:
        """What each pod is asked for, as JSON types."""
        return {
            step: {key: value for key, value in asdict(options).items() if value is not None}
            for step, options in self.pods.items()
        }

    @staticmethod
    def from_document(document: Mapping[str, Mapping[str, Any]], settings: Settings) -> Placement:
        """The placement that ``to_document`` wrote."""
        pods = {step: PodOptions.from_mapping(options) for step, options in document.items()}
        return Placement(pods, common_namespace(pods, settings.kubernetes_namespace))

    @staticmethod
    def of(flow: type[FlowSpec], with_: tuple[str, ...], settings: Settings) -> Placement:
        """The placement that a flow's decorators and ``--with`` ask for.

        Raises:
            FlowDefinitionError: A decorator is wrong.
        """
        added = [decorators.parse(text) for text in with_]
        weakest = merge(_from_settings(settings), DEFAULT_OPTIONS)
        pods = {}
        for name, function in steps(flow).items():
            own = decorators.of_step(flow, name)
            if not any(d.name == "kubernetes" for d in (*own, *added)):
                continue
            try:
                pods[name] = merge(*_options(own), *_options(tuple(added)), weakest)
            except FlowDefinitionError as error:
                code = function.__code__
                place = Place(code.co_filename, code.co_firstlineno)
                raise refuse(flow.__name__, [Mistake(place, error.summary, error.advice)]) from error
        return Placement(pods, common_namespace(pods, settings.kubernetes_namespace))


def _options(found: tuple[Decoration, ...]) -> list[PodOptions]:
    """The options of some decorators, those of ``@kubernetes`` before those of ``@resources``."""
    both = (decorators.options_of(found, name) for name in ("kubernetes", "resources"))
    return [PodOptions(**options) for options in both if options is not None]


def _from_settings(settings: Settings) -> PodOptions:
    return PodOptions(
        image=settings.kubernetes_image or settings.kubernetes_runtime_image,
        service_account=settings.kubernetes_service_account,
    )
