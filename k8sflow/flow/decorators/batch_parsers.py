"""Parsers of the options of ``@batch``: each raises ValueError for what AWS Batch can't take.

As after ``--with kubernetes:``, a list is text with commas, and a dictionary is ``key=value`` with commas, or JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from k8sflow.flow.decorators.parsers import count, listed, text
from k8sflow.flow.decorators.pod_parsers import folder, pairs

LOG_DRIVERS = ("awslogs", "fluentd", "gelf", "journald", "json-file", "splunk", "syslog")
# https://docs.aws.amazon.com/batch/latest/APIReference/API_EphemeralStorage.html
_LEAST_STORAGE_GIB, _MOST_STORAGE_GIB = 21, 200
# https://docs.aws.amazon.com/batch/latest/APIReference/API_JobTimeout.html
_SHORTEST_DEADLINE_SECONDS = 60
_MOST_SWAPPINESS = 100
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
_FILE_SYSTEM = re.compile(r"fs-[0-9a-f]{8,40}")
_TAG = re.compile(r"[\w .:/=+@-]{1,128}")
_LONGEST_TAG = 256


def role(value: object) -> str:
    """The ARN of an IAM role."""
    found = text(value)
    if not _ROLE.fullmatch(found):
        raise ValueError(f"{value!r} is not the ARN of an IAM role, such as arn:aws:iam::123456789012:role/NAME")
    return found


def swappiness(value: object) -> int:
    """A number from 0 to 100: the kernel swaps more readily the higher it is."""
    found = count(value)
    if found > _MOST_SWAPPINESS:
        raise ValueError(f"{found} is not a swappiness, which is 0 to {_MOST_SWAPPINESS}")
    return found


def storage(value: object) -> int:
    """A number of GiB that a Fargate task can have."""
    found = count(value)
    if not _LEAST_STORAGE_GIB <= found <= _MOST_STORAGE_GIB:
        raise ValueError(f"{found} is not a number of GiB from {_LEAST_STORAGE_GIB} to {_MOST_STORAGE_GIB}")
    return found


def deadline(value: object) -> int:
    """A number of seconds that AWS Batch accepts as the timeout of a job."""
    found = count(value)
    if found < _SHORTEST_DEADLINE_SECONDS:
        raise ValueError(f"{found} seconds is less than the {_SHORTEST_DEADLINE_SECONDS} that AWS Batch accepts")
    return found


def devices(most: int) -> Callable[[object], int]:
    """A parser of a number of devices of one container."""

    def parse(value: object) -> int:
        found = count(value)
        if found > most:
            raise ValueError(f"{found} is more than an instance has, which is at most {most}")
        return found

    return parse


def folders(value: object) -> tuple[str, ...]:
    """Folders of the host, each mounted under its own path: a list, or text with commas."""
    return tuple(map(folder, listed(value, "folders")))


def file_systems(value: object) -> dict[str, str]:
    """EFS file systems and their folders in the container; those of a list are mounted at ``/mnt/ID``."""
    if isinstance(value, str) and "=" not in value and not value.startswith("{"):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        value = {name: f"/mnt/{name}" for name in map(text, value)}
    found = pairs(value)
    for name in found:
        if not _FILE_SYSTEM.fullmatch(name):
            raise ValueError(f"{name!r} is not the id of an EFS file system, such as fs-0123456789abcdef0")
    return {name: folder(where) for name, where in found.items()}


def log_options(value: object) -> dict[str, str]:
    """Options of the log driver: a dictionary, or ``option:value`` or a list of them, as Metaflow has it."""
    if isinstance(value, str) and ":" in value and "=" not in value and not value.startswith("{"):
        value = [value]
    if not isinstance(value, list | tuple):
        return pairs(value)
    found = {}
    for item in map(text, value):
        key, colon, option = item.partition(":")
        if not colon:
            raise ValueError(f"{item!r} is not of the form option:value")
        found[key.strip()] = option.strip()
    return found


def tags(value: object) -> dict[str, str]:
    """Tags of AWS: https://docs.aws.amazon.com/batch/latest/userguide/using-tags.html."""
    found = pairs(value)
    for key, item in found.items():
        if not _TAG.fullmatch(key) or key.lower().startswith(("aws:", "k8sflow:")):
            raise ValueError(f"{key!r} can't be the key of a tag")
        if len(item) > _LONGEST_TAG:
            raise ValueError(f"the tag {key!r} has {len(item)} characters, and {_LONGEST_TAG} are allowed")
    return found
