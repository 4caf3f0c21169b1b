"""Calls a step's function, with what its decorators do around it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators.base import Around, Decoration
from k8sflow.flow.spec import FlowSpec
from k8sflow.task.safe_repr import safe_repr


@dataclass(frozen=True)
class _Layer:
    name: str
    around: Around
    attributes: Mapping[str, Any]


def call_step(
    step: str,
    function: Callable[..., None],
    flow: FlowSpec,
    arguments: Sequence[Any],
    decorations: Sequence[Decoration],
) -> bool:
    """Calls a step's function inside of its decorators, of which the topmost in the source is the outermost.

    Returns whether it ran to its own end: else a decorator has put something in its place, or dealt with its error.

    Args:
        step: The step's name, which need not be that of its function.
        function: The step.
        flow: Its ``self``.
        arguments: The join's inputs, if it is one.
        decorations: Its decorators, in the order in which they were applied.

    Raises:
        BaseException: What the step or a decorator raises.
    """
    layers = []
    for decoration in reversed(decorations):
        decorator = decoration.decorator
        if decorator.around is not None:
            layers.append((not decorator.outermost, _Layer(decorator.name, decorator.around, decoration.parsed())))
    ordered = [layer for _, layer in sorted(layers, key=lambda pair: pair[0])]
    return _call(step, function, flow, arguments, ordered)


def _call(
    step: str, function: Callable[..., None], flow: FlowSpec, arguments: Sequence[Any], layers: Sequence[_Layer]
) -> bool:
    if not layers:
        function(flow, *arguments)
        return True
    layer, *inner = layers
    inputs = arguments[0] if arguments else None
    generator = layer.around(step, flow, inputs, dict(layer.attributes))
    try:
        answer = next(generator)
    except StopIteration:
        raise FlowDefinitionError(f"@{layer.name} did not yield: the step runs where its decorator yields.") from None
    has_run = False
    try:
        match answer:
            case None:
                has_run = _call(step, function, flow, arguments, inner)
            case {} if not answer:
                pass
            case _ if callable(answer):
                answer(flow, *arguments)
            case _:
                raise FlowDefinitionError(  # noqa: TRY301  the decorator sees it like any error of the step
                    f"@{layer.name} yielded {safe_repr(answer)}, which is neither a function nor {{}}.",
                    advice="Yield nothing to run the step, {} to skip it, or a function to run in its place.",
                )
    except BaseException as error:  # noqa: BLE001  the decorator sees everything that ends the step
        _throw(generator, error, layer.name)
        return False
    _finish(generator, layer.name)
    return has_run


def _throw(generator: Generator[Any, None, None], error: BaseException, name: str) -> None:
    """Raises the step's error at the yield; a decorator that continues from there has handled it."""
    raised_at = error.__traceback__
    try:
        generator.throw(error)
    except StopIteration:
        return
    except RuntimeError as raised:
        # A StopIteration that leaves a generator becomes the cause of a RuntimeError (PEP 479).
        if not isinstance(error, StopIteration) or raised.__cause__ is not error:
            raise
    else:
        raise _yielded_twice(name)
    finally:
        generator.close()
    raise error.with_traceback(raised_at)


def _finish(generator: Generator[Any, None, None], name: str) -> None:
    try:
        next(generator)
    except StopIteration:
        return
    generator.close()
    raise _yielded_twice(name)


def _yielded_twice(name: str) -> FlowDefinitionError:
    return FlowDefinitionError(f"@{name} yielded twice: the step runs once, at the first yield.")
