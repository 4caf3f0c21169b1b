"""The loop of a worker process, forked or spawned: it processes chunks, each with its own random numbers."""

from __future__ import annotations

import importlib
import itertools
import math
import pickle
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from .channels import Channel, read_exactly
from .messages import COMMAND, DONE, PART, Outbox
from .queues import flush_queues
from .work import SLICE_SECONDS

_FLUSH_BYTES = 48 * 1024  # results are sent from this size on; less than a pipe's 64 KiB, so that sending doesn't block


@dataclass
class Job:
    """The work of a worker process, forked or spawned."""

    func: Callable[[Any], Any]
    items: Any  # the inherited items; None if items are sent
    sliced: bool
    seeds: Seeds
    report_index: Callable[[int], None]  # called with the index of each item before it is processed
    channel: Channel
    outbox: Outbox
    first: tuple[int, int] | None = None  # a forked worker starts with its first chunk


def serve(job: Job) -> NoReturn:
    """Processes chunks until the parent kills this process."""
    if job.first is not None:
        _process_chunk(job, job.items, *job.first)
    while True:
        start, stop, size = COMMAND.unpack(read_exactly(job.channel, COMMAND.size))
        items = _Sent(read_exactly(job.channel, size), start, stop) if size else job.items
        _process_chunk(job, items, start, stop)


def _process_chunk(job: Job, items: Any, start: int, stop: int) -> None:
    outbox = job.outbox
    reseed(job.seeds, start)
    started = time.perf_counter()
    deadline = started + SLICE_SECONDS if job.sliced else math.inf
    outbox.start = start
    for index in range(start, stop):
        job.report_index(index)
        try:
            outbox.add(job.func(items[index]))
        except BaseException as error:  # noqa: BLE001  SystemExit too: the caller gets it
            outbox.fail(error, index, items)
            return
        now = time.perf_counter()
        if now > deadline:
            break
        if outbox.size > _FLUSH_BYTES and index + 1 < stop:
            outbox.flush(PART, now - started)
    try:
        flush_queues()
    except RuntimeError as error:
        outbox.fail(error, index, items)
        return
    outbox.flush(DONE, time.perf_counter() - started)


class _Sent:
    """Items of an iterator, received through the pipe and unpickled one by one."""

    def __init__(self, payload: bytearray, start: int, stop: int) -> None:
        self._start = start
        count = stop - start
        offsets = [8 * count, *struct.unpack(f"={count}q", payload[: 8 * count])]
        self._offsets = list(itertools.accumulate(offsets))
        self._payload = memoryview(payload)

    def __getitem__(self, index: int) -> Any:
        position = index - self._start
        return pickle.loads(self._payload[self._offsets[position] : self._offsets[position + 1]])


Seeds = dict[str, int]


def _loaded(name: str) -> Any:
    return sys.modules.get(name)


def draw_seeds() -> Seeds:
    """A number from each of the parent's generators, so that a seeded parent has reproducible workers.

    A module may be unfinished while another thread imports it; then it hasn't been used yet.
    """
    seeds = {}
    python, numpy, torch = map(_loaded, ("random", "numpy.random", "torch"))
    if hasattr(python, "getrandbits"):
        seeds["random"] = python.getrandbits(128)
    if hasattr(numpy, "bytes"):
        seeds["numpy.random"] = int.from_bytes(numpy.bytes(16), "little")
    if hasattr(torch, "randint") and hasattr(torch, "manual_seed"):
        seeds["torch"] = int(torch.randint(2**62, (1,)).item())
    return seeds


def reseed(seeds: Seeds, start: int) -> None:
    """Seeds the generators for the chunk that starts at this index."""
    for name, seed in seeds.items():
        module = sys.modules.get(name) or importlib.import_module(name)
        if name == "random":
            module.seed(seed + start)
        elif name == "numpy.random":
            words = [seed >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)]
            module.seed([*words, start & 0xFFFFFFFF])
        else:
            module.manual_seed(seed + start)
