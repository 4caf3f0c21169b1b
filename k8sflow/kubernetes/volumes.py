"""The volumes of a task's pod, and the folders in which its container has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from k8sflow.flow.decorators.pod_options import DEFAULT_TMPFS_PATH, RUNTIME_FOLDER, WORK_FOLDER, PodOptions
from k8sflow.kubernetes.manifest import Manifest

TEMPORARY_FOLDER = "/tmp"  # noqa: S108  the pod's own
SHARED_MEMORY_FOLDER = "/dev/shm"  # noqa: S108  the pod's own
RUNTIME = "runtime"


@dataclass(frozen=True)
class Volume:
    """A volume of the pod, mounted into the task's container.

    Args:
        name: Its name in the pod.
        folder: Where the container has it.
        source: The source of the volume, as the API spells it.
        read_only: Whether the container may only read it.
    """

    name: str
    folder: str
    source: Mapping[str, Any]
    read_only: bool = False

    def volume(self) -> Manifest:
        """The volume, for the pod."""
        return {"name": self.name, **self.source}

    def mount(self) -> Manifest:
        """The mount, for the container."""
        return {
            "name": self.name,
            "mountPath": self.folder,
            **({"readOnly": True} if self.read_only else {}),
        }


def volumes(options: PodOptions, *, copies_runtime: bool) -> list[Volume]:
    """The volumes of a task's pod; one that the options mount at /tmp replaces the usual one."""
    own = [Volume("work", WORK_FOLDER, {"emptyDir": {}}), Volume("tmp", TEMPORARY_FOLDER, {"emptyDir": {}})]
    if copies_runtime:
        own.append(Volume(RUNTIME, RUNTIME_FOLDER, {"emptyDir": {}}))
    asked = list(_asked(options))
    taken = {volume.folder for volume in asked}
    return [*(volume for volume in own if volume.folder not in taken), *asked]


def _asked(options: PodOptions) -> Iterator[Volume]:
    if options.shared_memory is not None:
        yield Volume("shared-memory", SHARED_MEMORY_FOLDER, _in_memory(options.shared_memory))
    if options.has_tmpfs:
        size = options.tmpfs_size or options.half_of_memory()
        yield Volume("tmpfs", options.tmpfs_path or DEFAULT_TMPFS_PATH, _in_memory(size))
    for number, (folder, empty_dir) in enumerate((options.empty_dirs or {}).items()):
        yield Volume(f"empty-dir-{number}", folder, {"emptyDir": dict(empty_dir)})
    for number, (folder, asked) in enumerate((options.ephemeral_volumes or {}).items()):
        yield Volume(f"ephemeral-{number}", folder, {"ephemeral": {"volumeClaimTemplate": {"spec": _claim(asked)}}})
    # Numbered: a volume's name has to be shorter than that of an object may be.
    for number, (name, folder) in enumerate((options.persistent_volume_claims or {}).items()):
        yield Volume(f"claim-{number}", folder, {"persistentVolumeClaim": {"claimName": name}})
    for number, (name, folder) in enumerate((options.secret_files or {}).items()):
        yield Volume(f"secret-{number}", folder, {"secret": {"secretName": name}}, read_only=True)
    for number, (name, folder) in enumerate((options.config_map_files or {}).items()):
        yield Volume(f"config-map-{number}", folder, {"configMap": {"name": name}}, read_only=True)
    for number, (image, folder) in enumerate((options.image_volumes or {}).items()):
        yield Volume(f"image-{number}", folder, {"image": {"reference": image}}, read_only=True)


def _claim(asked: Mapping[str, str]) -> Manifest:
    """The spec of an ephemeral volume's claim; no field of it comes from a record as it is."""
    storage_class = {"storageClassName": asked["storage_class"]} if "storage_class" in asked else {}
    return {
        "accessModes": [asked["access_mode"]],
        "resources": {"requests": {"storage": asked["size"]}},
        **storage_class,
    }


def _in_memory(size: str) -> Manifest:
    return {"emptyDir": {"medium": "Memory", "sizeLimit": size}}
