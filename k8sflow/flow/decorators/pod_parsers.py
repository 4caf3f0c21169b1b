"""Parsers of the options of ``@kubernetes``.

Each takes what a user wrote, in Python or as text after ``--with kubernetes:``, and raises ValueError for what can't
be used. Structures are those of the Kubernetes API; as text they are JSON.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from k8sflow.flow.decorators import image_name, label_syntax, pod_variables, quantity
from k8sflow.flow.decorators.parsers import count, listed, text
from k8sflow.flow.problems import did_you_mean

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
# Resources of the device plugins. Other vendors are named by the resource itself, as in "example.com/gpu".
GPU_RESOURCES = {
    "nvidia": "nvidia.com/gpu",
    "amd": "amd.com/gpu",
    "intel": "gpu.intel.com/i915",
    "gaudi": "habana.ai/gaudi",
    "neuron": "aws.amazon.com/neuron",
    "tpu": "google.com/tpu",
}
# The node labels with a GPU's model, as the vendors' discovery add-ons set them.
GPU_MODEL_LABELS = {"nvidia": "nvidia.com/gpu.product", "amd": "amd.com/gpu.product-name"}
SECURITY_FIELDS = (
    "allowPrivilegeEscalation",
    "appArmorProfile",
    "capabilities",
    "privileged",
    "procMount",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seLinuxOptions",
    "seccompProfile",
)
_TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")
_AFFINITY = ("nodeAffinity", "podAffinity", "podAntiAffinity")
_DNS = ("nameservers", "searches", "options")
_SPREAD = (
    "topologyKey",
    "maxSkew",
    "whenUnsatisfiable",
    "labelSelector",
    "matchLabelKeys",
    "minDomains",
    "nodeAffinityPolicy",
    "nodeTaintsPolicy",
)
_MEDIA = ("Memory", "HugePages", "HugePages-2Mi", "HugePages-1Gi")
_ACCESS_MODES = ("ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany", "ReadOnlyMany")


def one_of(*choices: str) -> Callable[[object], str]:
    """A parser of one of some words, in the spelling of Kubernetes whatever the case in which it is written."""

    def parse(value: object) -> str:
        found = next((choice for choice in choices if choice.lower() == str(value).lower()), None)
        if found is None:
            raise ValueError(f"{value!r} is none of {', '.join(choices)}")
        return found

    return parse


def name(value: object) -> str:
    """The name of an object in the cluster."""
    found = text(value)
    if not _NAME.fullmatch(found):
        raise ValueError(f"{value!r} can't be a name in Kubernetes: lower-case letters, digits, - and . are allowed")
    return found


def names(value: object) -> tuple[str, ...]:
    """Names of objects in the cluster: a list, or text with commas."""
    return tuple(map(name, listed(value, "names")))


def pairs(value: object) -> dict[str, str]:
    """A dictionary of texts, or text such as ``key=value,key=value``."""
    found = _table(value)
    for key, item in found.items():
        if not isinstance(item, str):
            raise ValueError(f"the value of {key!r} is {item!r}; it has to be a text (quote it)")  # noqa: TRY004
    return found


def variables(value: object) -> dict[str, str]:
    """Environment variables and their values."""
    found = pairs(value)
    for key in found:
        if not key or "=" in key or "\0" in key:
            raise ValueError(f"{key!r} can't be the name of an environment variable")
    pod_variables.check_names(found)
    return found


def selector(value: object) -> dict[str, str]:
    """Labels and their values."""
    found = pairs(value)
    for key, item in found.items():
        label_syntax.check_key(key)
        label_syntax.check_value(item, f" of {key!r}")
    return found


def label_value(value: object) -> str:
    """The value of a label."""
    found = text(value)
    label_syntax.check_value(found)
    return found


def own_labels(value: object) -> dict[str, str]:
    """Labels and their values, other than those by which a run finds its pods."""
    found = own_annotations(value)
    return selector(found)


def own_annotations(value: object) -> dict[str, str]:
    """Annotations and their values, other than those by which a run finds its pods."""
    found = pairs(value)
    for key in found:
        label_syntax.check_key(key.lower())
        if key.startswith(("k8sflow.dev/", "batch.kubernetes.io/")) or key == "app.kubernetes.io/managed-by":
            raise ValueError(f"{key} is set by k8sflow or Kubernetes: the run finds its pods by it")
    return found


def amounts(value: object) -> dict[str, str]:
    """Extended resources, ``vendor.com/thing``, and how many of each."""
    found = {}
    for key, item in _table(value).items():
        if "/" not in key:
            raise ValueError(f"{key!r} is not an extended resource, which is called vendor.com/thing")
        found[key] = str(count(item))
    return found


def folders(value: object) -> dict[str, str]:
    """Names of objects and the folders of the pod in which they are mounted."""
    return {name(key): folder(item) for key, item in _table(value).items()}


def images(value: object) -> dict[str, str]:
    """References of images and the folders of the pod in which their files are mounted."""
    return {image(key): folder(item) for key, item in _table(value).items()}


def image(value: object) -> str:
    """The reference of an image."""
    found = text(value)
    if why := image_name.mistake(found):
        raise ValueError(why)
    return found


def folder(value: object) -> str:
    """The absolute path of a folder in the pod."""
    found = text(value)
    if not found.startswith("/") or found.rstrip("/") == "" or ":" in found or ".." in found.split("/"):
        raise ValueError(f"{value!r} is not the absolute path of a folder in the container, such as /data")
    return found.rstrip("/")


def empty_dirs(value: object) -> dict[str, dict[str, str]]:
    """Folders and the sizes of the emptyDirs mounted there; a dictionary for a medium too."""
    found = {}
    for key, item in _table(value).items():
        given = _fields(item, ("size", "medium"), key)
        if "size" not in given and "medium" not in given:
            raise ValueError(f"the folder {key!r} has neither a size nor a medium")
        made = {"sizeLimit": quantity.share(given["size"])} if "size" in given else {}
        found[folder(key)] = made | ({"medium": one_of(*_MEDIA)(given["medium"])} if "medium" in given else {})
    return found


def ephemeral_volumes(value: object) -> dict[str, dict[str, str]]:
    """Folders and the claims that are made for the pod and deleted with it."""
    found = {}
    for key, item in _table(value).items():
        given = _fields(item, ("size", "storage_class", "access_mode"), key)
        if "size" not in given:
            raise ValueError(f"the volume of {key!r} has no size")
        made = {
            "size": quantity.share(given["size"]),
            "access_mode": one_of(*_ACCESS_MODES)(given.get("access_mode", "ReadWriteOnce")),
        }
        if "storage_class" in given:
            made["storage_class"] = name(given["storage_class"])
        found[folder(key)] = made
    return found


def gpu_vendor(value: object) -> str:
    """A vendor of GPUs, or the name of its resource in the cluster."""
    found = text(value)
    if found.lower() in GPU_RESOURCES:
        return found.lower()
    if "/" not in found:
        listed = f"{', '.join(GPU_RESOURCES)}, and not a resource such as vendor.com/gpu"
        raise ValueError(f"{value!r} is none of {listed}. {did_you_mean(found.lower(), GPU_RESOURCES)}".rstrip("? "))
    return found


def gpu_model(value: object) -> str:
    """The value of a node's label, or label=value."""
    found = text(value)
    label, equals, model = found.rpartition("=")
    if equals:
        label_syntax.check_key(label)
    label_syntax.check_value(model)
    return found


