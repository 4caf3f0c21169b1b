"""Results that ``@cache`` keeps and takes: the key of a task, and its commit in a run that takes the result."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from k8sflow.errors import AccessError, ArtifactError, PackageError, StorageError
from k8sflow.flow.graph import Graph
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.cache_index import CacheEntry, entries_of, has_blobs, put_entry, put_taken
from k8sflow.storage.cache_plan import CachePlan
from k8sflow.storage.encoding import type_name
from k8sflow.storage.file_state import hashed
from k8sflow.storage.layers import compose
from k8sflow.storage.records import Commit, RunRecord, to_bytes
from k8sflow.storage.run_store import MARKS, RunStore
from k8sflow.storage.tables import Tables
from k8sflow.task.inherited import Inherited, end_of_branch, inherited_by
from k8sflow.task.spec import TaskName, TaskSpec

# A larger value is not searched for classes of the user's.
_MOST_SEARCHED_BYTES = 1 << 20
_WITHOUT_CLASSES = frozenset({"builtins.str", "builtins.bytes", "builtins.bytearray", "builtins.int"})
# Modules whose objects lead to others by texts, as cloudpickle's do to the modules that a lambda uses.
_REACHING = frozenset({"cloudpickle", "dill", "importlib", "joblib", "pickle", "_pickle"})
_BY_TEXT = frozenset({("builtins", name) for name in ("__import__", "eval", "exec", "getattr")})
_COMMIT = "commit.json"


@dataclass
class Keys:
    """Makes the keys of tasks.

    Args:
        record: The run's record.
        run_store: The run's records.
        graph: The flow's graph.
    """

    record: RunRecord
    run_store: RunStore
    graph: Graph
    _modules: dict[str, frozenset[str] | None] = field(default_factory=dict)

    @property
    def _artifacts(self) -> ArtifactStore:
        return ArtifactStore(self.run_store.store, self.record.flow)

    def parts(self, plan: CachePlan, spec: TaskSpec, inherited: Inherited) -> dict[str, str]:
        """The hashes of which the key of a task is made, by what they are.

        Args:
            plan: What ``@cache`` does for its step.
            spec: The task.
            inherited: What it starts with.

        Raises:
            StorageError: The results of the tasks before it can't be read.
            ArtifactError: One of them has none.
        """
        found = dict(plan.parts)
        is_join = self.graph[spec.name.step].is_join
        known = {**inherited.table.refs(), **self.record.parameters}
        used = {
            name: ref for name, ref in known.items() if plan.may_read(name) or (is_join and name not in plan.ignore)
        }
        found |= {f"self.{name}": ref.blob for name, ref in used.items()}
        refs = [*used.values()]
        if inherited.stack:
            found["self.input"], items = self._item(inherited)
            refs += items
            if plan.may_read("index"):
                found["self.index"] = str(inherited.stack[-1].index)
            if plan.may_read("foreach_stack"):
                frames = [(f.index, f.width, f.chunk.blob, f.offset) for f in inherited.stack]
                found["self.foreach_stack()"] = hashed(frames)
                refs += [frame.chunk for frame in inherited.stack]
        if is_join:
            found["inputs"] = self._inputs(plan, spec, refs)
        if plan.of_task:
            found["current.task_id"] = spec.name.id
        return found | self._carried(refs, plan)

    def _carried(self, refs: Sequence[ArtifactRef], plan: CachePlan) -> dict[str, str]:
        """The parts for the code of objects among some values: that of the flow, and that of libraries.

        Raises:
            ArtifactError: They may use code of the flow that can't be compared with that of another run.
        """
        from k8sflow.task.libraries import installed, versions  # noqa: PLC0415  most values are plain, and it is slow

        found: dict[str, str] = {}
        modules = [self._modules_of(ref) for ref in refs]
        known = {name for each in modules if each is not None for name in each}
        if None in modules or not known.isdisjoint({*plan.own_modules, *_REACHING}):
            if plan.carried_refused:
                raise ArtifactError(f"an input may use any code of the flow, and {'; '.join(plan.carried_refused)}.")
            found["code that the inputs may use"] = plan.carried
        if not plan.is_here or plan.is_locked:  # this process may have other packages than the task
            return found
        if None in modules or not known.isdisjoint(_REACHING):
            found["packages that the inputs may use"] = hashed(installed())
        libraries = known - {*plan.own_modules}
        return found | {f"package {name}": hashed(each) for name, each in versions(libraries, sys.modules).items()}

    def _item(self, inherited: Inherited) -> tuple[str, list[ArtifactRef]]:
        """The hash of the innermost foreach's item, and the values in which it is, if it isn't plain."""
        frame = inherited.stack[-1]
        try:
            items = self._artifacts.load(frame.chunk, "foreach items", _refuse)
            return hashed(plain(items[frame.offset])), []
        except (ArtifactError, TypeError, ValueError, LookupError, RecursionError):
            return hashed([frame.chunk.blob, frame.offset]), [frame.chunk]

    def _inputs(self, plan: CachePlan, spec: TaskSpec, refs: list[ArtifactRef]) -> str:
        tables, found = Tables(self.run_store), []
        for name, commit in self._branches(spec):
            left = tables.table(str(name), commit).refs()
            used = {key: ref for key, ref in sorted(left.items()) if key not in plan.ignore}
            refs += used.values()
            frames = [(f.index, f.chunk.blob, f.offset) for f in commit.stack]
            found.append([name.step, frames, [[key, ref.blob] for key, ref in used.items()]])
        return hashed(found)

    def _branches(self, spec: TaskSpec) -> Iterator[tuple[TaskName, Commit]]:
        """The tasks that end the branches of a join, in the order in which the join sees them."""
        waiting = [
            (name, parent.until) for parent in spec.inputs for name in map(parent.__getitem__, range(len(parent)))
        ]

        def read(each: tuple[TaskName, str]) -> tuple[TaskName, Commit]:
            name, until = each
            commit = self._commit(name)
            return end_of_branch(self.graph, name, commit, until, self._commit) if until else (name, commit)

        parallel = self.run_store.store.parallel_reads
        if parallel == 1 or len(waiting) == 1:
            yield from map(read, waiting)
            return
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  it imports logging, and each task waits for logging's atexit handler

        with ThreadPoolExecutor(parallel) as pool:
            yield from pool.map(read, waiting)

    def _commit(self, name: TaskName) -> Commit:
        commit = self.run_store.read_commit(name.step, name.id)
        if commit is None:
            raise ArtifactError(f"the task {name} has no result in {self.run_store.store.url}.")
        return commit

    def _modules_of(self, ref: ArtifactRef) -> frozenset[str] | None:
        """The modules, by their first names, of the classes and functions in a value; None if it may have any."""
        if ref.blob not in self._modules:
            self._modules[ref.blob] = self._searched(ref)
        return self._modules[ref.blob]

    def _searched(self, ref: ArtifactRef) -> frozenset[str] | None:
        if ref.size > _MOST_SEARCHED_BYTES:
            return frozenset() if ref.type in _WITHOUT_CLASSES else None
        modules: set[str] = set()

        def find(module: str, name: str, _default: object) -> Any:
            first = module.partition(".")[0]
            # Of Python's own functions, some get names of code as texts.
            modules.add("importlib" if (first, name) in _BY_TEXT else first)
            return _Inert

        try:
            self._artifacts.load(ref, "an input", find)
        except (ArtifactError, RecursionError):
            return None
        return frozenset(modules)


class _Inert:
    """Stands for any class while a pickle is searched for the names of classes."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, *_: object, **__: object) -> _Inert:
        return self

    def __setstate__(self, _: object) -> None:
        pass

    def __setitem__(self, *_: object) -> None:
        pass

    append = extend = add = update = __call__


