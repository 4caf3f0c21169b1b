"""The running task behind ``self``: artifacts loaded when they are touched, inputs, and the transition."""

from __future__ import annotations

import sys
from collections.abc import Iterable, MappingView, Sized
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

from k8sflow.articles import described
from k8sflow.errors import ArtifactError, FlowDefinitionError, MissingArtifactError, RunError, StorageError
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.foreach import items_of
from k8sflow.flow.graph import Node
from k8sflow.flow.missing_artifact import explain
from k8sflow.flow.spec import CONTEXT, FlowSpec, NextCall
from k8sflow.storage.artifacts import ArtifactRef, ArtifactStore
from k8sflow.storage.encoding import encode
from k8sflow.storage.layers import Composition, compose
from k8sflow.storage.records import ForeachItems
from k8sflow.task.inherited import Inherited
from k8sflow.task.inside.merge import merge
from k8sflow.task.inside.transition import transition_of
from k8sflow.task.result import Transition
from k8sflow.task.spec import TaskName

# A chunk of foreach items is as large as one branch can afford to read for its one item.
_CHUNK_BYTES = 1 << 20
# One that is larger is an object of its own: the commit of each branch names it.
_INLINE_CHUNK_BYTES = 256


class Context:
    """The state of one execution of a task.

    Args:
        definition: The flow.
        name: The task.
        artifacts: Where values are saved.
        inherited: The artifacts and foreach branches that it starts with.
        run_values: The run's parameters and the class's constants, by name.
        max_num_splits: How many branches a foreach may open.
    """

    def __init__(
        self,
        definition: FlowDefinition,
        name: TaskName,
        artifacts: ArtifactStore,
        *,
        inherited: Inherited,
        run_values: dict[str, ArtifactRef],
        max_num_splits: int,
    ) -> None:
        self._definition = definition
        self._node: Node = definition.graph[name.step]
        self._artifacts = artifacts
        self._inherited = inherited.artifacts()
        self._before = inherited.table
        # Which tasks made what the task has been given, the oldest first.
        self._layers = list(inherited.table.layers)
        self._run_values = run_values
        self.stack = inherited.stack
        self._max_num_splits = min(max_num_splits, sys.maxsize - 1)
        self._set_by_init: dict[str, Any] = {}
        self._items: dict[int, Any] = {}
        self.transition: Transition | None = None
        self.foreach: ForeachItems | None = None
        # All artifacts after the step, by name.
        self.left: dict[str, ArtifactRef] = {}

    # ------------------------------------------------------------------ what the language asks for

    def load(self, name: str) -> Any:
        """The value of an artifact; AttributeError says which steps set it."""
        ref = self._run_values.get(name) or self._inherited.get(name)
        if ref is None:
            raise self._missing(name)
        return self._artifacts.load(ref, name)

    def forget(self, name: str) -> bool:
        """Drops an inherited artifact."""
        return self._inherited.pop(name, None) is not None

    def next(self, flow: FlowSpec, call: NextCall) -> None:
        """Records the transition, after a look at whether it is the one that the source promises."""
        self.transition = transition_of(self._node, flow, call)

    @property
    def index(self) -> int | None:
        return self.stack[-1].index if self.stack else None

    @property
    def input(self) -> Any:
        return self._item(len(self.stack) - 1) if self.stack else None

    def foreach_stack(self) -> list[tuple[int, int, Any]]:
        """Index, width and item of every foreach branch around the task."""
        return [(frame.index, frame.width, self._item(depth)) for depth, frame in enumerate(self.stack)]

    def merge_artifacts(self, flow: FlowSpec, inputs: Any, exclude: list[str], include: list[str]) -> None:
        """Takes over the references on which the inputs agree."""
        untouched = {name for name, value in vars(flow).items() if self._is_untouched(name, value)}
        names = vars(flow).keys() - {CONTEXT} - untouched
        merged = merge(
            self._artifacts, self._node.name, inputs, exclude=exclude, include=include, own=names, before=self._before
        )
        self._inherited.update(merged.refs)
        known = {layer.task for layer in self._layers}
        self._layers += [layer for layer in merged.layers if layer.task not in known]
        for name in merged.refs.keys() & untouched:
            del flow.__dict__[name]  # a branch may have set it since
        self.uncover(flow, merged.refs)

    def has_parameter(self, name: str) -> bool:
        return name in self._definition.parameters

    def fixed(self, name: str) -> str:
        """The kind of an attribute that no step can set, in words; empty for all others."""
        return self._definition.fixed(name)

    # ------------------------------------------------------------------ what the runner asks for

    def begin(self, flow: FlowSpec) -> None:
        """Gives a step's ``self`` what ``__init__`` set, unless an earlier step has set it since.

        A join has it as the split left it.
        """
        made = dict(self._definition.set_by_init)
        left = self._before.refs() if made and self._node.is_join else {}
        made |= {name: self._artifacts.load(left[name], name) for name in made.keys() & left.keys()}
        self._set_by_init = {name: value for name, value in made.items() if name not in self._inherited}
        flow.__dict__.update(self._set_by_init)
        self.uncover(flow, self._inherited)

    def uncover(self, flow: FlowSpec, names: Iterable[str]) -> None:
        """Loads at once what a member of the class would hide: an artifact in the place of a default of the class.

        What no step can set stays what it is, also where the code had an artifact of that name when the run began.
        """
        for name in names:
            members = [vars(base)[name] for base in type(flow).__mro__ if name in vars(base)]
            if members and _gives_way(members[0]) and not self.fixed(name):
                flow.__dict__[name] = self.load(name)

    def freeze(self, flow: FlowSpec) -> None:
        """Fixes the items of the foreach that the step opens, so that every branch gets what the step saw.

        Raises:
            FlowDefinitionError: The step has not called self.next(), or the value of its foreach has no items.
            RunError: It has more than the run allows.
        """
        if self.transition is None and self._node.next:
            raise FlowDefinitionError(
                f"step {self._node.name} ({self._node.location}) returned before it came to its self.next().",
                cause="That call says which step runs next.",
                advice="Let every way through the step end in its self.next(); a switch takes one of several steps.",
            )
        if self.transition is None or not self._node.is_wide:
            return
        attribute = self._node.foreach
        if attribute is None:
            items, attribute = list(range(self.transition.width or 0)), "num_parallel"
        else:
            items = self._frozen(flow, attribute)
        chunks: list[tuple[int, ArtifactRef]] = []
        _save_chunks(self._artifacts, attribute, items, 0, chunks)
        self.foreach = ForeachItems(len(items), tuple(chunks), self.transition.max_parallel)
        self.transition = replace(self.transition, width=len(items))

    def _frozen(self, flow: FlowSpec, attribute: str) -> list[Any]:
        value = getattr(flow, attribute)
        try:
            iterator = items_of(value)
        except TypeError as error:
            raise FlowDefinitionError(
                f"step {self._node.name} ({self._node.next_at}) opens a foreach over self.{attribute}, "
                f"which is {described(value)} and has no items.",
                advice=f"Set self.{attribute} to a list, or to anything else that can be iterated over.",
            ) from error
        items = list(islice(iterator, self._max_num_splits + 1))  # of an endless one no more than tells that
        if len(items) > self._max_num_splits:
            raise self._too_wide(attribute, len(value) if isinstance(value, Sized) else None)
        if iterator is value or isinstance(value, MappingView):
            # A generator gives its items only once, and a dict's view can't be kept as an artifact.
            setattr(flow, attribute, items)
        return items

    def _too_wide(self, attribute: str, width: int | None) -> RunError:
        """The error about a foreach over more items than the run allows, of which a generator's are not counted."""
        limit = self._max_num_splits
        count = f"more than {limit:,}" if width is None else f"{width:,}"
        enough = "the number that it needs" if width is None else str(width)
        return RunError(
            f"step {self._node.name} of {self._definition.name} ({self._node.next_at}) opens a foreach over {count} "
            f"items of self.{attribute}, and --max-num-splits allows {limit:,}.",
            cause="A foreach opens one branch, with a task of its own, for each item.",
            advice=f"Look whether self.{attribute} is what you meant, or let each branch do several items. "
            f"To let it be so wide, give --max-num-splits {enough} to run or resume.",
        )

    def persist(self, flow: FlowSpec) -> Composition:
        """Saves what the step set or touched, and returns what its commit says of all that a later step sees."""
        with self._artifacts.written_together():
            return self._persist(flow)

    def _persist(self, flow: FlowSpec) -> Composition:
        left_out = self._definition.run_values | {CONTEXT}
        saved = dict(self._inherited)
        for name, value in vars(flow).items():
            if name in left_out:
                continue
            try:
                saved[name] = self._artifacts.save(value, name, known=self._inherited.get(name))
            except ArtifactError:
                if not self._is_untouched(name, value):
                    raise  # else each task has one of its own, such as a lock or a connection
        self.left = saved
        return compose(saved, self._layers)

    def persist_what_can_be(self, flow: FlowSpec) -> tuple[Composition, dict[str, BaseException]]:
        """Saves what a failed step set or touched, as ``persist`` does, and returns also why some of it is left out."""
        left_out = self._definition.run_values | {CONTEXT}
        saved, errors = dict(self._inherited), dict[str, BaseException]()
        for name, value in list(vars(flow).items()):
            if name in left_out:
                continue
            try:
                saved[name] = self._artifacts.save(value, name, known=self._inherited.get(name))
            except StorageError:
                raise
            except BaseException as error:  # noqa: BLE001  a value's code may raise anything; the step has failed before
                saved.pop(name, None)
                if not self._is_untouched(name, value):
                    errors[name] = error
        return compose(saved, self._layers), errors

    def _is_untouched(self, name: str, value: object) -> bool:
        """True if an attribute is what ``__init__`` has set in this process."""
        return name in self._set_by_init and self._set_by_init[name] is value

    def _item(self, depth: int) -> Any:
        if depth not in self._items:
            frame = self.stack[depth]
            self._items[depth] = self._artifacts.load(frame.chunk, f"foreach item of {frame.step}")[frame.offset]
        return self._items[depth]

    def _missing(self, name: str) -> AttributeError:
        step = self._node.name
        what = f"self.{name} is not set in step {step}."
        return MissingArtifactError(what, explain=lambda: explain(self._definition, step, name))


def _gives_way(member: Any) -> bool:
    """True if an instance's attribute hides a member of the class; what a property caches, each task computes again."""
    return not hasattr(type(member), "__set__") and not isinstance(member, cached_property)


def _save_chunks(
    artifacts: ArtifactStore, name: str, items: list[Any], first: int, chunks: list[tuple[int, ArtifactRef]]
) -> None:
    """Saves the items as lists of at most about 1 MiB, or of one item: halves until they fit."""
    if not items:
        return
    if len(items) > 1 and _estimated_bytes(items, name) > _CHUNK_BYTES:
        middle = len(items) // 2
        _save_chunks(artifacts, name, items[:middle], first, chunks)
        _save_chunks(artifacts, name, items[middle:], first + middle, chunks)
    else:
        chunks.append((first, artifacts.save(items, name, inline_bytes=_INLINE_CHUNK_BYTES)))


def _estimated_bytes(items: list[Any], name: str) -> int:
    return encode(items, name).size