def security_context(value: object) -> dict[str, Any]:
    """The security context of a container, in the names of Kubernetes or with underscores."""
    found = {}
    for key, item in structure(value).items():
        first, *rest = key.split("_")
        found[_known(first + "".join(map(str.capitalize, rest)), SECURITY_FIELDS, "a security context")] = item
    return found


def tolerations(value: object) -> tuple[dict[str, Any], ...]:
    """Tolerations of taints."""
    return _items(value, _TOLERATION, "a toleration")


def affinity(value: object) -> dict[str, Any]:
    """Affinity to nodes and pods."""
    found = structure(value)
    for key in found:
        _known(key, _AFFINITY, "an affinity")
    return found


def topology_spread(value: object) -> tuple[dict[str, Any], ...]:
    """Constraints for spreading pods, or the label of nodes over whose values they are spread."""
    if isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
        value = [{"topologyKey": text(value)}]
    found = _items(value, _SPREAD, "a topology spread constraint")
    for item in found:
        if "topologyKey" not in item:
            raise ValueError(f"{item!r} has no topologyKey, such as topology.kubernetes.io/zone")
    return tuple({"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", **item} for item in found)


def dns_config(value: object) -> dict[str, Any]:
    """Name servers, search domains and options of the pod's resolver."""
    found = structure(value)
    for key in found:
        _known(key, _DNS, "a DNS config")
    return found


