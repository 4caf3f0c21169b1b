"""Plans of flows that are imported from files."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from k8sflow.executors.fork_server.preload_plan import is_library
from k8sflow.flow.compile import compile_flow
from k8sflow.runtime.caching.plan import Planner
from k8sflow.runtime.commands.create import fixed_values
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.cache_plan import CachePlan
from k8sflow.storage.in_memory import MemoryStore
from k8sflow.storage.records import RunRecord


def plans(
    folder: Path, files: Mapping[str, str], variables: Mapping[str, str] | None = None, **changes: Any
) -> dict[str, CachePlan]:
    """Return the plans of the flow in flow.py, freshly imported."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    names = {path.name.partition(".")[0] for path in folder.iterdir()}
    before = dict(sys.modules)
    sys.dont_write_bytecode, kept = True, sys.dont_write_bytecode
    importlib.invalidate_caches()
    try:
        flow = importlib.import_module("flow").F
        definition = compile_flow(flow)
        values = fixed_values(definition, {}, ArtifactStore(MemoryStore(), "F"), {})
        record = RunRecord("F", "1", "flow.py", values, definition.graph, modules=tuple(sorted(names)))
        modules = {name: module for name, module in sys.modules.items() if _is_needed(module, folder)}
        return Planner(
            definition,
            replace(record, **changes),
            folder,
            variables={} if variables is None else variables,
            modules=modules,
            started=time.time() + 60,
        ).plans()
    finally:
        sys.dont_write_bytecode = kept
        for name in sys.modules.keys() - before.keys():
            if name.partition(".")[0] in names:
                del sys.modules[name]


def _is_needed(module: object, folder: Path) -> bool:
    """Report if a module is of the flow's folder, or of a library: those of other tests are none of the flow's."""
    file = getattr(module, "__file__", None) or ""
    return isinstance(module, ModuleType) and (file.startswith(str(folder)) or is_library(module))


def parts(
    folder: Path, files: Mapping[str, str], variables: Mapping[str, str] | None = None, step: str = "work"
) -> Mapping[str, str]:
    """Return the parts of the key of a step."""
    return plans(folder, files, variables)[step].parts
