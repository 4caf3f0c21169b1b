"""Tags, by which runs are found. User tags can change at any time; system tags follow from the run's record."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

from k8sflow.errors import TagError
from k8sflow.storage.records import RunRecord

_LONGEST = 500


def checked(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags without duplicates, in their order.

    Raises:
        TagError: One of them can't be a tag.
    """
    if isinstance(tags, (str, bytes)):
        tags = [tags] if isinstance(tags, str) else [tags.decode("utf-8", "surrogateescape")]
    found = tuple(dict.fromkeys(tags))
    for tag in found:
        if why := _wrong(tag):
            raise TagError(
                f"{str(tag)[:80]!r} can't be a tag: {why}.",
                advice=f"A tag is one line of 1 to {_LONGEST} characters.",
            )
    return found


def system_tags(record: RunRecord) -> frozenset[str]:
    """The tags that follow from a run's record: ``user:ada``, ``date:2026-03-01``, ``python_version:3.11.7``.

    A run with pods has ``runtime:kubernetes``, one with jobs of AWS Batch ``runtime:batch``, any other ``runtime:dev``,
    Metaflow's name for this machine.
    """
    found = {f"date:{datetime.fromtimestamp(record.created, timezone.utc):%Y-%m-%d}"}
    found |= {"runtime:kubernetes"} if record.pods else set()
    found |= {"runtime:batch"} if record.batch else set()
    if not (record.pods or record.batch):
        found.add("runtime:dev")
    known = {name: getattr(record, name) for name in ("python_version", "k8sflow_version")}
    found |= {f"{name}:{value}" for name, value in {"user": record.user, **known}.items() if value}
    if project := record.flow_decorators.get("project"):
        found |= {f"project:{project['project_name']}", f"project_branch:{project['branch_name']}"}
    return frozenset(found)


def _wrong(tag: object) -> str:
    if not isinstance(tag, str):
        return "it is not a string"
    if not tag.strip():
        return "it is empty"
    if len(tag) > _LONGEST:
        return f"it has {len(tag)} characters"
    if any(not character.isprintable() for character in tag):
        return "it has a line break, or another character that can't be printed"
    return ""
