"""The checkpoints of a task in the run's store: files in verified chunks, and a manifest that names them.

<flow>/runs/<run>/tasks/<step>/<task>/checkpoint/<writer>/<sha256>       a chunk of a file
<flow>/runs/<run>/tasks/<step>/<task>/checkpoint/<writer>/manifest.json  written last

A writer is one execution of the task's process. It changes only its own objects, so that a process which was thought
to be dead can't damage the checkpoint of its successor.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from k8sflow.errors import ConfigurationError, K8sflowError, ObjectNotFoundError, StorageError
from k8sflow.storage.records import dump
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.written import get_written

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

_CHUNK_BYTES = 8 << 20
_PARALLEL_CHUNKS = 4
_MOST_LISTED = 5
_OWNERS = 0o700  # without them, the next load could not empty the folder
_FOLDER = "checkpoint"
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """The content of a checkpoint.

    Args:
        attempt: The attempt that wrote it.
        saved: When, in seconds since 1970.
        folders: The folders, by path.
        files: The files, by path: their mode, and the hashes of their chunks.
        links: The targets of symbolic links, by path.
        times: When files and folders were last modified, in nanoseconds since 1970, by path.
        modes: The modes of the folders, by path.
    """

    attempt: int
    saved: float
    folders: tuple[str, ...] = ()
    files: Mapping[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    times: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)

    @property
    def chunks(self) -> set[str]:
        """The hashes of all chunks."""
        return {chunk for _, chunks in self.files.values() for chunk in chunks}

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Manifest:
        """The manifest in a JSON document."""
        files = {path: (mode, tuple(chunks)) for path, (mode, chunks) in document["files"].items()}
        folders, links = tuple(document["folders"]), dict(document["links"])
        times, modes = dict(document.get("times") or {}), dict(document.get("modes") or {})  # older ones have neither
        return Manifest(document["attempt"], document["saved"], folders, files, links, times, modes)


class TaskCheckpoints:
    """Saves and loads the checkpoints of one task, in one of its attempts.

    Args:
        run_store: The run's records.
        step: The task's step.
        task: The task's id.
        attempt: The attempt.
        origins: Gives the runs that this one resumes, the last one first: their checkpoints are used where the task
            has none in its own run.
    """

    def __init__(
        self,
        run_store: RunStore,
        step: str,
        task: str,
        attempt: int,
        origins: Callable[[], Iterable[RunStore]] = tuple,
    ) -> None:
        self._run_store = run_store
        self._store = run_store.store
        self._step, self._task, self._attempt = step, task, attempt
        self._origins = origins
        self._prefix = run_store.task_key(step, task, f"{_FOLDER}/{attempt}-{secrets.token_hex(8)}/")
        self._uploaded: set[str] = set()
        self._has_saved = False
        self._left_out: list[str] = []

    def load(self, folder: Path) -> bool:
        """Replaces the content of a folder with the last checkpoint; empties it and returns False if there is none.

        One that is damaged is reported, and the one before it is taken.
        """
        _empty(folder)
        if self._load_from(self._run_store, folder):
            return True
        return any(self._load_from(run_store, folder) for run_store in self._origins())

    def save(self, folder: Path) -> None:
        """Makes the content of a folder the last checkpoint.

        Raises:
            OSError: A file can't be read, or changed meanwhile.
            StorageError: The store refuses.
        """
        manifest = self._upload(folder)
        self._store.put(f"{self._prefix}{_MANIFEST}", [dump(asdict(manifest))])
        stale = [f"{self._prefix}{chunk}" for chunk in self._uploaded - manifest.chunks]
        if not self._has_saved:  # from here on those of earlier attempts are not needed
            stale += [key for key in _keys(self._run_store, self._step, self._task) if not key.startswith(self._prefix)]
        self._uploaded, self._has_saved = manifest.chunks, True
        try:
            self._store.delete(stale)
        except (ConfigurationError, StorageError) as error:
            _say(f"the checkpoint is saved, but the one before it can't be deleted: {error.summary}")

    def _pool(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  few tasks have a checkpoint

        return ThreadPoolExecutor(min(_PARALLEL_CHUNKS, self._store.parallel_reads))

    def _upload(self, folder: Path) -> Manifest:
        folders, files, links, times, modes, others = [], {}, {}, {}, {}, []
        with self._pool() as pool:
            for path in _walk(folder):
                name = path.relative_to(folder).as_posix()
                if path.is_symlink():
                    links[name] = os.readlink(path)  # noqa: PTH115  as it was written
                elif path.is_dir():
                    folders.append(name)
                    times[name], modes[name] = path.stat().st_mtime_ns, path.stat().st_mode & 0o777
                elif path.is_file():
                    status = path.stat()
                    offsets = range(0, status.st_size, _CHUNK_BYTES)
                    chunks = tuple(pool.map(lambda offset, path=path: self._upload_chunk(path, offset), offsets))
                    files[name], times[name] = (status.st_mode & 0o777, chunks), status.st_mtime_ns
                    if (status.st_size, status.st_mtime_ns) != (path.stat().st_size, path.stat().st_mtime_ns):
                        raise OSError(f"{path} was changed while it was saved; the checkpoint before it is kept")
                else:
                    others.append(name)
        self._report(others)
        return Manifest(self._attempt, time.time(), tuple(folders), files, links, times, modes)

    def _report(self, others: list[str]) -> None:
        """Says what a checkpoint doesn't have, where that is news."""
        if others and others != self._left_out:
            listed = ", ".join(others[:_MOST_LISTED]) + (", …" if len(others) > _MOST_LISTED else "")
            _say(f"the checkpoint has no pipes, sockets and devices; left out: {listed}")
        self._left_out = others

    def _upload_chunk(self, path: Path, offset: int) -> str:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(_CHUNK_BYTES)
        chunk = hashlib.sha256(data).hexdigest()
        if data and chunk not in self._uploaded:
            self._store.put(f"{self._prefix}{chunk}", [data])
            self._uploaded.add(chunk)
        return chunk

    def _load_from(self, run_store: RunStore, folder: Path) -> bool:
        for prefix, manifest in self._manifests(run_store):
            try:
                self._download(prefix, manifest, folder)
            except (ObjectNotFoundError, _DamagedError) as error:
                _say(f"the checkpoint of attempt {manifest.attempt} can't be used: {error}")
                _empty(folder)
            else:
                return True
        return False

    def _manifests(self, run_store: RunStore) -> list[tuple[str, Manifest]]:
        """The checkpoints of the task in a run, the last one first, with the prefix of their chunks."""
        found = []
        for key in _keys(run_store, self._step, self._task):
            prefix, _, name = key.rpartition("/")
            if name == _MANIFEST:
                try:
                    data = bytes(get_written(self._store, key))
                except ObjectNotFoundError:  # its successor has just deleted it
                    continue
                found.append((f"{prefix}/", run_store.parsed(key, data, Manifest.from_document)))
        return sorted(found, key=lambda each: (each[1].attempt, each[1].saved), reverse=True)

    def _download(self, prefix: str, manifest: Manifest, folder: Path) -> None:
        for name in manifest.folders:
            _inside(folder, name).mkdir(parents=True, exist_ok=True)
        with self._pool() as pool:
            for name, (mode, chunks) in manifest.files.items():
                path = _inside(folder, name)
                path.touch()
                places = enumerate(chunks)
                list(pool.map(lambda place, path=path: self._download_chunk(prefix, place[1], path, place[0]), places))
                path.chmod(mode)
        for name, target in manifest.links.items():
            _inside(folder, name).symlink_to(target)
        for name, mode in manifest.modes.items():
            _inside(folder, name).chmod(mode | _OWNERS)
        for name in sorted(manifest.times, reverse=True):  # each folder after its content, which changes it
            os.utime(_inside(folder, name), ns=(manifest.times[name], manifest.times[name]))

    def _download_chunk(self, prefix: str, chunk: str, path: Path, number: int) -> None:
        data = get_written(self._store, f"{prefix}{chunk}")
        if hashlib.sha256(data).hexdigest() != chunk:
            raise _DamagedError(f"{prefix}{chunk} is damaged: its sha256 is another one.")
        with path.open("r+b") as file:
            file.seek(number * _CHUNK_BYTES)
            file.write(data)


