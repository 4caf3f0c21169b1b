"""The static check of what stands above the steps, above the class, and beside the steps in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import FunctionType

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow import spec
from k8sflow.flow.checks.locate import assigned_at
from k8sflow.flow.decorators import kind as kinds
from k8sflow.flow.decorators import mutators, registry
from k8sflow.flow.decorators.kind import Decoration
from k8sflow.flow.decorators.step import is_step, of_step
from k8sflow.flow.graph import Graph, Mistake, Node, Place, class_place
from k8sflow.flow.problems import Fault, Located
from k8sflow.flow.spec import FlowSpec


def mistakes(flow: type[FlowSpec], graph: Graph) -> list[Mistake]:
    """What is wrong with a flow's parameters, configs, decorators and mutators."""
    broken = spec.faults(flow)
    # Where a config could not be made, what is made from it would be told for a second time.
    is_configured = not broken
    found = [*broken, *mutators.prepare(flow), *_beside_steps(flow, graph), *_above_helpers(flow)]
    for name in spec.steps(flow):
        node = graph.nodes.get(name)
        for decoration in of_step(flow, name):
            place = decoration.place if decoration.place[1] or node is None else (node.place.file, node.place.line)
            found += [Located(place, fault) for fault in _faults(decoration, is_configured=is_configured)]
            if decoration.name == "catch" and node is not None and not can_be_caught(node):
                found.append(Located(place, _cannot_be_caught(node)))
    here = class_place(flow)
    for decoration in kinds.of(flow):
        place = decoration.place if decoration.place[1] else (here.file, here.line)
        found += [Located(place, fault) for fault in _faults(decoration, is_configured=is_configured)]
    found += _late_parts(flow)
    told = [Mistake(Place(*located.place), located.fault.message, located.fault.advice) for located in found]
    return [*told, *_same_names(flow)]


def prevents_commands(flow: type[FlowSpec]) -> bool:
    """Whether a parameter or a config is so wrong that the command line can't be made."""
    return bool(spec.faults(flow) or _same_names(flow))


def _faults(decoration: Decoration, *, is_configured: bool) -> list[Fault]:
    if decoration.name == "step":
        return list(decoration.faults)
    try:
        kind = registry.kind_of(decoration)
    except FlowDefinitionError as error:
        return [Fault(error.summary, error.advice)]
    return kind.faults(decoration, is_configured=is_configured)


def _beside_steps(flow: type[FlowSpec], graph: Graph) -> Iterator[Located]:
    """Decorators and mutators on members of the class that are no steps, and weren't meant as steps."""
    for name, member in spec.members(flow):
        can_be_decorated = isinstance(member, (FunctionType, type, staticmethod, classmethod))
        if can_be_decorated and name not in graph.nodes and not is_step(member):
            for place, decorator in [*_decorations(member), *mutators.written_on(member)]:
                yield Located(place, Fault(f"@{decorator} stands on {name}, which is not a step.",
                                           f"Is @step missing on {name}?"))  # fmt: skip


def _above_helpers(flow: type[FlowSpec]) -> Iterator[Located]:
    """Decorators on functions and classes of the flow's module, where they would do nothing."""
    module = sys.modules.get(flow.__module__)
    for name, member in list(vars(module).items()) if module is not None else []:
        is_own = isinstance(member, (FunctionType, type)) and member.__module__ == flow.__module__
        if is_own and not is_step(member) and not (isinstance(member, type) and issubclass(member, FlowSpec)):
            for place, decorator in _decorations(member):
                yield Located(place, Fault(f"@{decorator} stands on {name}, which is not a step of a flow: there it "
                                           f"does nothing.", "Put it above the step that needs it."))  # fmt: skip


def _late_parts(flow: type[FlowSpec]) -> Iterator[Located]:
    """Lists and tables of the class that hold configs' values, which steps would see before they are known."""
    for name, value in spec.constants(flow).items():
        if kinds.is_delayed(value):
            place = assigned_at(flow, name)
            fault = Fault(
                f"{name} holds values of configs, which are known only when a run starts.",
                f'Write the whole of it as an expression: {name} = config_expr("[config.a, config.b]").',
            )
            yield Located((place.file, place.line), fault)


def _decorations(member: object) -> list[tuple[tuple[str, int], str]]:
    return [(decoration.place, decoration.name) for decoration in kinds.of(member)]


def _same_names(flow: type[FlowSpec]) -> list[Mistake]:
    """Parameters that would be one option."""
    names: dict[str, str] = {}
    found = []
    for attribute, parameter in spec.parameters(flow).items():
        if (other := names.setdefault(parameter.name, attribute)) != attribute:
            message = f"{flow.__name__} has two parameters with the name {parameter.name!r}: {other} and {attribute}."
            found.append(Mistake(Place(*parameter.place), message, "Give one of them another name."))
    return found


def _cannot_be_caught(node: Node) -> Fault:
    why = "is a switch" if node.condition is not None else "opens branches by its data"
    return Fault(
        f"@catch can't stand on step {node.name}, which {why}: where the run goes on is known only when the step has "
        f"not failed.",
        "Let a step before it do what may fail, under @catch.",
    )


def can_be_caught(node: Node) -> bool:
    """Whether the run can go on after the step has failed: its transition says nothing that only the step knows."""
    return not node.is_wide and node.condition is None


def added_to(node: Node, added: Sequence[Decoration]) -> tuple[Decoration, ...]:
    """What of ``--with`` a step can have; ``--with catch`` passes over the steps that can't be caught."""
    return tuple(decoration for decoration in added if decoration.name != "catch" or can_be_caught(node))
