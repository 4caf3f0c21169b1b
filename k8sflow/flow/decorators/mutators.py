"""User-defined mutators: decorators that change what stands above steps and flows, before anything runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from k8sflow.errors import FlowDefinitionError, ParameterError
from k8sflow.flow.configs import configs
from k8sflow.flow.decorators import kind as kinds
from k8sflow.flow.decorators import registry
from k8sflow.flow.decorators import step as decorators
from k8sflow.flow.decorators.kind import Decoration, DecoratorKind, bound, settled
from k8sflow.flow.problems import Fault, Located, Misplaced, caller, is_class_body, place_of, wrong_call

if TYPE_CHECKING:
    from k8sflow.flow.parameters import Parameter
    from k8sflow.flow.spec import FlowSpec

_MUTATORS = "__k8sflow_mutators__"
_PREPARED = "__k8sflow_prepared__"
# What mutators changed of a flow's class and its bases: the class, the name, and what was there.
_CHANGES = "__k8sflow_changes__"
_ABSENT = object()


class _Mutator:
    """What step and flow mutators have in common: a class that is written like a decorator."""

    _on_flow: ClassVar[bool]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if (as_both := getattr(cls, "k8sflow_applied", None)) is not None:
            return as_both(args, kwargs)
        if len(args) == 1 and not kwargs and is_decorated(args[0], caller()):
            return cls.k8sflow_made((), {})(args[0])
        return cls.k8sflow_made(args, kwargs)

    @classmethod
    def k8sflow_made(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The mutator with these options, on nothing yet."""
        made = object.__new__(cls)
        made._arguments = (args, kwargs)  # type: ignore[attr-defined]
        made._place = place_of(caller())  # type: ignore[attr-defined]
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes the options; a mutator of one's own defines ``init``."""

    def __call__(self, target: Any) -> Any:
        """Puts the mutator on a step or a flow. In a flow's class, what is wrong is told by the static check.

        Raises:
            FlowDefinitionError: It stands on something else, where there will be no static check.
        """
        if not (is_class_body(caller()) or hasattr(target, "_k8sflow_task")):
            for fault in self._misplaced(target):
                raise Located(self._place, fault).error()  # type: ignore[attr-defined]
        try:
            setattr(target, _MUTATORS, (*getattr(target, _MUTATORS, ()), self))
        except (AttributeError, TypeError):
            return Misplaced(Located(self._place, self._misplaced(target)[0]))  # type: ignore[attr-defined]
        return target

    def _misplaced(self, target: Any) -> list[Fault]:
        """What is wrong with where it stands."""
        if isinstance(target, type) is self._on_flow and callable(target):
            return []
        what = "a flow's class" if self._on_flow else "a step's def"
        name = getattr(target, "__name__", f"a {type(target).__name__}")
        return [Fault(f"@{type(self).__name__} stands on {name}.", f"It goes above {what}.")]

    def init(self, *args: Any, **kwargs: Any) -> None:
        """Takes the options, when the configs are known."""

    def _settle(self, flow: type[FlowSpec]) -> None:
        args, kwargs = settled(bound(self._arguments, flow))  # type: ignore[attr-defined]
        if fault := wrong_call(f"@{type(self).__name__}", self.init, args, kwargs):
            raise FlowDefinitionError(fault.message, advice=fault.advice)
        self.init(*args, **kwargs)


def is_decorated(target: object, frame: FrameType) -> bool:
    """Whether a decorator's only argument is what it stands on, ``@mutator`` without parentheses, and no option."""
    if isinstance(target, type) or decorators.is_step(target):
        return True
    inside = frame.f_locals.get("__qualname__") if is_class_body(frame) else None
    name = getattr(target, "__name__", None)
    return inside is not None and getattr(target, "__qualname__", None) == f"{inside}.{name}"


class StepMutator(_Mutator):
    """Base of decorators that change the decorators of their step, before anything runs."""

    _on_flow = False

    def pre_mutate(self, mutable_step: MutableStep) -> None:
        """Called before any mutator's ``mutate``."""

    def mutate(self, mutable_step: MutableStep) -> None:
        """Changes the step."""


class FlowMutator(_Mutator):
    """Base of decorators that change the steps' decorators and the parameters of their flow, before anything runs."""

    _on_flow = True

    def pre_mutate(self, mutable_flow: MutableFlow) -> None:
        """Called before any mutator's ``mutate``; here parameters may be added and removed."""

    def mutate(self, mutable_flow: MutableFlow) -> None:
        """Changes the flow."""


