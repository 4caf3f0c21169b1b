"""Messages for users about pods that failed or can't start: a diagnosis for every outcome.

The summary says what happened, the detail is the evidence from Kubernetes, the resolution says what to do. Nothing here
looks at a pod; ``outcome`` and ``waiting`` choose the diagnosis.
"""

from __future__ import annotations

from k8sflow.flow.decorators import quantity
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.task import container_ends
from k8sflow.task.result import TaskResult, failed


def out_of_memory(options: PodOptions, detail: str = "") -> TaskResult:
    """The container used more than its memory."""
    memory = _set(options.most_memory)
    more = f"@resources(memory={_suggested_mb(memory)})"
    if options.memory_limit is not None:
        more = f"@kubernetes(memory_limit={_suggested_mb(memory)})"
    return failed(
        Outcome.OUT_OF_MEMORY,
        f"it ran out of memory: it used more than {memory}, its {'' if options.memory_limit else 'request and '}limit.",
        detail,
        f"Request more, for example {more}, or keep less in memory at a time.",
    )


def limit_too_low(options: PodOptions, detail: str) -> TaskResult:
    """The memory limit is too low to start any process."""
    memory = _set(options.most_memory)
    return failed(
        Outcome.OUT_OF_MEMORY,
        f"its memory of {memory} is too little to start the container.",
        detail,
        "Request more with @resources(memory=…); plain numbers are MB.",
    )


def preempted(detail: str) -> TaskResult:
    """The scheduler removed the pod in favor of one with a higher priority."""
    return failed(
        Outcome.PREEMPTED,
        "it was preempted by a pod with a higher priority.",
        detail,
        "A priority class (priority_class=…) or dedicated nodes protect it.",
    )


def evicted(detail: str) -> TaskResult:
    """The kubelet or the eviction API removed the pod from its node."""
    low = detail.lower()
    if "exceeds the limit" in low or "exceeds the total limit" in low:
        summary = "it was evicted from its node because it wrote more to local files than it may."
        advice = "Request the disk space that it needs with @resources(disk=…), or write less to local files."
        return failed(Outcome.EVICTED, summary, detail, advice, is_final=True)
    if "ephemeral" in low or "disk" in low:
        advice = "The node ran short of disk space. Request what the task needs with @resources(disk=…)."
    elif "memory" in low:
        advice = "The node ran short of memory. Request as much as the task needs with @resources(memory=…)."
    else:
        advice = "Nodes are drained for upgrades, and when they are no longer needed."
    return failed(Outcome.EVICTED, "it was evicted from its node.", detail, advice)


def node_lost(detail: str) -> TaskResult:
    """The node disappeared, with the pod."""
    return failed(
        Outcome.NODE_LOST,
        "its node was lost or shut down.",
        detail,
        "`kubectl get nodes` shows which nodes there are; spot nodes can disappear at any time.",
    )


def pod_deleted(detail: str = "") -> TaskResult:
    """The pod was deleted, but not its Job."""
    return failed(
        Outcome.NODE_LOST,
        "its pod was deleted externally.",
        detail,
        "`kubectl get events` may show what is deleting pods here.",
    )


def job_deleted() -> TaskResult:
    """The Job was deleted externally."""
    return failed(
        Outcome.CANCELLED,
        "its Job was deleted externally.",
        "",
        "Run or resume the flow again if that was a mistake.",
    )


def namespace_deleted(summary: str) -> TaskResult:
    """The Job was deleted with its namespace."""
    return failed(
        Outcome.NODE_LOST,
        summary,
        "Its Job and its pod were deleted with it.",
        "Create it again, or set kubernetes_namespace to another one, and `resume` the run.",
        is_final=True,
    )


def killed(exit_code: int, detail: str) -> TaskResult:
    """The container was ended by SIGKILL or SIGTERM, and it is not known who sent it."""
    advice = (
        "The kernel of a node that is short of memory may have sent it (`kubectl describe node`), a person, or the "
        "step itself, to process 1 of its pod."
    )
    return container_ends.killed(exit_code, "Kubernetes", detail, advice)


def lost_container(detail: str) -> TaskResult:
    """The kubelet no longer knows how the container ended."""
    return failed(
        Outcome.NODE_LOST,
        "its node lost track of its container.",
        detail,
        "The node was restarted or has problems (`kubectl describe node`).",
    )


def refused_by_node(reason: str, detail: str) -> TaskResult:
    """The node that the scheduler chose refused the pod."""
    return failed(
        Outcome.NEVER_STARTED,
        f"its node refused it ({reason}) before it started.",
        detail,
        "The node filled up or changed just as it was chosen.",
    )


