"""Protects blobs that a task is about to refer to from ``gc``, which deletes blobs that no record refers to.

<flow>/condemned/<sha256>/<gc>    a gc is about to delete the blob

A blob may be deleted if no record refers to it, and it was written at least ``GRACE_SECONDS`` ago. A task that saves a
value writes its blob again unless the blob is younger than half of that, so the blobs of a task that is about to commit
are young. These rules leave one moment: a gc has found a blob to be old, the task writes it, and the gc deletes it.
Therefore both announce their intention before they look:

- the gc writes the object above, then looks at the blob's age, then deletes the blob, then the object;
- the task writes the blob, then looks for such objects, waits until there is none, and then writes the blob again if
  it is missing.

If the gc saw the age before the task wrote, its object was there before the task looked.
"""

from __future__ import annotations

import time

from k8sflow.debug_log import DebugLog
from k8sflow.storage.objects import ObjectStore

_log = DebugLog(__name__)
# A task commits within minutes after it has saved its first value.
GRACE_SECONDS = 24 * 3600.0
REUSED_SECONDS = GRACE_SECONDS / 2
# A gc deletes blobs within moments after it has announced it; an older announcement is that of a gc that has died.
_LONGEST_WAIT_SECONDS = 120.0
_PAUSE_SECONDS = 0.1


def condemned_prefix(flow: str, blob: str = "") -> str:
    """The prefix of the announcements of a flow, or of one of its blobs."""
    return f"{flow}/condemned/{blob}/" if blob else f"{flow}/condemned/"


def outlasted(store: ObjectStore, flow: str, blob: str) -> bool:
    """Waits until no gc is about to delete a blob, which was just written; returns True if one was."""
    deadline = None
    while keys := list(store.list_keys(condemned_prefix(flow, blob))):
        now = time.monotonic()
        deadline = now + _LONGEST_WAIT_SECONDS if deadline is None else deadline
        if now >= deadline:
            _log.debug("%s is still announced. Its gc has died.", keys[0])
            store.delete(keys)
            break
        time.sleep(_PAUSE_SECONDS)
    return deadline is not None
