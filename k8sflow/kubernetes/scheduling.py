"""Messages for users about pods that can't be created or scheduled, from what the API server and the scheduler say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from k8sflow import units
from k8sflow.flow.decorators import quantity
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.outcome import Outcome
from k8sflow.task.result import TaskResult, failed

_INSUFFICIENT = re.compile(r"Insufficient ([\w./-]*\w)")
_TAINT = re.compile(r"untolerated taint\(?s?\)?(?! ?\{node\.kubernetes\.io/)")
_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
# requested and limited: lists such as "limits.memory=200M,pods=1"
_QUOTA = re.compile(r"exceeded quota: [^,]+, requested: (\S+), used: \S+, limited: (\S+)")


@dataclass(frozen=True)
class _Obstacle:
    """A reason of the scheduler why nodes can't take a pod.

    Args:
        pattern: Finds it in the scheduler's message.
        summary: What it means.
        advice: What to do.
    """

    pattern: re.Pattern[str]
    summary: str
    advice: str


_OBSTACLES = (
    _Obstacle(
        re.compile("node\\(s\\) were unschedulable"),
        "nodes are cordoned",
        "`kubectl get nodes` shows which nodes are cordoned, and `kubectl uncordon NODE` lets them take pods again.",
    ),
    _Obstacle(
        re.compile("didn't match Pod's node affinity/selector|didn't match node selector"),
        "no node matches its node selector or affinity",
        "Compare node_selector and affinity with `kubectl get nodes --show-labels`.",
    ),
    _Obstacle(
        re.compile(r"untolerated taint\(?s?\)? ?\{node\.kubernetes\.io/"),
        "nodes are not ready, or short of disk or memory",
        "`kubectl describe nodes` shows their conditions.",
    ),
    _Obstacle(
        _TAINT,
        "it doesn't tolerate a taint of the nodes",
        "Tolerate the taint with @kubernetes(tolerations=[…]), or add nodes without it.",
    ),
    _Obstacle(
        _CLAIM,
        "its volume claim doesn't exist",
        "Create the claim in the run's namespace, or correct its name (persistent_volume_claims=…).",
    ),
    _Obstacle(
        re.compile("unbound immediate PersistentVolumeClaims"),
        "its volume claim isn't bound to a volume",
        "`kubectl describe pvc` shows why no volume is provided.",
    ),
    _Obstacle(
        re.compile("volume node affinity conflict|node\\(s\\) had no available volume zone"),
        "its volume is on a node or in a zone that can't take it",
        "Use a volume that is reachable from other nodes, or have room made on its own.",
    ),
    _Obstacle(
        re.compile("Too many pods"),
        "nodes run as many pods as they may",
        "It waits until a pod ends; more nodes or a higher maxPods help.",
    ),
    _Obstacle(
        re.compile("didn't satisfy existing pods anti-affinity|didn't match pod (anti-)?affinity|topology spread"),
        "its rules about other pods leave it no node",
        "Relax affinity or topology_spread, or add nodes.",
    ),
)


def unschedulable(options: PodOptions, detail: str, largest_node: tuple[str, str] | None) -> TaskResult:
    """No node can take the pod now.

    Args:
        options: The requests of the step.
        detail: The scheduler's message.
        largest_node: Allocatable cores and memory of the largest node, if known.
    """
    requested = _requests(options)
    reasons = detail.partition("preemption:")[0]
    found = [obstacle for obstacle in _OBSTACLES if obstacle.pattern.search(reasons)]
    short_of = list(dict.fromkeys(_INSUFFICIENT.findall(reasons)))
    advice = " ".join(obstacle.advice for obstacle in found)
    if found and not short_of:
        summary = f"no node can take its pod now: {', and '.join(obstacle.summary for obstacle in found)}."
        return failed(Outcome.UNSCHEDULABLE, summary, detail, advice)
    lacking = f" (too little {', '.join(short_of)})" if short_of else ""
    summary = f"no node can take its pod now: it requests {requested}{lacking}."
    if largest_node is None:
        offer = "It keeps waiting. Request less with @resources, or add nodes (`kubectl describe nodes`)."
        return failed(Outcome.UNSCHEDULABLE, summary, detail, " ".join(filter(None, (offer, advice))))
    cores, available = largest_node
    offer = f"The largest node has cpu={cores}, memory={units.size(int(quantity.parse(available)))} for pods"
    if _is_more(options.cpu, cores) or _is_more(options.memory, available):
        summary = f"no node is large enough for its pod: it requests {requested}."
        offer += ": request less with @resources, or add larger nodes. It keeps waiting for one."
    elif others := [name for name in short_of if name not in {"cpu", "memory"}]:
        offer = f"It waits until a node has enough {', '.join(others)}; `kubectl describe nodes` shows what they have."
    else:
        offer += ", so it waits until one is free."
    return failed(Outcome.UNSCHEDULABLE, summary, detail, " ".join(filter(None, (offer, advice))))


def gang_without_room(missing: str, processes: int, room: int, waiting: TaskResult) -> TaskResult:
    """The pods of processes that have to run together fit the nodes one by one, but not all of them.

    Args:
        missing: A process whose pod waits.
        processes: How many of them have to run together.
        room: How many of their pods the nodes would have room for if they were empty.
        waiting: Why the pod waits.
    """
    return failed(
        Outcome.UNSCHEDULABLE,
        f"{missing} can't get a pod: {processes} processes have to run together, and the cluster's nodes have room for "
        f"{room} of their pods, even when empty.",
        f"{waiting.explained.summary}\n{waiting.explained.detail}".strip(),
        "Request less with @resources, start fewer processes (num_parallel), or add nodes.",
        is_final=True,
    )


def missing_peer(result: TaskResult, waiting: TaskResult) -> TaskResult:
    """The end of a process that waited for others, with the reason why the pod of one of them waits."""
    found = result.explained
    summary = f"{found.summary.rstrip('.')}, because {waiting.explained.summary}"
    detail = "\n".join(part for part in (found.detail, waiting.explained.detail) if part)
    return replace(result, failure=replace(found, summary=summary, detail=detail))


def no_pod(detail: str) -> TaskResult:
    """The Job controller can't create the pod; the result is final where waiting can't help."""
    for is_it, explain in _REFUSALS:
        if is_it(detail):
            summary, advice, is_final = explain(detail)
            return failed(Outcome.NEVER_STARTED, summary, detail, advice, is_final=is_final)
    return failed(Outcome.NEVER_STARTED, "its pod was refused.", detail, "`kubectl describe job` shows each attempt.")


_Explained = tuple[str, str, bool]


def _quota(detail: str) -> _Explained:
    if (found := _QUOTA.search(detail)) is not None:
        limits = dict(part.partition("=")[::2] for part in found[2].split(","))
        for name, _, amount in (part.partition("=") for part in found[1].split(",")):
            if name in limits and quantity.parse(amount) > quantity.parse(limits[name]):
                return (
                    f"its pod needs {name}={amount}, and the namespace's quota allows {limits[name]} altogether.",
                    "Request less with @resources, or have the quota raised (`kubectl describe quota`).",
                    True,
                )
    return (
        "the namespace's quota is used up.",
        "It waits until other pods end. Request less, or have the quota raised (`kubectl describe quota`).",
        False,
    )


def _fixed(summary: str, advice: str, *, is_final: bool) -> Callable[[str], _Explained]:
    return lambda _: (summary, advice, is_final)


def _mentions(pattern: str) -> Callable[[str], bool]:
    expression = re.compile(pattern)
    return lambda detail: expression.search(detail) is not None


_REFUSALS: tuple[tuple[Callable[[str], bool], Callable[[str], _Explained]], ...] = (
    (_mentions("exceeded quota"), _quota),
    (
        _mentions(r"failed quota: .*must specify"),
        _fixed(
            "the namespace's quota needs a limit or request that its pod doesn't have.",
            "Set what the message names, for example @kubernetes(cpu_limit=…), or have a LimitRange set a default.",
            is_final=True,
        ),
    ),
    (
        _mentions(r"(maximum|minimum|max|min) \S+ (usage|limit to request ratio) per |limit to request ratio"),
        _fixed(
            "a LimitRange of the namespace doesn't allow what its pod requests.",
            "Request what it allows with @resources, or have it changed (`kubectl describe limitrange`).",
            is_final=True,
        ),
    ),
    (
        _mentions("PodSecurity"),
        _fixed(
            "the namespace's Pod Security Standard doesn't allow its pod.",
            'Remove the options that it names (run_as_user=0, for example): by default pods comply with "restricted".',
            is_final=True,
        ),
    ),
    (
        _mentions("(?i)serviceaccount"),
        _fixed(
            "its service account doesn't exist.",
            "Create it, or name another one: service_account=… or kubernetes_service_account.",
            is_final=False,
        ),
    ),
    (
        _mentions("being terminated"),
        _fixed(
            "its namespace is being deleted.",
            "Run the flow in another namespace: kubernetes_namespace, or @kubernetes(namespace=…).",
            is_final=True,
        ),
    ),
    (
        _mentions("failed calling webhook"),
        _fixed(
            "an admission webhook of the cluster doesn't answer, so no pod can be created.",
            "It keeps waiting until the webhook's operators have restored it.",
            is_final=False,
        ),
    ),
    (
        _mentions("denied (the )?request"),
        _fixed(
            "an admission policy of the cluster refused its pod.",
            "Change the options that the policy names, or have an exception made.",
            is_final=True,
        ),
    ),
    (
        _mentions("PriorityClass|RuntimeClass"),
        _fixed(
            "its priority or runtime class doesn't exist.",
            "Correct priority_class=… or runtime_class=…: `kubectl get priorityclasses,runtimeclasses` lists them.",
            is_final=True,
        ),
    ),
    (
        _mentions("is invalid:"),
        _fixed(
            "Kubernetes doesn't accept its pod.",
            "Correct the option that the message names.",
            is_final=True,
        ),
    ),
)


def _requests(options: PodOptions) -> str:
    return f"cpu={options.cpu}, memory={options.memory}" + (f", gpu={options.gpu}" if options.gpu else "")


def _is_more(amount: str | None, than: str) -> bool:
    return amount is not None and quantity.parse(amount) > quantity.parse(than)
