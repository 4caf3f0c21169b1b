"""What a person is told about a pod that failed or can't start: a diagnosis for every outcome.

The summary says what happened, the detail is Kubernetes' own evidence, the resolution what to do. Nothing here looks
at a pod; ``outcome`` and ``waiting`` choose.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

from k8sflow.flow.decorators import quantity
from k8sflow.flow.decorators.pod_options import DEFAULT_OPTIONS, PodOptions
from k8sflow.task.outcome import Outcome
from k8sflow.task.result import TaskResult, failed

_MEMORY_STEPS_MB = 1000
_MORE_MEMORY = Decimal("1.5")


def out_of_memory(options: PodOptions, detail: str = "") -> TaskResult:
    """The container used more than its memory."""
    memory = options.memory or str(DEFAULT_OPTIONS.memory)
    return failed(
        Outcome.OUT_OF_MEMORY,
        f"it ran out of memory: it used more than the {memory} that are its request and its limit.",
        detail,
        f"Ask for more, @resources(memory={_suggested_mb(memory)}) for example, or hold less in memory at a time.",
    )


def limit_too_low(options: PodOptions, detail: str) -> TaskResult:
    """The memory doesn't even suffice to start a process."""
    memory = options.memory or str(DEFAULT_OPTIONS.memory)
    return failed(
        Outcome.OUT_OF_MEMORY,
        f"its memory of {memory} is too little to start the container.",
        detail,
        "Ask for more with @resources(memory=…); plain numbers are MB.",
    )


def timed_out(options: PodOptions, detail: str) -> TaskResult:
    """The pod's deadline passed."""
    after = f" after {options.deadline_seconds} s" if options.deadline_seconds else ""
    return failed(
        Outcome.TIMED_OUT,
        f"it was stopped{after}: its deadline had passed.",
        detail,
        "Allow it more time (deadline_seconds), or split its work.",
    )


def preempted(detail: str) -> TaskResult:
    """The scheduler gave the place to a pod of a higher priority."""
    return failed(
        Outcome.PREEMPTED,
        "it was preempted by a pod of a higher priority.",
        detail,
        "It is run again; a priority class or nodes of its own would keep its place.",
    )


def evicted(detail: str) -> TaskResult:
    """The kubelet or the eviction API put the pod off its node."""
    if "ephemeral" in detail or "emptyDir" in detail or "disk" in detail.lower():
        advice = "Ask for the disk that it needs with @resources(disk=…), or write less to local files."
    elif "memory" in detail:
        advice = "The node ran short of memory. Ask for what the task needs with @resources(memory=…)."
    else:
        advice = "It is run again; nodes are drained for upgrades and when they are not needed."
    return failed(Outcome.EVICTED, "it was evicted from its node.", detail, advice)


def node_lost(detail: str) -> TaskResult:
    """The node went away, with the pod."""
    return failed(
        Outcome.NODE_LOST,
        "its node was lost, or shut down.",
        detail,
        "It is run again on another node; spot nodes go at any time.",
    )


def pod_deleted(detail: str = "") -> TaskResult:
    """Somebody deleted the pod, and not its Job."""
    return failed(
        Outcome.NODE_LOST,
        "its pod was deleted from outside.",
        detail,
        "It is run again. `kubectl get events` may tell who deletes pods here.",
    )


def job_deleted() -> TaskResult:
    """Somebody deleted the Job."""
    return failed(
        Outcome.CANCELLED,
        "its Job was deleted from outside.",
        "",
        "Run or resume the flow again where that was not meant.",
    )


def cancelled() -> TaskResult:
    """We stopped it, because the run was cancelled."""
    return failed(Outcome.CANCELLED, "it was stopped, because the run was cancelled.")


def killed(exit_code: int, detail: str) -> TaskResult:
    """The container got a signal from outside, and nothing says from whom."""
    return failed(
        Outcome.NODE_LOST,
        f"its container was killed from outside (exit code {exit_code}), without a word about the cause.",
        detail,
        "It is run again. `kubectl describe node` may tell more: the node may have run short of memory as a whole.",
    )


def lost_container(detail: str) -> TaskResult:
    """The kubelet doesn't know any more what became of the container."""
    return failed(
        Outcome.NODE_LOST,
        "its node lost track of its container.",
        detail,
        "It is run again; the node was restarted, or is in trouble (`kubectl describe node`).",
    )


