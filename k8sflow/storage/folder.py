"""An object store in a folder, for runs on one machine."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Literal

from k8sflow.errors import ObjectNotFoundError, StorageError
from k8sflow.outages import Report
from k8sflow.storage.objects import Buffer, ObjectInfo

_MAP_FROM_BYTES = 1 << 16
# Unfinished files have names with this prefix. A crash may leave some behind; readers skip them.
_UNFINISHED = ".tmp-"
_UNFINISHED_NAME = re.compile(r"\.tmp-[0-9a-f]{16}")
_TRIES = 100


class FolderStore:
    """Objects as files below a folder.

    A file is written under a temporary name and then renamed, or linked if it must not replace another one: link(2)
    fails if the name exists, on network file systems too.

    Nothing waits for the disk: fsync(2) would take longer than the rest of a small task. After a power cut, files of
    the last half minute may be missing, or empty if the name reached the disk before the content. So an empty file
    counts as missing, and may be written again; objects are never empty.

    Args:
        path: The folder; created when the first object is written.
    """

    parallel_reads = 1
    is_shared = False
    poll_seconds = 0.2

    def __init__(self, path: str) -> None:
        self.root = Path(path).absolute()

    @property
    def url(self) -> str:
        """The folder's absolute path."""
        return str(self.root)

    @property
    def folder(self) -> Path:
        """The folder."""
        return self.root

    def get(self, key: str) -> Buffer:
        """The object's bytes; large ones are mapped, and changes to them stay in this process."""
        path = self.root / key
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size >= _MAP_FROM_BYTES:
                    return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY))
                if data := file.read():
                    return data
                raise ObjectNotFoundError(f"there is no {key} in {self.root}: its file is empty.")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectNotFoundError(f"there is no {key} in {self.root}.") from None
        except OSError as error:
            raise _refused("read", path, error) from error

    def tail(self, key: str, start: int, most: int | None = None) -> bytes:
        """The file's bytes from an offset on."""
        path = self.root / key
        try:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(most)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return b""
        except OSError as error:
            raise _refused("read", path, error) from error

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Writes the parts to a new file and renames it."""
        with self._new_file(key) as (file, temporary, path):
            for part in parts:
                _write(file, part)
            file.close()
            temporary.replace(path)

    def put_new(self, key: str, data: bytes) -> bool:
        """Writes a new file and links it, unless the name is taken."""
        with self._new_file(key) as (file, temporary, path):
            _write(file, data)
            file.close()
            try:
                os.link(temporary, path)
            except FileExistsError:
                if path.stat().st_size:
                    return False
                temporary.replace(path)
            return True

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes files, and the folders below the root that are empty then."""
        for key in keys:
            path = self.root / key
            try:
                path.unlink(missing_ok=True)
            except NotADirectoryError:
                continue
            except OSError as error:
                raise _refused("deleted", path, error) from error
        for folder in {(self.root / key).parent for key in keys}:
            with contextlib.suppress(OSError):  # it has other files, or another process was faster
                while folder != self.root:
                    folder.rmdir()
                    folder = folder.parent  # noqa: PLW2901  upwards

    def exists(self, key: str, size: int | None = None) -> bool:
        """True if the file exists, and has the size, if one is given."""
        path = self.root / key
        try:
            found = path.stat()
            return stat.S_ISREG(found.st_mode) and found.st_size > 0 and size in {None, found.st_size}
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _refused("read", path, error) from error

    def age(self, key: str, size: int) -> float | None:
        """Seconds since the file was last modified; None if there is no file of this size."""
        path = self.root / key
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _refused("read", path, error) from error
        is_there = stat.S_ISREG(found.st_mode) and found.st_size == size > 0
        return time.time() - found.st_mtime if is_there else None

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """All files below a folder, in ascending order."""
        now, found = time.time(), []
        for path in self._walk(self.root / prefix):
            with contextlib.suppress(FileNotFoundError):  # it was replaced or deleted just now
                status = path.stat()
                found.append(ObjectInfo(path.relative_to(self.root).as_posix(), status.st_size, now - status.st_mtime))
        yield from sorted((each for each in found if each.size), key=lambda each: each.key)

    def list_keys(self, prefix: str) -> Iterator[str]:
        """All files below a folder, in ascending order."""
        found = (path for path in self._walk(self.root / prefix) if self._has_content(path))
        yield from sorted(path.relative_to(self.root).as_posix() for path in found)

    def list_folders(self, prefix: str) -> Iterator[str]:
        """The folders directly below a folder that have a finished file, in ascending order."""
        try:
            with os.scandir(self.root / prefix) as entries:
                found = sorted(entry.name for entry in entries if entry.is_dir())
            yield from (name for name in found if any(map(self._has_content, self._walk(self.root / prefix / name))))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _refused("read", self.root / prefix, error) from error

    def open_log(self, key: str) -> FolderLog:
        """A file that is appended to in place."""
        return FolderLog(self.root / key)

    def after_fork(self) -> FolderStore:
        """The store itself: it holds no connections."""
        return self

    def report_outages(self, report: Report) -> None:
        """Does nothing: a folder has no outages."""

    def limit_patience(self, seconds: float) -> None:
        """Does nothing: no call waits for a folder."""

    def close(self) -> None:
        """Does nothing: there are no connections."""

    @staticmethod
    def _has_content(path: Path) -> bool:
        try:
            return path.stat().st_size > 0
        except FileNotFoundError:  # it was replaced or deleted just now
            return False

    @staticmethod
    def _walk(folder: Path) -> Iterator[Path]:
        def refuse(error: OSError) -> None:
            # A folder that can't be read must not look like an empty one.
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise _refused("read", folder, error) from error

        for directory, _, names in os.walk(folder, onerror=refuse):
            yield from (Path(directory, name) for name in names if not name.startswith(_UNFINISHED))

    @contextlib.contextmanager
    def _new_file(self, key: str) -> Iterator[tuple[FileIO, Path, Path]]:
        path = self.root / key
        temporary = path.with_name(f"{_UNFINISHED}{secrets.token_hex(8)}")
        try:
            with _opened(temporary, "xb") as file:
                yield file, temporary, path
        except OSError as error:
            raise _refused("written", path, error) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


