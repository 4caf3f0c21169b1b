"""The index of a flow's runs in a bucket: facts of each run in the names of objects, of which a page lists a thousand.

<flow>/index/<run>/started/=<facts>
<flow>/index/<run>/ended/<writer>/-            about to be written
<flow>/index/<run>/ended/<writer>/=<facts>     written
<flow>/index/<run>/tags/<version>/-
<flow>/index/<run>/tags/<version>/=<facts>

The records of the run are the truth, and the index never contradicts them: before a record is written, an object says
that it is about to be; after it, another one has the facts. A reader that finds only the first one, or two writers,
reads the record. A folder has no index: reading a file there takes no longer than listing it.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from k8sflow.debug_log import DebugLog
from k8sflow.errors import AccessError, StorageError
from k8sflow.flow.outcome import Outcome
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import Commit, OutcomeRecord, RunRecord
from k8sflow.storage.tags import system_tags
from k8sflow.storage.usage import Usage

_log = DebugLog(__name__)
_STARTED, _ENDED, _TAGS = "started", "ended", "tags"
_PENDING, _FACTS = "-", "="
# S3 allows keys of 1024 bytes with the store's prefix; file systems, on which some servers store them, 255 for a name.
_LONGEST_KEY = 900
_LONGEST_NAME = 200


@dataclass(frozen=True)
class EndFacts:
    """The end of a run, as far as a list of runs shows it.

    Args:
        outcome: The outcome.
        finished: The time of the end, in seconds since 1970.
        is_complete: True if it is known whether the run reached its last step.
        reached: The time at which the last step finished; None if the run did not reach it.
        is_caught: True if the last step failed, and ``@catch`` let the run continue.
        usage: The resources that its tasks used; None if they were not measured.
    """

    outcome: Outcome
    finished: float
    is_complete: bool = False
    reached: float | None = None
    is_caught: bool = False
    usage: Usage | None = None


@dataclass(frozen=True)
class RunFacts:
    """The facts of a run that a list of runs shows.

    Args:
        created: The start time, in seconds since 1970.
        user: The user who started it.
        origin_run_id: The run that it resumes.
        system_tags: The tags that follow from its record.
        tags: The user tags; None if its records have to be read.
        end: Its end; None if it has none yet, or if its records have to be read.
    """

    created: float
    user: str
    origin_run_id: str | None
    system_tags: frozenset[str]
    tags: tuple[str, ...] | None
    end: EndFacts | None


@dataclass(frozen=True)
class RunIndex:
    """The entries of one run in its flow's index; does nothing in a folder.

    Args:
        store: The store.
        flow: The flow's class name.
        run: The run's id.
    """

    store: ObjectStore
    flow: str
    run: str

    def created(self, record: RunRecord) -> None:
        """Adds a run, whose record was just written."""
        if not self.store.is_shared:
            return
        facts = {"created": record.created, "user": record.user, "origin": record.origin_run_id}
        self._write(_STARTED, {**facts, "system": sorted(system_tags(record)), "tags": record.tags})

    def ending(self) -> str:
        """Announces that the run's outcome is about to be written; returns the name to give to ``ended``."""
        writer = secrets.token_hex(4)
        self._announce(f"{_ENDED}/{writer}")
        return writer

    def ended(self, writer: str, record: OutcomeRecord, last: Commit | None, *, is_complete: bool) -> None:
        """Adds the run's outcome, which was just written.

        Args:
            writer: The name that ``ending`` returned.
            record: The outcome.
            last: The commit of the last step, if the run has reached it.
            is_complete: True if ``last`` was read.
        """
        facts: dict[str, Any] = {"outcome": record.outcome.value, "finished": record.finished}
        if record.usage is not None:
            facts["usage"] = record.usage.to_document()
        if is_complete:
            facts["last"] = None if last is None else [last.finished, last.is_caught]
        self._write(f"{_ENDED}/{writer}", facts)

    def tagging(self, version: int) -> None:
        """Announces that a version of the tags is about to be written."""
        self._announce(f"{_TAGS}/{version:08}")

    def tagged(self, version: int, tags: tuple[str, ...]) -> None:
        """Adds a version of the tags, which was just written."""
        self._write(f"{_TAGS}/{version:08}", {"tags": tags})

    def _announce(self, name: str) -> None:
        if self.store.is_shared:
            self.store.put(f"{self.flow}/index/{self.run}/{name}/{_PENDING}", [b"{}"])

    def _write(self, name: str, facts: Mapping[str, Any]) -> None:
        """Writes facts; without them, as when they are too long for a key, readers take longer and find the same."""
        if not self.store.is_shared:
            return
        data = json.dumps(facts, separators=(",", ":")).encode()
        text = base64.urlsafe_b64encode(zlib.compress(data, 9)).decode().rstrip("=")
        parts = [text[start : start + _LONGEST_NAME] for start in range(0, len(text), _LONGEST_NAME)]
        key = f"{self.flow}/index/{self.run}/{name}/{_FACTS}{'/'.join(parts)}"
        if len(f"{self.store.url}/{key}".encode()) > _LONGEST_KEY:
            return
        try:
            self.store.put(key, [data])
        except (StorageError, AccessError) as error:  # the record itself was written
            _log.debug("%s was not added to the index: %s", key, error)