class _Decorated:
    """A list of decorators that can be changed."""

    IGNORE, ERROR, OVERRIDE = 1, 2, 3

    def __init__(self, where: str) -> None:
        self._where = where

    def _read(self) -> tuple[Decoration, ...]:
        raise NotImplementedError

    def _write(self, decorations: tuple[Decoration, ...]) -> None:
        raise NotImplementedError

    @property
    def _near(self) -> Mapping[str, Any]:
        """The names of the flow's module, where its own decorators are."""
        raise NotImplementedError

    @property
    def decorator_specs(self) -> Iterator[tuple[str, str, list[Any], dict[str, Any]]]:
        """Each decorator: its name, its name again, no positional options, and a copy of its options."""
        for found in self._read():
            yield found.name, found.name, [], settled(dict(found.options))

    def add_decorator(
        self,
        deco_type: str | DecoratorKind | type,
        deco_args: Sequence[Any] | None = None,
        deco_kwargs: Mapping[str, Any] | None = None,
        duplicates: int = IGNORE,
    ) -> bool:
        """Adds a decorator; whether it was added.

        Args:
            deco_type: The decorator, or what stands after ``--with``.
            deco_args: None: decorators take their options by name.
            deco_kwargs: Its options.
            duplicates: What to do where there is one already: IGNORE, ERROR or OVERRIDE.

        Raises:
            FlowDefinitionError: It is unknown, an option is wrong, or there is one already.
        """
        if deco_args:
            raise FlowDefinitionError(f"add_decorator on {self._where}: options go by name, in deco_kwargs.")
        options: Mapping[str, Any] = {}
        if isinstance(deco_type, str):
            parsed = registry.parse(deco_type, self._near)
            kind, options = registry.find(parsed.name, self._near), parsed.options
        else:
            kind = registry.use(registry.checked(deco_type, "what add_decorator was given"))
        added = Decoration(kind.name, {**options, **(deco_kwargs or {})}, (self._where, 0), (), kind)
        kind.read(added)
        before = self._read()
        if any(found.name == kind.name for found in before):
            if duplicates == self.ERROR:
                raise FlowDefinitionError(f"add_decorator: {self._where} has @{kind.name} already.")
            if duplicates == self.IGNORE:
                return False
        self._write((*(found for found in before if found.name != kind.name), added))
        return True

    def remove_decorator(
        self,
        deco_type: str | DecoratorKind | type,
        deco_args: Sequence[Any] | None = None,  # noqa: ARG002  as in add_decorator
        deco_kwargs: Mapping[str, Any] | None = None,
    ) -> bool:
        """Removes a decorator, with deco_kwargs only if it has these options; whether there was one."""
        is_named = isinstance(deco_type, str)
        name = deco_type if is_named else registry.checked(deco_type, "what remove_decorator was given").name
        before = self._read()
        kept = tuple(
            found for found in before
            if found.name != name or (deco_kwargs is not None and dict(found.options) != dict(deco_kwargs))
        )  # fmt: skip
        self._write(kept)
        return len(kept) < len(before)


class MutableStep(_Decorated):
    """A step, for a mutator.

    Args:
        flow: Its flow.
        name: Its name.
    """

    def __init__(self, flow: MutableFlow, name: str) -> None:
        super().__init__(f"step {name}")
        self.flow = flow
        self.name = name

    def _read(self) -> tuple[Decoration, ...]:
        return decorators.of_step(self.flow._flow, self.name)  # noqa: SLF001  the two are one module's business

    @property
    def _near(self) -> Mapping[str, Any]:
        return self.flow._near  # noqa: SLF001  as above

    def _write(self, decorations: tuple[Decoration, ...]) -> None:
        decorators.replace_of_step(self.flow._flow, self.name, decorations)  # noqa: SLF001  as above


