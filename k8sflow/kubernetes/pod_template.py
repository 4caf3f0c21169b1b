"""Pod templates: a user's file with parts of a pod, which is merged into the pod of a step.

The merge is the strategic one of ``kubectl patch``: dictionaries are merged, lists of named things are merged by their
keys, other values and lists are replaced; null deletes a value, ``$patch: delete`` an item of a list.
https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/

The template wins, except over what a run depends on to be right: ``_OURS`` lists what it can't have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators.pod_parsers import structure
from k8sflow.flow.decorators.pod_variables import KEYS, OF_THE_RUN
from k8sflow.flow.problems import did_you_mean, reason
from k8sflow.kubernetes.manifest import Manifest

# The merge keys of the API's lists; tolerations have none there, and are joined here.
_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "protocol"),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "resourceClaims": ("name",),
    "claims": ("name",),
    "schedulingGates": ("name",),
    "tolerations": ("key", "operator", "value", "effect"),
    "envFrom": ("prefix", "configMapRef", "secretRef"),
}
_DELETE = "$patch"
_TOP = ("apiVersion", "kind", "metadata", "spec", "template")
# Parts that a template can't have, as patterns of their path, and why.
_OURS = {
    r"metadata/(?!(labels|annotations)(/|$)).*": "The run names its pods; a template can have labels and annotations",
    r"metadata/(labels|annotations)/(k8sflow\.dev~1|batch\.kubernetes\.io~1|app\.kubernetes\.io~1managed-by).*": (
        "The run finds its pods by it"
    ),
    r"spec/restartPolicy": "A task is never restarted in its pod",
    r"spec/activeDeadlineSeconds": "Write @kubernetes(deadline_seconds=…)",
    r"spec/containers/task/image": "Write @kubernetes(image=…)",
    r"spec/containers/task/(command|args|workingDir|terminationMessage\w+)": "The agent of k8sflow runs the task by it",
    rf"spec/containers/task/env/({'|'.join((*OF_THE_RUN, 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'))})": (
        "It is set by k8sflow"
    ),
    rf"spec/containers/task/env/({'|'.join(KEYS)})/value": "It would be readable in the Job; refer to a Secret",
    r"spec/containers/task/volumeMounts/(~1opt~1k8sflow|~1k8sflow~1work)": "The runtime and the code are there",
    r"spec/(containers/task|initContainers/k8sflow-runtime)/\$patch": "No task runs without it",
    r"spec/initContainers/k8sflow-runtime/.*": "It copies k8sflow's runtime into the pod",
    r"spec/volumes/runtime/.*": "The runtime of k8sflow is there",
    r"spec/volumes/bucket-key/.*|spec/containers/task/volumeMounts/~1var~1run~1secrets~1k8sflow.dev": (
        "The key of the run's bucket is there"
    ),
}
_NOT_NULL = re.compile(
    r"spec(/(containers|initContainers|volumes|containers/task/(env|volumeMounts)))?|metadata(/\w+)?"
)


def load(file: Path, shown: str) -> dict[str, Any]:
    """The pod template of a file, checked, in the types of JSON.

    Args:
        file: Its file: a pod, a PodTemplate, or the ``metadata`` and ``spec`` of one.
        shown: The file as the user wrote it.

    Raises:
        FlowDefinitionError: It can't be read, or has something that a template can't have; the line is named.
    """
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text, yaml.SafeLoader)
        document = structure(yaml.safe_load(text))
    except (OSError, UnicodeDecodeError) as error:
        advice = "The path is relative to the folder of the flow's file."
        raise FlowDefinitionError(f"the pod template {file} can't be read: {reason(error)}.", advice=advice) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise FlowDefinitionError(f"{shown}:{line}: it is not YAML: {error.problem}.") from error
    except ValueError as error:
        raise FlowDefinitionError(
            f"{shown}: the pod template is not one document with a pod: {error}.",
            advice="Write the `metadata` and the `spec` of a pod, or a whole Pod.",
        ) from error
    lines = {"/".join(path): line for path, line in _lines(root)}
    if "template" in document:  # a PodTemplate
        document, prefix = structure(document["template"]), "template/"
        lines = {path.removeprefix(prefix): line for path, line in lines.items() if path.startswith(prefix)}
    _check(document, lines, shown)
    return {"file": shown, **_parts(document), "lines": lines}


def merged(pod: Manifest, template: Mapping[str, Any]) -> Manifest:
    """A pod with a template merged into it."""
    found: Manifest = _merged(pod, _parts(template))
    return found


def line_of(message: str, pod: Manifest, template: Mapping[str, Any]) -> int | None:
    """The line of the template that a message of the API server is about; None if it is about another part.

    Args:
        message: The message, which names a field such as ``spec.template.spec.containers[1].image``.
        pod: The pod that the server saw, with the template merged into it.
        template: The template.
    """
    for path in re.findall(r"spec\.template\.((?:spec|metadata)[\w.\[\]/-]*)", message):
        words: list[str] = []
        at: Any = pod
        field = ""
        for word in re.findall(r"[^.\[\]]+", path):
            if isinstance(at, list):
                at = at[int(word)] if word.isdecimal() and int(word) < len(at) else None
                words.append(_label(field, at, int(word) if word.isdecimal() else 0))
            else:
                field, at = word, at.get(word) if isinstance(at, Mapping) else None
                words.append(_escaped(word))
        for length in range(len(words), 1, -1):
            if "/".join(words[:length]) in template["lines"]:
                return int(template["lines"]["/".join(words[:length])])
    return None


def _parts(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: document[key] for key in ("metadata", "spec") if key in document}


def _check(document: Mapping[str, Any], lines: Mapping[str, int], shown: str) -> None:
    for key in document:
        if key not in _TOP:
            hint = did_you_mean(key, _TOP) or "Its parts are metadata and spec."
            raise FlowDefinitionError(f"{shown}:{lines.get(key, 1)}: a pod has no {key!r}.", advice=hint)
    if not isinstance(document.get("spec", {}), Mapping) or not isinstance(document.get("metadata", {}), Mapping):
        raise FlowDefinitionError(f"{shown}:{lines.get('spec', 1)}: the spec of a pod is a dictionary.")
    for path, value in _values(document):
        for pattern, why in _OURS.items():
            if re.fullmatch(pattern, path):
                raise FlowDefinitionError(
                    f"{shown}:{_nearest(lines, path)}: a pod template can't have {path.replace('/', '.')}.",
                    advice=f"{why}.",
                )
        if value is None and _NOT_NULL.fullmatch(path):
            raise FlowDefinitionError(f"{shown}:{_nearest(lines, path)}: a pod template can't delete {path}.")


def _nearest(lines: Mapping[str, int], path: str) -> int:
    """The line of a path, or of what it is in: YAML's merge keys have no line of their own."""
    while path and path not in lines:
        path = path.rpartition("/")[0]
    return lines.get(path, 1)