def read_index(store: ObjectStore, flow: str) -> dict[str, RunFacts]:
    """The facts of a flow's runs by id, from a listing; runs that have no readable entry are missing.

    Raises:
        StorageError: The store can't be reached, or refused the request.
    """
    found: dict[str, _Entries] = {}
    if store.is_shared:
        prefix = f"{flow}/index/"
        for key in store.list_keys(prefix):
            run, _, rest = key.removeprefix(prefix).partition("/")
            found.setdefault(run, _Entries()).add(rest)
    read = ((run, entries.facts()) for run, entries in found.items())
    return {run: facts for run, facts in read if facts is not None}


@dataclass
class _Entries:
    """The entries of a run, as the listing has them."""

    started: str = ""
    ended: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, name: str) -> None:
        kind, _, rest = name.partition("/")
        if kind == _STARTED:
            self.started = rest
            return
        version, _, text = rest.partition("/")
        of_kind = {_ENDED: self.ended, _TAGS: self.tags}.get(kind)
        if of_kind is not None and (version not in of_kind or text != _PENDING):
            of_kind[version] = text

    def facts(self) -> RunFacts | None:
        """The run's facts; None if they can't be read."""
        try:
            document = _decoded(self.started)
            return RunFacts(
                created=document["created"],
                user=document["user"],
                origin_run_id=document["origin"],
                system_tags=frozenset(document["system"]),
                tags=self._tags(document["tags"]),
                end=self._end(),
            )
        except (ValueError, KeyError, TypeError, zlib.error):
            return None

    def _tags(self, first: Iterable[str]) -> tuple[str, ...] | None:
        if not self.tags:
            return tuple(first)
        newest = self.tags[max(self.tags)]
        return tuple(_decoded(newest)["tags"]) if newest.startswith(_FACTS) else None

    def _end(self) -> EndFacts | None:
        texts = list(self.ended.values())
        if len(texts) != 1 or not texts[0].startswith(_FACTS):
            return None
        document = _decoded(texts[0])
        outcome, finished = Outcome(document["outcome"]), document["finished"]
        usage = Usage.from_document(document.get("usage"))
        if "last" not in document:
            return EndFacts(outcome, finished, usage=usage)
        reached, is_caught = document["last"] or (None, False)
        return EndFacts(outcome, finished, is_complete=True, reached=reached, is_caught=is_caught, usage=usage)


def _decoded(text: str) -> dict[str, Any]:
    data = text.removeprefix(_FACTS).replace("/", "")
    try:
        document: dict[str, Any] = json.loads(zlib.decompress(base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))))
    except binascii.Error as error:
        raise ValueError("not base64") from error
    return document
