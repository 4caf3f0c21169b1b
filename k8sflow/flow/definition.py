"""A compiled flow, as a value: everything that runs, shows or records a flow takes this."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from k8sflow.flow import spec
from k8sflow.flow.config_set import ConfigSet
from k8sflow.flow.decorators import registry
from k8sflow.flow.decorators.base import Decoration, Decorator
from k8sflow.flow.graph import Graph, Node
from k8sflow.flow.parameters import Parameter
from k8sflow.flow.problems import Problem
from k8sflow.flow.spec import FlowSpec


@dataclass(frozen=True)
class StepDefinition:
    """A step.

    Args:
        name: Its name, which need not be that of its function.
        function: The function that runs.
        decorations: Its decorators, in the order in which they were applied, after the flow's mutators.
    """

    name: str
    function: Callable[..., None]
    decorations: tuple[Decoration, ...] = ()


@dataclass(frozen=True)
class FlowDefinition:
    """A flow: its class, and what is declared in it after its mutators.

    Args:
        flow: The class, of which each task has an instance.
        configs: The values of its configs, by attribute.
        steps: Its steps by name, in the order of the source, those of base classes first.
        parameters: Its parameters by attribute.
        constants: Its plain values by attribute.
        decorations: The decorators of the class, in the order in which they were applied.
        graph: The order of the steps; empty until the flow is compiled.
        attributes: What ``__init__`` of the instance in the flow's file set before it called that of FlowSpec; None
            where there is no such instance.
        problems: What was found to be wrong so far; empty once the flow is compiled.
        is_compiled: Whether the mutators have been applied, and nothing is wrong.
    """

    flow: type[FlowSpec]
    configs: ConfigSet
    steps: Mapping[str, StepDefinition]
    parameters: Mapping[str, Parameter]
    constants: Mapping[str, Any]
    decorations: tuple[Decoration, ...]
    graph: Graph
    attributes: Mapping[str, Any] | None = field(default=None, repr=False)
    problems: tuple[Problem, ...] = ()
    is_compiled: bool = False

    @property
    def name(self) -> str:
        """The flow's name."""
        return self.flow.__name__

    @cached_property
    def run_values(self) -> frozenset[str]:
        """The attributes whose values are the same for all tasks of a run."""
        return frozenset({*self.constants, *self.parameters, *self.configs})

    @cached_property
    def set_by_init(self) -> dict[str, Any]:
        """The attributes that the flow's ``__init__`` sets before it calls FlowSpec's; steps have them too."""
        if self.flow.__init__ is FlowSpec.__init__:
            return {}
        found = _attributes_of_trial(self.flow) if self.attributes is None else self.attributes
        return {name: v for name, v in found.items() if not isinstance(getattr(self.flow, name, None), cached_property)}

    def fixed(self, name: str) -> str:
        """A description of an attribute that no step can set; empty for all others."""
        return spec.fixed(self.flow, name)

    def added(self, texts: Sequence[str]) -> tuple[Decoration, ...]:
        """The decorators that ``--with`` names.

        Args:
            texts: What is after each ``--with``.

        Raises:
            FlowDefinitionError: There is no such decorator, an option is wrong, or one has two values.
        """
        return registry.parse_all(texts, self.known_decorators)

    def decorations_of(self, step: str, added: Sequence[Decoration] = ()) -> tuple[Decoration, ...]:
        """The decorators of a step, and those of ``--with`` that it can have and doesn't have by itself."""
        own = self.steps[step].decorations
        new = (one for one in added if not any(one.decorator.is_same(found.decorator) for found in own))
        return (*own, *(one for one in new if can_have(self.graph[step], one)))

    @cached_property
    def known_decorators(self) -> dict[str, Decorator[Any]]:
        """The decorators that the flow uses or has in its module, by name; no name that two of them share."""
        module = sys.modules.get(self.flow.__module__)
        used: dict[str, list[Decorator[Any]]] = {}
        for found in (*(found for step in self.steps.values() for found in step.decorations), *self.decorations):
            others = used.setdefault(found.name, [])
            if not any(found.decorator.is_same(other) for other in others):
                others.append(found.decorator)
        named = registry.in_namespace(vars(module)) if module is not None else {}
        return {**{name: found[0] for name, found in used.items() if len(found) == 1}, **named}


def can_be_caught(node: Node) -> bool:
    """True if a run can continue after the step has failed: nothing that the step computes decides where."""
    return not node.is_wide and node.condition is None


def can_have(node: Node, decoration: Decoration) -> bool:
    """True if a step can have a decorator of ``--with``: ``--with catch`` skips the steps that can't be caught."""
    if decoration.name == "cache":
        return not node.is_parallel
    return decoration.name != "catch" or can_be_caught(node)


def _attributes_of_trial(flow: type[FlowSpec]) -> dict[str, Any]:
    """The attributes of an instance made for this; none where its ``__init__`` needs arguments."""
    try:
        inspect.signature(flow).bind()
    except (TypeError, ValueError):
        return {}
    made = flow.__new__(flow)
    token = spec.is_trial.set(True)
    try:
        made.__init__()  # type: ignore[misc]  # as type.__call__ does, but its attributes are wanted where it ends early
    except spec.InitReachedError:
        return dict(vars(made))
    finally:
        spec.is_trial.reset(token)
    return {}
