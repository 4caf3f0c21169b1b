"""Random numbers: each chunk gets its own, and the same again after a seed."""

from __future__ import annotations

import importlib
import sys
from typing import Any

Seeds = dict[str, int]


def _loaded(name: str) -> Any:
    return sys.modules.get(name)


def draw_seeds() -> Seeds:
    """A number from each of the parent's generators, so that a seeded parent has reproducible workers.

    A module may be there but unfinished: another thread is just importing it, and nobody has used it yet.
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
    """Gives the chunk that starts there random numbers of its own."""
    for name, seed in seeds.items():
        module = importlib.import_module(name)
        if name == "random":
            module.seed(seed + start)
        elif name == "numpy.random":
            words = [seed >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96)]
            module.seed([*words, start & 0xFFFFFFFF])
        else:
            module.manual_seed(seed + start)