def refused_by_node(reason: str, detail: str) -> TaskResult:
    """The node that the scheduler chose didn't take the pod."""
    return failed(
        Outcome.NEVER_STARTED,
        f"its node refused it ({reason}) before it started.",
        detail,
        "It is run again; the node filled up or changed in the moment in which it was chosen.",
    )


def runtime_not_copied(detail: str) -> TaskResult:
    """The init container that brings the runtime failed."""
    return failed(
        Outcome.NEVER_STARTED,
        "the k8sflow runtime couldn't be copied into its pod.",
        detail,
        "kubernetes_runtime_image has to be a k8sflow image of this version.",
    )


def cant_execute(image: str, detail: str) -> TaskResult:
    """The image lacks what the container should run."""
    return failed(
        Outcome.BAD_IMAGE,
        f"its image {image} has no python3 that can be run.",
        detail,
        "Use an image with Python 3.10 or newer as python3 on its PATH.",
    )


def no_runtime(image: str, detail: str) -> TaskResult:
    """Python started, and found no k8sflow."""
    return failed(
        Outcome.BAD_IMAGE,
        f"its image {image} doesn't carry the k8sflow runtime.",
        detail,
        "kubernetes_runtime_image has to name the k8sflow image of this version.",
    )


def cant_start(reason: str, detail: str) -> TaskResult:
    """The container runtime couldn't start the container."""
    return failed(
        Outcome.NEVER_STARTED,
        f"its container couldn't be started ({reason}).",
        detail,
        "`kubectl describe pod` shows what the node tried.",
    )


def no_result(exit_code: int, reason: str, detail: str) -> TaskResult:
    """The container ended, and its agent left no result anywhere."""
    return failed(
        Outcome.USER_ERROR,
        f"its container ended with exit code {exit_code} ({reason or 'no reason given'}) and without a result.",
        detail,
        "The last lines of its output tell more. A task must not end the process that runs it.",
    )


def unknown_end(phase: str, reason: str, detail: str) -> TaskResult:
    """The pod is over, and its status tells of no container that ran."""
    return failed(
        Outcome.NEVER_STARTED,
        f"its pod ended as {phase} ({reason or 'no reason given'}) without a word about its container.",
        detail,
        "It is run again; `kubectl describe pod` shows what Kubernetes knows.",
    )


def bad_image(image: str, detail: str) -> TaskResult:
    """The image can't be pulled, or its name is none."""
    low = detail.lower()
    if any(word in low for word in ("no such host", "i/o timeout", "connection refused", "dial tcp")):
        cause, advice = "the node can't reach the registry", "Check the registry's name and the nodes' network."
    elif "not found" in low or "manifest unknown" in low or "does not exist" in low:
        cause, advice = (
            "there is no such image",
            "Check the name and the tag; push or load it where the nodes pull from.",
        )
    elif any(word in low for word in ("unauthorized", "denied", "forbidden", "authentication required")):
        cause, advice = "the registry refuses it", "Name a Secret with the registry's login: image_pull_secrets=…"
    elif "invalid reference format" in low or "couldn't parse image" in low:
        cause, advice = "that is no image name", "Write it as registry/name:tag."
    elif "is not present with pull policy of never" in low:
        cause, advice = "it isn't on the node, and may not be pulled", "Load it onto the nodes, or use IfNotPresent."
    else:
        cause, advice = "see below", "`kubectl describe pod` shows each try."
    return failed(
        Outcome.BAD_IMAGE,
        f"the image {image} can't be pulled: {cause}.",
        detail,
        f"{advice} The image is set by @kubernetes(image=…), --with kubernetes:image=… or kubernetes_image.",
    )


def bad_configuration(detail: str) -> TaskResult:
    """The container refers to something that isn't there."""
    if "secret" in detail.lower():
        advice = 'Create the Secret in the run\'s namespace, or name another one: credentials = "secret:NAME".'
    elif "runAsNonRoot" in detail or "non-root" in detail:
        advice = "Give the container a numeric user other than 0: @kubernetes(run_as_user=…)."
    else:
        advice = "`kubectl describe pod` shows what is missing."
    return failed(Outcome.NEVER_STARTED, "its container can't be configured.", detail, advice)