class FolderLog:
    """A log that is appended to; readers see each write at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None

    def write(self, data: bytes) -> None:
        """Appends bytes; the first write creates the file."""
        try:
            if self._file is None:
                self._file = _opened(self._path, "ab")
            _write(self._file, data)
        except OSError as error:
            raise _refused("written", self._path, error) from error

    def flush(self) -> None:
        """Does nothing: each write is visible at once."""

    @property
    def missing(self) -> int:
        """Always 0: a failed write raises."""
        return 0

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def unfinished_files(root: Path, below: str) -> list[str]:
    """The temporary files that killed processes left behind in a store: they are older than a day.

    Args:
        root: The folder of the store.
        below: The folder in it to search.

    Returns:
        Their paths below the root.
    """
    before = time.time() - 24 * 3600
    found = []
    for directory, _, names in os.walk(root / below):
        for path in (Path(directory, name) for name in names if _UNFINISHED_NAME.fullmatch(name)):
            with contextlib.suppress(FileNotFoundError):  # it was finished just now
                found += [path.relative_to(root).as_posix()] if path.stat().st_mtime < before else []
    return found


def _write(file: FileIO, data: Buffer) -> None:
    """Writes all of the data; write(2) takes less if the disk is nearly full, and 2 GiB at most."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[file.write(rest) :]


def _opened(path: Path, mode: Literal["ab", "xb"]) -> FileIO:
    """Opens a file, and creates its folder if needed; checking first would take as long as opening."""
    for _ in range(_TRIES):
        try:
            return path.open(mode, buffering=0)
        except FileNotFoundError:
            with contextlib.suppress(FileNotFoundError):  # as below, of a folder above it
                path.parent.mkdir(parents=True, exist_ok=True)
    return path.open(mode, buffering=0)  # each time, another process has deleted the folder, since it was empty


def _refused(verb: str, path: Path, error: OSError) -> StorageError:
    doing = "read" if verb == "read" else "write"
    advice = {
        errno.ENOSPC: "The disk is full: free some space, then start again. No half-written file remains.",
        errno.EDQUOT: "Your disk quota is used up: free some space, then start again.",
        errno.EACCES: f"Give this user permission to {doing} there, or set K8SFLOW_ROOT to another folder.",
        errno.ENOTDIR: "There is a file where a folder is needed: delete it, or set K8SFLOW_ROOT to another folder.",
        errno.EEXIST: "There is a broken link where a folder is needed: delete it, or set K8SFLOW_ROOT.",
        errno.EROFS: "The file system is read-only: set K8SFLOW_ROOT to another folder.",
    }
    return StorageError(f"{path} can't be {verb}: {error.strerror}.", advice=advice.get(error.errno or 0, ""))
