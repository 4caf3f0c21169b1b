"""The files outside of a flow's folder, and hidden ones in it, that code names in its texts."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from k8sflow.storage.file_state import hashed

_MOST_CHARACTERS = 1000
# The time of a larger file's last change stands for its content.
_MOST_READ_BYTES = 100_000_000
# Libraries that read a file of this name, of which the code has nothing.
_READERS = {"dotenv": ".env", "decouple": ".env", "environs": ".env"}


class NamedFiles:
    """Finds files by the texts in code and in values.

    Args:
        folder: The folder of the flow, from which a relative name may start.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._found: dict[str, tuple[Path, ...]] = {}
        self._hashes: dict[Path, str] = {}

    def parts(self, texts: Iterable[str], modules: Iterable[str]) -> dict[str, str]:
        """The hashes of the contents of the files that exist, by their paths.

        Args:
            texts: The texts that may be paths.
            modules: The modules that code uses.
        """
        named = {*texts, *(_READERS[module] for module in modules if module in _READERS)}
        paths = {path for text in named for path in self._paths(text)}
        return {str(path): self._hash(path) for path in paths}

    def _paths(self, text: str) -> tuple[Path, ...]:
        if text not in self._found:
            self._found[text] = self._existing(text)
        return self._found[text]

    def _existing(self, text: str) -> tuple[Path, ...]:
        if not text or len(text) > _MOST_CHARACTERS or "\n" in text or "\0" in text:
            return ()
        candidates = {Path(os.path.expanduser(text)), self._folder / text}  # noqa: PTH111  Path's raises for unknown users
        return tuple({path.resolve() for path in candidates if self._is_outside(path)})

    def _is_outside(self, path: Path) -> bool:
        """True for a file that is neither in the code package, nor excluded from it by the user."""
        try:
            found = path.resolve()
            if found.is_relative_to(self._folder):
                is_hidden = any(part.startswith(".") for part in found.relative_to(self._folder).parts)
                return is_hidden and stat.S_ISREG(found.stat().st_mode)
            return stat.S_ISREG(found.stat().st_mode)
        except (OSError, ValueError, RuntimeError):
            return False

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            try:
                state = path.stat()
                is_large = state.st_size > _MOST_READ_BYTES
                digest = "" if is_large else hashlib.sha256(path.read_bytes()).hexdigest()
                self._hashes[path] = hashed([digest, *((state.st_size, state.st_mtime_ns) if is_large else ())])
            except OSError:
                self._hashes[path] = ""
        return self._hashes[path]
