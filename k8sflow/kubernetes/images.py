"""Messages for users about images that can't be pulled or don't have what a task needs, as those of ``diagnosis``."""

from __future__ import annotations

from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.task.result import TaskResult, failed
from k8sflow.version import VERSION

# Some registries answer like this for what doesn't exist too, so as not to tell.
_REFUSED = (
    "unauthorized", "denied", "forbidden",
    "authentication required", "authorization failed", "no basic auth credentials",
)  # fmt: skip


def bad_image(image: str, detail: str) -> TaskResult:
    """The image can't be pulled, or its name is invalid."""
    low, is_final = detail.lower(), False
    if "no match for platform" in low:
        cause, advice = (
            "it has no variant for the node's architecture",
            "Build it for that one too.",
        )
        is_final = True
    elif any(word in low for word in ("no such host", "i/o timeout", "connection refused", "dial tcp")):
        cause, advice = "the node can't reach the registry", "Check the registry's name and the nodes' network."
    elif any(word in low for word in _REFUSED):
        cause, advice = (
            "the registry refuses it, because it is private or doesn't exist",
            "Name a Secret with credentials for the registry: image_pull_secrets=…",
        )
    elif "not found" in low or "manifest unknown" in low or "does not exist" in low:
        cause, advice = (
            "it does not exist",
            "Check the name and the tag; push it to the registry, or load it onto the nodes.",
        )
    elif "invalid reference format" in low or "couldn't parse image" in low:
        cause, advice = "its name is not a valid image reference", "Write it as registry/name:tag."
        is_final = True
    elif "is not present with pull policy of never" in low:
        cause, advice = (
            "it isn't on the node, and the pull policy is Never",
            "Load it onto the nodes, or use IfNotPresent.",
        )
    else:
        cause, advice = "see below", "`kubectl describe pod` shows each attempt."
    return failed(
        Outcome.BAD_IMAGE,
        f"the image {image} can't be pulled: {cause}.",
        detail,
        f"{advice} The image is set by @kubernetes(image=…), --with kubernetes:image=… or kubernetes_image.",
        is_final=is_final,
    )


def wrong_architecture(image: str, detail: str) -> TaskResult:
    """The node's kernel can't run the image's programs."""
    return failed(
        Outcome.BAD_IMAGE,
        f"its image {image} has programs for another architecture than the node's.",
        detail,
        "Build the image for the nodes' architecture (`docker build --platform`), or choose nodes by node_selector.",
        is_final=True,
    )


def cant_execute(image: str, options: PodOptions, detail: str) -> TaskResult:
    """The image lacks the program that the container should run."""
    if options.executable is not None:
        advice = "Name another Python of the image, 3.10 or newer: @kubernetes(executable=…)."
    else:
        advice = "Use an image with Python 3.10 or newer as python3 on its PATH, or name it: executable=…."
    return failed(
        Outcome.BAD_IMAGE,
        f"its image {image} has no {options.executable or 'python3'} that can be executed.",
        detail,
        advice,
    )


def no_runtime(image: str, detail: str) -> TaskResult:
    """Python started, but found no k8sflow."""
    return failed(
        Outcome.BAD_IMAGE,
        f"its image {image} doesn't contain the k8sflow runtime.",
        detail,
        f"Set kubernetes_runtime_image to the k8sflow image of this version ({VERSION}), or leave out "
        "runtime_in_image, so that the runtime is copied into the pod.",
    )


def other_runtime(image: str, detail: str) -> TaskResult:
    """The runtime in the image, or in the image that it was copied from, is of another version than the driver."""
    return failed(
        Outcome.BAD_IMAGE,
        f"its image {image} runs with another version of k8sflow than {VERSION}, which started the run.",
        detail,
        f"Build the image on the k8sflow image {VERSION}, or set kubernetes_runtime_image to it.",
    )
