"""Records of many tasks at once: one that can't be read is an error of its own, and doesn't hide the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from k8sflow.errors import K8sflowError
from k8sflow.storage.objects import ObjectStore

_Key = TypeVar("_Key")
_Item = TypeVar("_Item")


def read_each(
    store: ObjectStore, read: Callable[[_Key], _Item], keys: Iterable[_Key]
) -> tuple[list[tuple[_Key, _Item]], list[str]]:
    """The records by key, and the errors of those that can't be read; in parallel where each read is a round trip.

    Args:
        store: The store that is read.
        read: Reads one record.
        keys: The arguments of its calls.
    """

    def tried(key: _Key) -> _Item | K8sflowError:
        try:
            return read(key)
        except K8sflowError as error:
            return error

    wanted = list(keys)
    at_once = min(store.parallel_reads, len(wanted))
    if at_once > 1:
        with ThreadPoolExecutor(at_once) as pool:
            found = list(zip(wanted, pool.map(tried, wanted), strict=True))
    else:
        found = [(key, tried(key)) for key in wanted]
    return (
        [(key, item) for key, item in found if not isinstance(item, K8sflowError)],
        [str(item) for _, item in found if isinstance(item, K8sflowError)],
    )
