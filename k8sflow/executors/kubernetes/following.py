"""The tasks whose output is read from the cluster while they run: as many at a time as the setting allows."""

from __future__ import annotations

# The end of the output of a task that failed without being followed.
LAST_LINES = 200


class Following:
    """The places for tasks whose output is followed; each is a connection to the API server and to a kubelet.

    Args:
        most: How many there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: set[object] = set()

    def take(self, task: object) -> bool:
        """Gives a task a place, if one is free; True if it has one."""
        if task not in self._taken and len(self._taken) < self._most:
            self._taken.add(task)
        return task in self._taken

    def release(self, task: object) -> None:
        """Frees the place of a task that has ended, if it had one."""
        self._taken.discard(task)