def _refuse(module: str, name: str, _default: object) -> Any:
    raise ArtifactError(f"{module}.{name} is not a plain value.")


def plain(value: Any) -> Any:
    """A value of Python's own types as lists and texts, the same for the same value in each process.

    Raises:
        TypeError: It has a part of another type, or an object twice, whose change is seen in both.
    """
    return _plain(value, set())


def _plain(value: Any, seen: set[int]) -> Any:
    kind = type(value)
    if kind in {type(None), bool, int, float, complex, str, bytes}:
        return [kind.__name__, repr(value)]
    if kind in {list, dict, set}:
        if id(value) in seen:
            raise TypeError(f"the same {type_name(value)} is there twice")
        seen.add(id(value))
    if kind in {list, tuple}:
        return [kind.__name__, *(_plain(each, seen) for each in value)]
    if kind is dict:
        return ["dict", *([_plain(key, seen), _plain(each, seen)] for key, each in value.items())]
    if kind in {set, frozenset}:
        return [kind.__name__, *sorted((_plain(each, seen) for each in value), key=repr)]
    raise TypeError(f"{type_name(value)} is not plain")


# ---------------------------------------------------------------------- results


@dataclass(frozen=True)
class Result:
    """The result of a task that has run.

    Args:
        inherited: What the task started with.
        commit: Its commit.
        left: All artifacts after it, by name.
    """

    inherited: Inherited
    commit: Commit
    left: Mapping[str, ArtifactRef]