def host_aliases(value: object) -> dict[str, list[str]]:
    """IP addresses and the host names that the pod's /etc/hosts has for them; as text ``10.0.0.5=db db.local``."""
    found = {}
    for key, item in _table(value).items():
        try:
            ipaddress.ip_address(key)
        except ValueError:
            raise ValueError(f"{key!r} is not an IP address") from None
        hosts = item.split() if isinstance(item, str) else list(item) if isinstance(item, list | tuple) else []
        if not hosts:
            raise ValueError(f"{key} has no host names")
        found[key] = [name(host) for host in hosts]
    return found


def resource_claims(value: object) -> dict[str, dict[str, str]]:
    """Names of claims within the pod, with ``template/NAME`` of a ResourceClaimTemplate or ``claim/NAME``."""
    kinds = {"template": "resourceClaimTemplateName", "claim": "resourceClaimName"}
    found = {}
    for key, item in _table(value).items():
        kind, slash, of = item.partition("/") if isinstance(item, str) else ("", "", "")
        if not slash or kind not in kinds:
            raise ValueError(f"the claim {key!r} is {item!r}; write template/NAME or claim/NAME")
        found[name(key)] = {kinds[kind]: name(of)}
    return found


def template(value: object) -> dict[str, Any]:
    """The file of a pod template, which is read when the run is placed."""
    if isinstance(value, Mapping):  # one that was read
        return dict(value)
    return {"file": text(value)}


def structure(value: object) -> dict[str, Any]:
    """A dictionary of JSON types, or its JSON."""
    found = _plain(_from_json(value) if isinstance(value, str) else value)
    if not isinstance(found, dict):
        raise ValueError(f"{value!r} is not a dictionary")  # noqa: TRY004
    return found


def _items(value: object, fields: tuple[str, ...], what: str) -> tuple[dict[str, Any], ...]:
    found = _plain(_from_json(value) if isinstance(value, str) else value)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"{value!r} is not a list of dictionaries")
    for item in found:
        for key in item:
            _known(key, fields, what)
    return tuple(found)


def _known(key: str, fields: tuple[str, ...], what: str) -> str:
    if key not in fields:
        hint = f"{did_you_mean(key, fields)} Its fields are {', '.join(fields)}".strip()
        raise ValueError(f"{key!r} is not a field of {what}. {hint}")
    return key


def _fields(value: object, allowed: tuple[str, ...], where: str) -> dict[str, Any]:
    """The fields of a volume: those that are written, or its size alone."""
    if not isinstance(value, Mapping):
        return {"size": value}
    for key in value:
        _known(str(key), allowed, f"the volume of {where!r}")
    return dict(value)


def _table(value: object) -> dict[str, Any]:
    """A dictionary with texts as keys; as text it is ``key=value,key=value`` or JSON."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = _from_json(value)
    if isinstance(value, str):
        parts = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(separator for _, separator, _ in parts):
            raise ValueError(f"{value!r} is not of the form key=value,key=value")
        value = {key.strip(): item.strip() for key, _, item in parts}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) and key for key in value):
        raise ValueError(f"{value!r} is not a dictionary with texts as keys")
    return dict(value)


def _from_json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from error


def _plain(value: object) -> Any:
    """The value in the types of JSON, so that it can be stored with the run."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ValueError(f"{value!r} can't be written as JSON")
