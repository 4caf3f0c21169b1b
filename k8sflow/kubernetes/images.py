"""Messages for users about images that can't be pulled or don't have what a task needs, as those of ``diagnosis``."""

from __future__ import annotations

from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.task import container_ends
from k8sflow.task.container_ends import PullProblem
from k8sflow.task.result import TaskResult, failed
from k8sflow.version import VERSION

_ADVICE = {
    PullProblem.ARCHITECTURE: "Build it for that one too, or choose nodes by node_selector.",
    PullProblem.UNREACHABLE: "Check the registry's name and the nodes' network.",
    PullProblem.REFUSED: "Name a Secret with credentials for the registry: image_pull_secrets=…",
    PullProblem.MISSING: "Check the name and the tag; push it to the registry, or load it onto the nodes.",
    PullProblem.NAME: "Write it as registry/name:tag.",
    PullProblem.UNKNOWN: "`kubectl describe pod` shows each attempt.",
}
_FINAL = {PullProblem.ARCHITECTURE, PullProblem.NAME}


def bad_image(image: str, detail: str) -> TaskResult:
    """The image can't be pulled, or its name is invalid."""
    problem = PullProblem.of(detail, image)
    cause, advice = problem.value, _ADVICE[problem]
    if "is not present with pull policy of never" in detail.lower():
        cause = "it isn't on the node, and the pull policy is Never"
        advice = "Load it onto the nodes, or use IfNotPresent."
    return failed(
        Outcome.BAD_IMAGE,
        f"the image {image} can't be pulled: {cause}.",
        detail,
        f"{advice} The image is set by @kubernetes(image=…), --with kubernetes:image=… or kubernetes_image.",
        is_final=problem in _FINAL,
    )


def wrong_architecture(image: str, detail: str) -> TaskResult:
    """The node's kernel can't run the image's programs."""
    return container_ends.wrong_architecture(image, detail, ", or choose nodes by node_selector")


def cant_execute(image: str, options: PodOptions, detail: str) -> TaskResult:
    """The image lacks the program that the container should run."""
    return container_ends.cant_execute(image, options.executable, "@kubernetes", detail)


def no_runtime(image: str, detail: str) -> TaskResult:
    """Python started, but found no k8sflow."""
    advice = (
        f"Set kubernetes_runtime_image to the k8sflow image of this version ({VERSION}), or leave out "
        "runtime_in_image, so that the runtime is copied into the pod."
    )
    return container_ends.no_runtime(image, detail, advice)


def other_runtime(image: str, detail: str) -> TaskResult:
    """The runtime in the image, or in the image that it was copied from, is of another version than the driver."""
    return container_ends.other_runtime(image, detail, ", or set kubernetes_runtime_image to it")