def unschedulable(options: PodOptions, detail: str, largest_node: tuple[str, str] | None) -> TaskResult:
    """No node takes the pod now.

    Args:
        options: What the step asks for.
        detail: The scheduler's words.
        largest_node: Allocatable cores and memory of the largest node, where that is known.
    """
    cpu, memory = options.cpu or str(DEFAULT_OPTIONS.cpu), options.memory or str(DEFAULT_OPTIONS.memory)
    asked = f"cpu={cpu}, memory={memory}" + (f", gpu={options.gpu}" if options.gpu else "")
    summary = f"no node can take its pod now: it asks for {asked}."
    if largest_node is None:
        advice = "It waits. Ask for less with @resources, or add nodes; `kubectl describe nodes` shows what there is."
        return failed(Outcome.UNSCHEDULABLE, summary, detail, advice)
    cores, room = largest_node
    offer = f"The largest node has cpu={cores}, memory={quantity.describe_size(quantity.parse(room))} for pods"
    if quantity.parse(cpu) > quantity.parse(cores) or quantity.parse(memory) > quantity.parse(room):
        summary = f"no node is large enough for its pod: it asks for {asked}."
        advice = f"{offer}: ask for less with @resources, or add larger nodes. It waits for one."
    else:
        advice = f"{offer}, so it waits until there is room; a node selector or a taint may also stand in the way."
    return failed(Outcome.UNSCHEDULABLE, summary, detail, advice)


def no_pod(detail: str) -> TaskResult:
    """The Job controller can't create the pod."""
    if "exceeded quota" in detail:
        summary = "the namespace's quota leaves no room for its pod."
        advice = "It waits until other pods end; ask for less, or have the quota raised (`kubectl describe quota`)."
    elif "PodSecurity" in detail:
        summary = "the namespace's Pod Security doesn't allow its pod."
        advice = 'Leave out what it names (run_as_user=0, for example): k8sflow\'s own pods pass "restricted".'
    elif "serviceaccount" in detail.lower():
        summary = "its service account doesn't exist."
        advice = "Create it, or name another one: service_account=… or kubernetes_service_account."
    else:
        summary = "its pod is refused."
        advice = "`kubectl describe job` shows each try."
    return failed(Outcome.NEVER_STARTED, summary, detail, advice)


def suspended() -> TaskResult:
    """The Job is held back by whoever manages queues."""
    return failed(
        Outcome.UNSCHEDULABLE,
        "its Job is suspended: it waits in a queue.",
        "",
        "The queue (Kueue, say) lets it start; `kubectl describe job` may tell when.",
    )


def pod_gone() -> TaskResult:
    """The Job is over, and no pod is left to say how."""
    return failed(
        Outcome.NODE_LOST,
        "its Job is over, and its pod is gone.",
        "Nothing tells how the pod ended.",
        "It is run again.",
    )


def job_refused(detail: str, advice: str, *, is_final: bool) -> TaskResult:
    """The API server didn't take the Job."""
    return failed(Outcome.NEVER_STARTED, "its Job couldn't be created.", detail, advice, is_final=is_final)


def not_started() -> TaskResult:
    """The pod is on its way, and nothing is known to hold it up."""
    return failed(
        Outcome.NEVER_STARTED,
        "its pod has not started yet, and Kubernetes gives no reason.",
        "",
        "`kubectl describe pod` and `kubectl get events` may show more.",
    )


def slow_start(reason: str, detail: str) -> TaskResult:
    """The pod is on a node, and something holds it up."""
    return failed(Outcome.NEVER_STARTED, f"its pod is slow to start ({reason}).", detail, "It waits.")


def given_up(waiting: TaskResult, seconds: float) -> TaskResult:
    """The pod waited longer than it may."""
    return failed(
        waiting.outcome,
        f"it didn't start within {seconds:.0f} s: {waiting.explained.summary}",
        waiting.explained.detail,
        waiting.explained.resolution,
    )


def _suggested_mb(memory: str) -> int:
    wanted = quantity.parse(memory) / 10**6 * _MORE_MEMORY
    step = _MEMORY_STEPS_MB if wanted >= 2 * _MEMORY_STEPS_MB else 100
    return int((wanted / step).to_integral_value(ROUND_CEILING)) * step