def _merged(ours: Any, theirs: Any, field: str = "") -> Any:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        found = {**ours, **{key: _merged(ours.get(key), value, key) for key, value in theirs.items()}}
        return {key: value for key, value in found.items() if value is not None or theirs.get(key, 0) is not None}
    if isinstance(theirs, list) and field in _KEYS:
        return _merged_lists(ours if isinstance(ours, list) else [], theirs, field)
    if isinstance(theirs, Mapping):
        return {key: _merged(None, value, key) for key, value in theirs.items() if value is not None}
    return theirs


def _merged_lists(ours: Sequence[Any], theirs: Sequence[Any], field: str) -> list[Any]:
    found = {_label(field, item, index): item for index, item in enumerate(ours)}
    for index, item in enumerate(theirs):
        label = _label(field, item, -1 - index)
        if isinstance(item, Mapping) and item.get(_DELETE) == "delete":
            found.pop(label, None)
        elif field in {"volumes", "env"}:  # one source each, so that two can't be merged
            found[label] = _merged(None, item)
        else:
            found[label] = _merged(found.get(label), item)
    return list(found.values())


def _label(field: str, item: Any, index: int) -> str:
    """The name of an item within its list: the values of its merge keys, else its index."""
    keys = _KEYS.get(field, ())
    if not isinstance(item, Mapping) or not any(key in item for key in keys):
        return str(index)
    values = [item[key] for key in keys if key in item]
    return _escaped(":".join(value if isinstance(value, str) else json.dumps(value) for value in values))


def _escaped(word: str) -> str:
    return word.replace("~", "~0").replace("/", "~1")


def _values(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values below one, with their paths; lists by their labels."""
    inside: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        inside = [(_escaped(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        field = path.rpartition("/")[2]
        inside = [(_label(field, item, index), item) for index, item in enumerate(value)]
    for word, item in inside:
        below = f"{path}/{word}" if path else word
        yield below, item
        yield from _values(item, below)


def _lines(node: yaml.Node | None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """The paths of everything that is written in a document, with the lines."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, _escaped(str(key.value)))
            yield below, key.start_mark.line + 1
            yield from _lines(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            below = (*path, _label(path[-1] if path else "", _scalars(item), index))
            yield below, item.start_mark.line + 1
            yield from _lines(item, below)


def _scalars(node: yaml.Node) -> Any:
    """The value of an item of a list, by whose texts and numbers it is known; None for one that is not a table."""
    if not isinstance(node, yaml.MappingNode):
        return None
    found = yaml.safe_load(yaml.serialize(node))
    return found if isinstance(found, dict) else None
