"""The keys that k8sflow writes below the folder of a flow.

A bucket may have objects of other programs, and some have folders with the same names, such as ``mlflow/runs/``.
What deletes or counts objects takes only those for k8sflow's that have one of these keys.

<flow>/runs/<run>/run.json
<flow>/runs/<run>/outcome.json
<flow>/runs/<run>/tags/<version>.json    replaces the tags in run.json
<flow>/runs/<run>/cloned.json            of a run that resumes another one: all clones are written
<flow>/runs/<run>/driver.lock, drivers/  the lease of the driver (storage/lease.py)
<flow>/runs/<run>/tasks/<step>/<task>/commit.json
<flow>/runs/<run>/tasks/<step>/<task>/<attempt>/{start.json,outcome.json,kept.json,stdout,stderr,stdout.times,stderr.times}
<flow>/runs/<run>/tasks/<step>/<task>/<attempt>/cards/  HTML files for people (storage/cards.py)
<flow>/runs/<run>/tasks/<step>/<task>/checkpoint/   until the task has a result (storage/checkpoints.py)
<flow>/runs/<run>/deleting/<gc>.json     a gc is about to delete the run (storage/garbage.py)
<flow>/runs/<run>/taken/<random>.json    blobs of results that the run takes from others (storage/cache_index.py)
<flow>/runs/<run>/ends/<step>/           the ends of its tasks, in the names of objects (storage/ends.py)
<flow>/index/<run>/                      facts of the run, in the names of objects (storage/run_index.py)
"""

from __future__ import annotations

import re

# The folder of a flow with the users' objects. Not among the runs: gc deletes what is there and belongs to no run of
# the bucket, and the records of a run may be in a folder of some machine.
DATA = "data"
_RUN = r"[^/]+"
_RUN_ID = re.compile(r"\d{8}-\d{6}-\d{6}")
_TASK = r"tasks/[^/]+/\d+(?:\.\d+)*(?:-\d+)?"
_BLOB = re.compile(r"blobs/([0-9a-f]{2})/\1[0-9a-f]{62}")
# As storage/gcs.py names them.
_PART = re.compile(rf"{_BLOB.pattern}\.part-[0-9a-f]{{32}}-\d+(?:-\d+)?")
_OF_RUN = re.compile(
    rf"(?:runs|spins)/{_RUN}/(?:"
    r"(?:run|outcome|cancel|cloned)\.json|driver\.lock|drivers/\d+\.json|tags/\d+\.json|taken/[0-9a-f]+\.json"
    r"|deleting/[^/]+\.json|ends/[^/]+/\d[^/]*_a\d+_s[^/]+|trace/\d{8}-[^/]+"
    rf"|{_TASK}/(?:commit\.json|checkpoint/.+|\d+/.+))"
)
_TAKEN = re.compile(rf"(?:runs|spins)/{_RUN}/taken/[0-9a-f]+\.json")
_CHECKPOINT = re.compile(rf"(?:runs|spins)/{_RUN}/{_TASK}/checkpoint/.+")
_CARD = re.compile(rf"(?:runs|spins)/{_RUN}/{_TASK}/\d+/cards/.+")
_INDEX = re.compile(rf"index/{_RUN}/(?:started/=.*|(?:ended|tags)/[0-9a-f]+/(?:-|=.*))")
_CACHE = re.compile(rf"cache/[^/]+/[0-9a-f]{{32}}/{_RUN}/\d+(?:\.\d+)*(?:-\d+)?")
_CONDEMNED = re.compile(r"condemned/[0-9a-f]{64}/[0-9a-f]+")


def may_be_flow(name: str) -> bool:
    """True if a folder in the root of a store may be that of a flow, which has the name of a class."""
    return name.isidentifier()


def is_run_id(name: str) -> bool:
    """True if a name is the id of a run that no user has chosen."""
    return _RUN_ID.fullmatch(name) is not None


def is_blob(key: str) -> bool:
    """True if a key, with the flow in front, is that of a blob."""
    return _BLOB.fullmatch(_below_flow(key)) is not None


def is_part(key: str) -> bool:
    """True if a key is that of a part of a blob whose upload to Google Cloud Storage has not ended."""
    return _PART.fullmatch(_below_flow(key)) is not None


def is_of_run(key: str) -> bool:
    """True if a key is that of a record, of output or of another object of a run, or of a trial task of ``spin``."""
    return _OF_RUN.fullmatch(_below_flow(key)) is not None


def is_taken(key: str) -> bool:
    """True if a key is that of a record of blobs that a run takes from others."""
    return _TAKEN.fullmatch(_below_flow(key)) is not None


def is_checkpoint(key: str) -> bool:
    """True if a key is that of a part of a task's checkpoint."""
    return _CHECKPOINT.fullmatch(_below_flow(key)) is not None


def is_card(key: str) -> bool:
    """True if a key is that of a card; a step of the name cards has other keys."""
    return _CARD.fullmatch(_below_flow(key)) is not None


def is_of_index(key: str) -> bool:
    """True if a key is that of an entry in the index of runs."""
    return _INDEX.fullmatch(_below_flow(key)) is not None


def is_of_cache(key: str) -> bool:
    """True if a key is that of a result that ``@cache`` keeps."""
    return _CACHE.fullmatch(_below_flow(key)) is not None


def is_condemned(key: str) -> bool:
    """True if a key is that of an announcement that a gc is about to delete a blob."""
    return _CONDEMNED.fullmatch(_below_flow(key)) is not None


def _below_flow(key: str) -> str:
    return key.partition("/")[2]


def task_order(task: str) -> tuple[list[int], int]:
    """A sort key: ``3.1-2`` is the third turn of a loop in branch 1 of branch 3."""
    path, _, turn = task.partition("-")
    return [int(part) if part.isdecimal() else 0 for part in path.split(".")], int(turn) if turn.isdecimal() else 0
