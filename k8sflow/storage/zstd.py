"""zstd, from wherever this Python has it.

Python has it from 3.14 on (``compression.zstd``), the package backports.zstd brings the same module to older versions,
and most Linux distributions have the library itself, since their package managers need it. The runtime that is copied
into the pods of other images is pure Python, so none of the three can be relied upon: compression is off by default.
Where it is on, a task without zstd fails before its step begins, and the error says what to install.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from k8sflow.errors import ArtifactError, ConfigurationError

# The fastest of the ordinary levels; higher ones take more time than they save.
_LEVEL = 1
# A package "compression" on an older Python is not Python's.
_MODULES = ("compression.zstd",) if sys.version_info >= (3, 14) else ("backports.zstd",)
_NAMES = ("compress", "ZstdDecompressor", "ZstdError")
_LIBRARIES = ("libzstd.so.1", "libzstd.1.dylib")
_WHY_MISSING = (
    "Python has it from 3.14 on; for others, neither the package backports.zstd nor the library libzstd.so.1 was found."
)


@dataclass(frozen=True)
class Zstd:
    """One implementation.

    Args:
        origin: The module or library.
        compress: Returns a frame with the given bytes.
        decompress_into: Fills a buffer with the content of a frame, and returns False if it is damaged, or its content
            has another length.
    """

    origin: str
    compress: Callable[[bytes], bytes]
    decompress_into: Callable[[bytes, memoryview | bytearray, int, int], bool]


@cache
def available() -> Zstd | None:
    """The first implementation that this process has; None without any."""
    return next(implementations(), None)


def needed() -> Zstd:
    """The implementation for reading.

    Raises:
        ArtifactError: This process has none.
    """
    if (found := available()) is None:
        raise ArtifactError(
            "it is compressed by zstd, for which this Python has no module.",
            cause=_WHY_MISSING,
            advice="Install it: pip install backports.zstd. For pods, add it to the image.",
        )
    return found


def check_installed() -> None:
    """Returns if this process can compress what a step leaves.

    Raises:
        ConfigurationError: It has no implementation, although the setting ``compression`` asks for it.
    """
    if available() is None:
        raise ConfigurationError(
            f"the setting compression is zstd, which this Python ({sys.version.split()[0]}) doesn't have.",
            cause=_WHY_MISSING,
            advice="Install it: pip install backports.zstd. For pods and jobs, add it to the image. Or set compression "
            "(K8SFLOW_COMPRESSION) to none.",
        )


def implementations() -> Iterator[Zstd]:
    """All implementations that this process has."""
    for name in _MODULES:
        try:
            module = importlib.import_module(name)
        except Exception:  # noqa: BLE001, S112  a module of the flow with the same name may raise anything
            continue
        if all(hasattr(module, each) for each in _NAMES):
            yield _of_module(name, module)
    try:
        import ctypes  # noqa: PLC0415  some builds of Python have none
    except ImportError:
        return
    for name in _LIBRARIES:
        try:
            yield _of_library(name, ctypes.CDLL(name))
        except (OSError, AttributeError):
            continue


def _of_module(name: str, module: Any) -> Zstd:
    def compress(data: bytes) -> bytes:
        frame: bytes = module.compress(data, _LEVEL)
        return frame

    def decompress_into(frame: bytes, target: memoryview | bytearray, start: int, length: int) -> bool:
        decompressor = module.ZstdDecompressor()
        try:
            content = decompressor.decompress(frame, length + 1)
        except module.ZstdError:
            return False
        if not decompressor.eof or decompressor.unused_data or len(content) != length:
            return False
        with memoryview(target) as view:
            view[start : start + length] = content
        return True

    return Zstd(name, compress, decompress_into)


def _of_library(name: str, library: Any) -> Zstd:
    """The library's simple API, whose functions are the same in every version 1."""
    import ctypes  # noqa: PLC0415  as above

    size = ctypes.c_size_t
    library.ZSTD_compressBound.argtypes, library.ZSTD_compressBound.restype = [size], size
    library.ZSTD_isError.argtypes, library.ZSTD_isError.restype = [size], ctypes.c_uint
    library.ZSTD_compress.argtypes = [ctypes.c_void_p, size, ctypes.c_char_p, size, ctypes.c_int]
    library.ZSTD_compress.restype = size
    library.ZSTD_decompress.argtypes = [ctypes.c_void_p, size, ctypes.c_char_p, size]
    library.ZSTD_decompress.restype = size

    def compress(data: bytes) -> bytes:
        target = ctypes.create_string_buffer(library.ZSTD_compressBound(len(data)))
        length = library.ZSTD_compress(target, len(target), data, len(data), _LEVEL)
        if library.ZSTD_isError(length):
            raise MemoryError(f"ZSTD_compress of {name} failed")
        return ctypes.string_at(target, length)

    def decompress_into(frame: bytes, target: memoryview | bytearray, start: int, length: int) -> bool:
        into = (ctypes.c_char * length).from_buffer(target, start)  # raises if it exceeds the target
        return bool(library.ZSTD_decompress(into, length, frame, len(frame)) == length)

    return Zstd(name, compress, decompress_into)