class MutableFlow(_Decorated):
    """A flow, for a mutator; its steps, configs and parameters are attributes too."""

    def __init__(self, flow: type[FlowSpec]) -> None:
        super().__init__(flow.__name__)
        self._flow = flow

    def _read(self) -> tuple[Decoration, ...]:
        return kinds.of(self._flow)

    @property
    def _near(self) -> Mapping[str, Any]:
        module = sys.modules.get(self._flow.__module__)
        return vars(module) if module is not None else {}

    def _write(self, decorations: tuple[Decoration, ...]) -> None:
        kinds.replace_of(self._flow, decorations)

    @property
    def steps(self) -> Iterator[tuple[str, MutableStep]]:
        """The steps by name."""
        from k8sflow.flow.spec import steps  # noqa: PLC0415  which needs this module

        yield from ((name, MutableStep(self, name)) for name in steps(self._flow))

    @property
    def configs(self) -> Iterator[tuple[str, Any]]:
        """The configs' values by attribute."""
        yield from ((name, config.k8sflow_value()) for name, config in configs(self._flow).items())

    @property
    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters by attribute."""
        from k8sflow.flow.spec import parameters  # noqa: PLC0415  as above

        yield from parameters(self._flow).items()

    def add_parameter(self, name: str, value: Parameter, overwrite: bool = False) -> None:  # noqa: FBT001, FBT002
        """Adds a parameter under an attribute.

        Raises:
            FlowDefinitionError: The attribute is taken.
        """
        if hasattr(self._flow, name) and not overwrite:
            raise FlowDefinitionError(f"add_parameter: {self._where} has {name!r} already.")
        type.__setattr__(self._flow, name, value)
        value.__set_name__(self._flow, name)  # last: of a parameter that another flow has too, it sets a copy

    def remove_parameter(self, name: str) -> bool:
        """Removes a parameter; whether there was one."""
        if name not in dict(self.parameters):
            return False
        owner = next(base for base in self._flow.__mro__ if name in vars(base))
        type.__delattr__(owner, name)
        return True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        for found in (self.steps, self.configs, self.parameters):
            for key, value in found:
                if key == name:
                    return value
        raise AttributeError(f"{self._where} has no step, config or parameter {name!r}.")


def prepare(flow: type[FlowSpec]) -> tuple[Located, ...]:
    """Applies a flow's mutators, once in a process: those of the flow first, then those of its steps.

    Returns what they ask for that can't be, which the static check tells.
    """
    if _PREPARED not in flow.__dict__:
        faults: list[Located] = []
        type.__setattr__(flow, _PREPARED, ())
        configs(flow)  # what it sets on the class is no change of a mutator
        before = [(base, dict(vars(base))) for base in flow.__mro__ if base is not object]
        _apply(flow, _mutations(flow, faults), faults)
        type.__setattr__(flow, _CHANGES, [change for base, members in before for change in _changes(base, members)])
        type.__setattr__(flow, _PREPARED, tuple(faults))
    found: tuple[Located, ...] = flow.__dict__[_PREPARED]
    return found


def _changes(base: type, before: Mapping[str, Any]) -> Iterator[tuple[type, str, Any]]:
    after = vars(base)
    for name in {*before, *after}:
        if before.get(name, _ABSENT) is not after.get(name, _ABSENT):
            yield base, name, before.get(name, _ABSENT)


def undo(flow: type[FlowSpec]) -> None:
    """Takes back what a flow's mutators did, so that they are applied anew: their configs may have changed."""
    if _PREPARED not in flow.__dict__:
        return
    for base, name, value in flow.__dict__[_CHANGES]:
        if value is not _ABSENT:
            type.__setattr__(base, name, value)
        elif name in vars(base):
            type.__delattr__(base, name)
    type.__delattr__(flow, _PREPARED)


def written_on(member: object) -> list[tuple[tuple[str, int], str]]:
    """The mutators that stand on a member of a class: where, and their names."""
    return [(mutator._place, type(mutator).__name__) for mutator in getattr(member, _MUTATORS, ())]  # noqa: SLF001


_Mutation = tuple[Any, Any]


def _mutations(flow: type[FlowSpec], faults: list[Located]) -> list[_Mutation]:
    """The mutators that stand where they can, each with what it changes."""
    mutable = MutableFlow(flow)
    placed: list[tuple[Any, Any, Any]]
    placed = [(mutator, flow, mutable) for mutator in getattr(flow, _MUTATORS, ())]
    for name, step in list(mutable.steps):
        placed += [(mutator, getattr(flow, name), step) for mutator in getattr(getattr(flow, name), _MUTATORS, ())]
    for mutator, target, _ in placed:
        faults += [Located(mutator._place, fault) for fault in mutator._misplaced(target)]  # noqa: SLF001  as below
    return [(mutator, mutable) for mutator, target, mutable in placed if not mutator._misplaced(target)]  # noqa: SLF001


def _apply(flow: type[FlowSpec], mutations: Sequence[_Mutation], faults: list[Located]) -> None:
    """Applies mutators; one that asks for what can't be is left out from there on."""
    phases: list[Callable[[Any, Any], None]] = [
        lambda mutator, _: mutator._settle(flow),  # noqa: SLF001  the two are one module's business
        lambda mutator, target: mutator.pre_mutate(target),
        lambda mutator, target: mutator.mutate(target),
    ]
    broken = set()
    for phase in phases:
        for mutator, target in mutations:
            try:
                if id(mutator) not in broken:
                    phase(mutator, target)
            except (FlowDefinitionError, ParameterError) as error:
                broken.add(id(mutator))
                faults.append(Located(mutator._place, Fault(error.summary, error.advice)))  # noqa: SLF001  as above
            except Exception as error:  # noqa: BLE001  the mutator is the user's code
                broken.add(id(mutator))
                faults.append(Located(mutator._place, _raised(mutator, error)))  # noqa: SLF001  as above


def _raised(mutator: object, error: Exception) -> Fault:
    """What a mutator's own code has raised, and where."""
    import traceback  # noqa: PLC0415  needed for a mistake alone

    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    where = f"It was raised in {frames[-1].name}(), {frames[-1].filename}:{frames[-1].lineno}." if frames else ""
    told = f"{type(error).__name__}: {error}".removesuffix(": ")
    return Fault(f"the mutator {type(mutator).__name__} failed: {told}.", where)