def discard(run_store: RunStore, step: str, task: str) -> None:
    """Deletes the checkpoints of a task, which has a result now.

    A store that refuses this keeps them; the result counts.
    """
    _delete(run_store, _keys(run_store, step, task))


def discard_below(run_store: RunStore, step: str, path: tuple[int, ...]) -> None:
    """Deletes the checkpoints of all branches of a foreach: those of a step's tasks below a path of indices."""
    prefix = f"{run_store.prefix}/tasks/{step}/{''.join(f'{index}.' for index in path)}"
    keys = run_store.store.list_keys(prefix)
    _delete(run_store, (key for key in keys if key.removeprefix(prefix).split("/")[1] == _FOLDER))


def _delete(run_store: RunStore, keys: Iterable[str]) -> None:
    try:
        run_store.store.delete(list(keys))
    except K8sflowError as error:
        _say(f"the task's checkpoints can't be deleted: {error.summary}")


class _DamagedError(Exception):
    """A chunk is not what was saved."""


def _keys(run_store: RunStore, step: str, task: str) -> Iterator[str]:
    return run_store.store.list_keys(run_store.task_key(step, task, f"{_FOLDER}/"))


def _walk(folder: Path) -> Iterator[Path]:
    """Everything in a folder, each folder before its content; a link to a folder is not followed."""
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _inside(folder: Path, name: str) -> Path:
    """The path of an entry, which is inside of the folder."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise _DamagedError(f"its manifest has the path {name!r}.")
    return folder / name


def _empty(folder: Path) -> None:
    """Deletes the content of a folder, but not the folder, which may be a process's working directory."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _say(text: str) -> None:
    print(f"[k8sflow] {text}", file=sys.stderr)  # noqa: T201  a line of the task's own output