def keep(keys: Keys, plan: CachePlan, spec: TaskSpec, result: Result) -> None:
    """Makes the result of a task usable for later runs.

    Args:
        keys: Makes the keys.
        plan: What ``@cache`` does for its step.
        spec: The task.
        result: Its result, which is committed.

    Raises:
        StorageError: The store can't be reached, or refuses.
        ArtifactError: The result of a task before it is missing, or the result has a value that isn't in the key.
    """
    before, left, commit = result.inherited.artifacts(), result.left, result.commit
    always = {name for name in plan.ignore if name in plan.sets}
    passed = sorted((set(plan.ignore) - always) & left.keys()) if result.inherited.is_join else []
    if passed:
        raise ArtifactError(f"the join passes {', '.join(passed)} on, which the key leaves out (ignore=).")
    parts = keys.parts(plan, spec, result.inherited)
    entry = CacheEntry(
        spec.run,
        spec.name.step,
        spec.name.id,
        parts=parts,
        steps=commit.steps,
        changed={name: ref for name, ref in left.items() if before.get(name) != ref or name in always},
        removed=tuple(sorted(before.keys() - left.keys())),
        foreach=commit.foreach,
        attempt=commit.attempt,
        started=commit.started,
        finished=commit.finished,
    )
    put_entry(keys.run_store.store, keys.record.flow, key_of(parts), entry)


def key_of(parts: Mapping[str, str]) -> str:
    """The key that is made of some parts."""
    return hashed(sorted(parts.items()))


@dataclass(frozen=True)
class Found:
    """A result of an earlier run that a task may take.

    Args:
        entry: The result.
        commit: The commit of the task that takes it.
    """

    entry: CacheEntry
    commit: Commit


def find(keys: Keys, plan: CachePlan, spec: TaskSpec) -> Found | None:
    """A result of an earlier run for a task that has not started; None if there is none.

    Raises:
        StorageError: The store can't be reached, or refuses.
    """
    flow, store = keys.record.flow, keys.run_store.store
    try:
        inherited = inherited_by(keys.graph, keys.run_store, spec)
        key = key_of(keys.parts(plan, spec, inherited))
    except ArtifactError:  # which the task itself reports
        return None
    for entry in entries_of(store, flow, spec.name.step, key):
        if _is_usable(keys, plan, spec, entry):
            return Found(entry, _commit_of(flow, entry, inherited))
    return None


def _is_usable(keys: Keys, plan: CachePlan, spec: TaskSpec, entry: CacheEntry) -> bool:
    is_young = plan.max_age is None or time.time() - entry.finished <= plan.max_age
    width = 0 if entry.foreach is None else entry.foreach.width
    can_follow = set(entry.steps) <= set(keys.graph[spec.name.step].next) and width <= keys.record.max_num_splits
    return (
        is_young
        and can_follow
        and entry.run != spec.run
        and keys.run_store.store.exists(_origin(keys, entry).task_key(entry.step, entry.task, _COMMIT))
        and has_blobs(keys.run_store.store, keys.record.flow, entry)
    )


def _origin(keys: Keys, entry: CacheEntry) -> RunStore:
    return RunStore(keys.run_store.store, keys.record.flow, entry.run)


def _commit_of(flow: str, entry: CacheEntry, inherited: Inherited) -> Commit:
    """The commit of a task that takes a result: what it inherits, with the changes of the origin."""
    refs = {name: ref for name, ref in inherited.artifacts().items() if name not in entry.removed}
    left = compose({**refs, **entry.changed}, inherited.table.layers)
    return Commit(
        attempt=entry.attempt,
        steps=entry.steps,
        artifacts=left.own,
        stack=inherited.stack,
        foreach=entry.foreach,
        started=entry.started,
        finished=entry.finished,
        origin=f"{flow}/{entry.run}",
        layers=left.layers,
        without=left.without,
        cached=f"{entry.step}/{entry.task}",
    )


def hold(keys: Keys, entries: Sequence[CacheEntry]) -> set[str]:
    """Keeps the blobs of some results for the run that takes them, and returns the runs whose results it may take.

    A gc that deletes one of these runs later sees the record that is written here. A gc that does so now may have read
    the records already, but has put a mark into the run before. No commit is written before that is known: a driver
    that dies leaves none whose blobs a gc deletes.

    Args:
        keys: Those of the run that takes the results.
        entries: The results.

    Raises:
        StorageError: The store can't be reached, or refuses.
    """
    blobs = {ref.blob: ref for entry in entries for ref in entry.blobs()}
    if blobs:
        put_taken(keys.run_store.store, keys.run_store.prefix, list(blobs.values()))
    return {entry.run for entry in {each.run: each for each in entries}.values() if _is_held(keys, entry)}


def _is_held(keys: Keys, entry: CacheEntry) -> bool:
    """True if no gc deletes the run of an entry now."""
    origin = _origin(keys, entry)
    marks = origin.store.list_keys(f"{origin.prefix}/{MARKS}")
    return next(iter(marks), None) is None and origin.store.exists(origin.task_key(entry.step, entry.task, _COMMIT))


def take(keys: Keys, spec: TaskSpec, found: Found) -> bool:
    """Commits a result, whose run is held, for a task; returns False if the task has one already.

    Raises:
        StorageError: The store can't be reached, or refuses.
    """
    data = to_bytes(found.commit.to_document())
    return keys.run_store.store.put_new(keys.run_store.task_key(spec.name.step, spec.name.id, _COMMIT), data)


# What can go wrong with the cache without any harm to the run.
HARMLESS = (StorageError, AccessError, ArtifactError, PackageError)
