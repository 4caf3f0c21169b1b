"""``current.checkpoint``: a folder that the next attempt of a task finds again."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Protocol

from k8sflow.errors import RunError


class CheckpointStore(Protocol):
    """The store of a task's checkpoints."""

    def load(self, folder: Path) -> bool:
        """Fills an empty folder with the last checkpoint; False if there is none."""

    def save(self, folder: Path) -> None:
        """Makes the content of a folder the last checkpoint."""


class Checkpoint:
    """A folder whose content outlives the attempt, once it is saved.

    The last checkpoint of the task is loaded when ``current.checkpoint`` is first used.

    Args:
        store: Keeps the checkpoints of the task.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._folder: Path | None = None
        self._is_loaded = False
        self._process = os.getpid()

    @property
    def directory(self) -> str:
        """The path of the folder, which is empty or has the content of the last checkpoint."""
        return str(self._content())

    @property
    def is_loaded(self) -> bool:
        """True if the folder began with the checkpoint of an earlier attempt."""
        self._content()
        return self._is_loaded

    def save(self) -> None:
        """Saves the content of the folder, in place of the last checkpoint; that one stays whole until then.

        What has not changed since the attempt last saved it is not uploaded again.

        Raises:
            OSError: A file can't be read.
            RunError: This is a child process of the task.
            StorageError: The store refuses the write.
        """
        self._refuse_fork()
        with self._lock:
            self._store.save(self._content())

    def load(self) -> bool:
        """Replaces the content of the folder with the last checkpoint; returns False, and empties it, if there is none.

        Raises:
            RunError: This is a child process of the task.
            StorageError: The store can't be read.
        """
        self._refuse_fork()
        with self._lock:
            if self._folder is None:
                return self.is_loaded
            shutil.rmtree(self._folder / "files")
            return self._load(self._folder)

    @property
    def is_used(self) -> bool:
        """True if the step has used it."""
        return self._folder is not None

    def close(self) -> None:
        """Deletes the folder."""
        if self._folder is not None and os.getpid() == self._process:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _content(self) -> Path:
        with self._lock:
            if self._folder is None:
                self._refuse_fork()
                folder = Path(tempfile.mkdtemp(prefix="k8sflow-checkpoint-"))
                self._is_loaded = self._load(folder)
                self._folder = folder
            return self._folder / "files"

    def _refuse_fork(self) -> None:
        """Refuses a process that shares its connections with the task's, and its knowledge of what is saved."""
        if os.getpid() != self._process:
            raise RunError(
                "current.checkpoint is used in a child process of the task, such as a worker of parallel_map.",
                cause="Two processes that save would overwrite each other's checkpoints.",
                advice="Save and load in the step itself. A child process may use current.checkpoint.directory if the "
                "step has read it before.",
            )

    def _load(self, folder: Path) -> bool:
        content = folder / "files"
        content.mkdir()
        return self._store.load(content)
