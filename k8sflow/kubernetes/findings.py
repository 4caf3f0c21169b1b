"""Findings of the checks before a run, as data: an error that would fail the run, or a warning about a long wait."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from k8sflow.errors import KubernetesError


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with the cluster, the settings or the options of steps.

    Args:
        summary: What is wrong, and with which step, in one sentence.
        cause: Why, or what the server said.
        advice: What to do.
        is_error: True if the run would fail; False if it may only have to wait.
    """

    summary: str
    cause: str = ""
    advice: str = ""
    is_error: bool = True

    @staticmethod
    def of(error: KubernetesError) -> Finding:
        """The finding that an error describes."""
        return Finding(error.summary, error.cause, error.advice)

    def __str__(self) -> str:
        return "\n".join(part for part in (self.summary, self.cause, self.advice) if part)


def of_steps(steps: Iterable[str]) -> str:
    """Some steps, as a message names them: ``step train``, ``steps load and train``."""
    names = list(steps)
    if len(names) == 1:
        return f"step {names[0]}"
    return f"steps {', '.join(names[:-1])} and {names[-1]}"


def named_by(users: Iterable[str]) -> str:
    """The users of an object in a relative clause: ``step train names``, ``the setting credentials names``."""
    names = list(users)
    if len(names) == 1 and " " in names[0]:
        return f"{names[0]} names"
    return f"{of_steps(names)} name{'s' if len(names) == 1 else ''}"


# The option that sets a field of a pod, where there is only one.
_OPTIONS = {
    "metadata.annotations": "annotations",
    "metadata.labels": "labels",
    "activeDeadlineSeconds": "deadline_seconds",
    "affinity": "affinity",
    "dnsConfig": "dns_config",
    "hostAliases": "host_aliases",
    "nodeSelector": "node_selector",
    "priorityClassName": "priority_class",
    "resourceClaims": "resource_claims",
    "runtimeClassName": "runtime_class",
    "tolerations": "tolerations",
    "topologySpreadConstraints": "topology_spread",
}


def correct(message: str) -> str:
    """The advice about a message of the API server on fields of a pod, with the option that sets them if it is one."""
    fields = re.findall(r"(metadata\.\w+|spec\.\w+)[\w.\[\]]*: [A-Z]\w+ ", message.replace("spec.template.", ""))
    options = {_OPTIONS.get(field.removeprefix("spec."), "") for field in fields}
    if len(options) == 1 and (option := options.pop()):
        return f"Correct the option {option} of @kubernetes."
    return "Correct the option of @kubernetes that sets this field."


def shortened(message: str) -> str:
    """The API server's message without the examples and regular expressions of its grammars."""
    return re.sub(r" \(e\.g\. [^()]*regex used for validation is '(?:[^']|'(?=[^,)]))*'\)", "", message)


def as_error(findings: Sequence[Finding]) -> KubernetesError:
    """One error for all findings, each with its three parts."""
    if len(findings) == 1:
        return KubernetesError(findings[0].summary, cause=findings[0].cause, advice=findings[0].advice)
    listed = "\n".join(
        f"{number}. {finding}".replace("\n", "\n   ") for number, finding in enumerate(findings, start=1)
    )
    return KubernetesError(f"the run would fail on this cluster, for {len(findings)} reasons.", advice=listed)
