"""Reads objects that are known to exist, from servers that may take a moment to show a new one.

S3 shows it at once (https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel); caches and
replicas in front of other servers may not.
"""

from __future__ import annotations

import time

from k8sflow.errors import ObjectNotFoundError
from k8sflow.storage.objects import Buffer, ObjectStore

_PAUSES_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.5)


def get_written(store: ObjectStore, key: str) -> Buffer:
    """The bytes of an object that was written; a bucket that doesn't show it is asked again for three seconds.

    Args:
        store: The store.
        key: The object's key.

    Raises:
        ObjectNotFoundError: It isn't there, so it was deleted.
    """
    for pause in _PAUSES_SECONDS if store.is_shared else ():
        try:
            return store.get(key)
        except ObjectNotFoundError:
            time.sleep(pause)
    return store.get(key)
