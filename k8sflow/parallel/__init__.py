"""Map a function over items on every core: `parallel_map`, `parallel_imap`, `parallel_imap_unordered`.

    from k8sflow import parallel_map

    totals = parallel_map(lambda i: matrix[i : i + 1000].sum(), range(0, len(matrix), 1000))

The folder is self-contained: it needs only the standard library, and uses cloudpickle, threadpoolctl and numpy where
they are installed.

The modules, in the order in which they read best:

- `maps`: the public functions. `call`: their arguments, checked before anything starts. `limits`: the cores that may be
  used.
- `loop`, `work`: the parent hands out ranges of indices. A range is half of an even share of the remaining items, but a
  worker keeps it for 20 ms only and returns the rest: cheap items cost almost no messages, and expensive ones never
  queue behind each other.
- `forked`: on Linux one worker per core is forked after the data exists. The function and a sized iterable are
  inherited, so nothing is pickled and nothing copied. The parent then sleeps in one `poll` over pipes and pidfds.
  Whether a call succeeds or fails, it ends the same way: every worker gets SIGKILL and is reaped.
- `forked_worker`, `worker`: the workers' side. If the parent dies, the kernel kills them.
- `channels`, `messages`, `memory`: results are pickled into a pipe. Large buffers are not: the worker sends their
  addresses, the parent reads them from the worker's memory (`process_vm_readv`) into memory of its own, and the worker
  then continues. `pickling` is pickle, with cloudpickle as a fallback; `classes` sends inherited classes.
- `failures`: an exception reaches the caller with its type and a note; a dead worker is explained.
- `forking`, `signals`, `math_threads`, `native`: what is unsafe in a fork: locks, descriptors, output, signals, BLAS,
  OpenMP, threads of libraries. `executors`, `queues`: objects of the caller that need its threads. `deadlocks`: workers
  that wait for a thread of the caller.
- `child_processes`, `process_tree`: processes that a worker starts end with the call.
- `spawned`, `spawned_worker`: on macOS and Windows workers are new interpreters; the function and items are pickled.
  `threads`: for functions that release the GIL. `progress`: the bar.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .limits import available_cores

if TYPE_CHECKING:
    from .call import Backend
    from .failures import RemoteError, WorkerDied, WorkerOutOfMemory
    from .maps import parallel_imap, parallel_imap_unordered, parallel_map

__all__ = [
    "Backend",
    "RemoteError",
    "WorkerDied",
    "WorkerOutOfMemory",
    "available_cores",
    "parallel_imap",
    "parallel_imap_unordered",
    "parallel_map",
]

_MODULES = {
    "Backend": "call",
    "RemoteError": "failures",
    "WorkerDied": "failures",
    "WorkerOutOfMemory": "failures",
    "parallel_imap": "maps",
    "parallel_imap_unordered": "maps",
    "parallel_map": "maps",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `limits` is cheap to import for others."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = found
    return found
