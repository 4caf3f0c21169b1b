"""The driver's moments of a traced run, read as they are written: when each execution was given a worker or a pod."""

from __future__ import annotations

import json
from contextlib import suppress

from k8sflow.storage.run_store import RunStore
from k8sflow.storage.trace import FOLDER

# The moments that end the wait of an execution: for a worker of this machine, or for a pod.
_LAUNCHES = {"started", "scheduled"}


class TraceReader:
    """Reads the logs of a run's drivers from where it stopped.

    Args:
        run_store: The run.
    """

    def __init__(self, run_store: RunStore) -> None:
        self._run_store = run_store
        self._positions: dict[str, int] = {}
        self._launched: dict[tuple[str, str, int], float] = {}

    def poll(self) -> None:
        """Reads what is new.

        Raises:
            StorageError: The store can't be read.
        """
        store = self._run_store.store
        for key in store.list_keys(f"{self._run_store.prefix}/{FOLDER}/"):
            position = self._positions.get(key, 0)
            data = store.tail(key, position)
            data = data[: data.rfind(b"\n") + 1]
            self._positions[key] = position + len(data)
            for line in data.splitlines():
                with suppress(ValueError, KeyError, TypeError):  # a damaged line is as good as none
                    self._take(json.loads(line))

    def _take(self, moment: dict[str, object]) -> None:
        if moment["moment"] in _LAUNCHES:
            key = (str(moment["step"]), str(moment["task"]), int(str(moment["attempt"])))
            self._launched.setdefault(key, float(str(moment["at"])))

    def launched(self, step: str, task: str, attempt: int) -> float | None:
        """When an execution no longer waited, in seconds since 1970; None if that was not recorded."""
        return self._launched.get((step, task, attempt))