def runtime_not_copied(detail: str) -> TaskResult:
    """The init container that copies the runtime failed."""
    return failed(
        Outcome.NEVER_STARTED,
        "the k8sflow runtime couldn't be copied into its pod.",
        detail,
        "kubernetes_runtime_image must be a k8sflow image of this version.",
    )


def cant_start(reason: str, detail: str) -> TaskResult:
    """The container runtime couldn't start the container."""
    return failed(
        Outcome.NEVER_STARTED,
        f"its container couldn't be started ({reason}).",
        detail,
        "`kubectl describe pod` shows what the node tried.",
    )


def unknown_end(phase: str, reason: str, detail: str) -> TaskResult:
    """The pod ended, and its status mentions no container that ran."""
    return failed(
        Outcome.NEVER_STARTED,
        f"its pod ended as {phase} ({reason or 'no reason given'}); nothing is known about its container.",
        detail,
        "`kubectl describe pod` shows what Kubernetes knows.",
    )


def bad_configuration(detail: str) -> TaskResult:
    """The container refers to something that doesn't exist."""
    if "secret" in detail.lower():
        advice = "Create the Secret in the run's namespace, or correct its name (secrets=…, credentials)."
    elif "configmap" in detail.lower():
        advice = "Create the ConfigMap in the run's namespace, or correct its name (config_maps=…)."
    elif "runAsNonRoot" in detail or "non-root" in detail:
        advice = "Give the container a numeric user other than 0: @kubernetes(run_as_user=…)."
    else:
        advice = "`kubectl describe pod` shows what is missing."
    return failed(Outcome.NEVER_STARTED, "its container has an invalid configuration.", detail, advice)


def suspended(queue: str | None, detail: str, *, has_kueue: bool) -> TaskResult:
    """The Job is suspended, normally by a queue manager.

    Args:
        queue: Kueue's queue that the Job is in; None if it is in none.
        detail: Kueue's reason.
        has_kueue: Whether the cluster has Kueue, as far as it says.
    """
    if queue is None:
        summary, advice = "its Job is suspended.", "Its queue manager starts it; `kubectl describe job` may show when."
    elif not has_kueue:
        summary = f"its Job waits in the queue {queue!r}, but the cluster has no Kueue that could start it."
        advice = "Have Kueue installed, or run without queue=…."
    else:
        summary = f"its Job waits in the queue {queue!r}" + (f": {detail}" if detail else ".")
        advice = (
            "Kueue starts it, and the wait counts against no timeout; `kubectl describe localqueue` shows the queue."
        )
    return failed(Outcome.UNSCHEDULABLE, summary, "", advice)


def pod_missing() -> TaskResult:
    """The Job has ended, and has no pod that could say how."""
    return failed(
        Outcome.NODE_LOST,
        "its Job has ended, and its pod no longer exists.",
        "It is unknown how the pod ended.",
        "`kubectl get events` may show what deletes pods here.",
    )


def job_refused(detail: str, advice: str, *, is_final: bool) -> TaskResult:
    """The API server refused the Job."""
    return failed(Outcome.NEVER_STARTED, "its Job couldn't be created.", detail, advice, is_final=is_final)


def not_its_turn(end: TaskResult) -> TaskResult:
    """The task shared a pod that ended because of another task, and had not started."""
    return failed(
        Outcome.NEVER_STARTED,
        "the pod that it shares with other branches ended before it was its turn.",
        end.explained.summary,
        "It runs again.",
    )


def not_started() -> TaskResult:
    """The pod is starting, and nothing is known to delay it."""
    return failed(
        Outcome.NEVER_STARTED,
        "its pod has not started yet, and Kubernetes gives no reason.",
        "",
        "`kubectl describe pod` and `kubectl get events` may show more.",
    )


def slow_start(reason: str, detail: str) -> TaskResult:
    """The pod is on a node, and something delays it."""
    return failed(
        Outcome.NEVER_STARTED,
        f"its pod is slow to start ({reason}).",
        detail,
        "It keeps waiting; `kubectl describe pod` shows each attempt.",
    )


def given_up(waiting: TaskResult, seconds: float) -> TaskResult:
    """The pod waited longer than allowed."""
    return failed(
        waiting.outcome,
        f"it didn't start within {seconds:.0f} s: {waiting.explained.summary}",
        waiting.explained.detail,
        waiting.explained.resolution,
    )


def _set(amount: str | None) -> str:
    assert amount is not None, "every pod requests cpu and memory"
    return amount


def _suggested_mb(memory: str) -> int:
    return container_ends.more_memory(quantity.parse(memory) / 10**6)
