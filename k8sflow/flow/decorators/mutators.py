"""User-defined mutators: decorators that change the decorators of steps and flows before anything runs."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from k8sflow.articles import described
from k8sflow.errors import FlowDefinitionError, ParameterError
from k8sflow.flow.decorators import registry
from k8sflow.flow.decorators.base import Decoration, Decorator
from k8sflow.flow.decorators.step import is_step
from k8sflow.flow.delayed import settled
from k8sflow.flow.parameters import Parameter
from k8sflow.flow.problems import Location, Misplaced, Problem, caller, is_class_body, location_of, wrong_call

if TYPE_CHECKING:
    from k8sflow.flow.config_set import ConfigSet
    from k8sflow.flow.definition import FlowDefinition

_MUTATORS = "__k8sflow_mutators__"


class _Mutator:
    """Base of step and flow mutators: a class that is written like a decorator."""

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
        made._location = location_of(caller())  # type: ignore[attr-defined]
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes the options; a subclass defines ``init``."""

    def __call__(self, target: Any) -> Any:
        """Records the mutator on a step or a flow. In a flow's class, the check reports what is wrong.

        Raises:
            FlowDefinitionError: It is on something else, where there will be no check.
        """
        if not (is_class_body(caller()) or hasattr(target, "_k8sflow_task")):
            for problem in self._misplaced(target):
                raise problem.at(self._location).error()  # type: ignore[attr-defined]
        try:
            setattr(target, _MUTATORS, (*getattr(target, _MUTATORS, ()), self))
        except (AttributeError, TypeError):
            return Misplaced(self._misplaced(target)[0].at(self._location))  # type: ignore[attr-defined]
        return target

    def _misplaced(self, target: Any) -> list[Problem]:
        """The problems of its target."""
        if isinstance(target, type) is self._on_flow and callable(target):
            return []
        what = "a flow's class" if self._on_flow else "a step's def"
        name = getattr(target, "__name__", described(target))
        return [Problem(f"@{type(self).__name__} is on {name}.", f"It goes above {what}.")]

    def init(self, *args: Any, **kwargs: Any) -> None:
        """Takes the options, when the configs are known."""

    def _settle(self, configs: ConfigSet) -> None:
        args, kwargs = settled(self._arguments, configs)  # type: ignore[attr-defined]
        if problem := wrong_call(f"@{type(self).__name__}", self.init, args, kwargs):
            raise FlowDefinitionError(problem.message, advice=problem.advice)
        self.init(*args, **kwargs)


def is_decorated(target: object, frame: FrameType) -> bool:
    """True if a decorator's only argument is what it decorates (``@mutator`` without parentheses), not an option."""
    if isinstance(target, type) or is_step(target):
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


_Mutation = tuple[Any, Any]


def _is_class_of_mutators(found: object) -> bool:
    """True if it adds decorators, and is none that runs with its step."""
    return isinstance(found, type) and issubclass(found, _Mutator) and not hasattr(found, "k8sflow_applied")


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
    def _configs(self) -> ConfigSet:
        raise NotImplementedError

    @property
    def _known(self) -> Mapping[str, Decorator[Any]]:
        """The flow's own decorators by name."""
        raise NotImplementedError

    @property
    def decorator_specs(self) -> Iterator[tuple[str, str, list[Any], dict[str, Any]]]:
        """Each decorator: its name, its name again, no positional options, and a copy of its options."""
        for found in self._read():
            yield found.name, found.name, [], settled(dict(found.options), self._configs)

    def _attach(self, mutator: Any) -> None:
        """Adds a mutator, which is applied after those that are there."""
        raise NotImplementedError

    def add_decorator(
        self,
        deco_type: str | Decorator[Any] | type,
        deco_args: Sequence[Any] | None = None,
        deco_kwargs: Mapping[str, Any] | None = None,
        duplicates: int = IGNORE,
    ) -> Any:
        """Adds a decorator, and returns it, with its ``name``; None if it wasn't added.

        Args:
            deco_type: The decorator, or what would be after ``--with``; in ``pre_mutate`` also a class of mutators.
            deco_args: None: decorators take their options by name. A mutator's options.
            deco_kwargs: Its options.
            duplicates: What to do if there is one already: IGNORE, ERROR or OVERRIDE. A mutator is always added.

        Raises:
            FlowDefinitionError: It is unknown, an option is wrong, or there is one already.
        """
        if _is_class_of_mutators(deco_type):
            mutator = deco_type.k8sflow_made(tuple(deco_args or ()), dict(deco_kwargs or {}))  # type: ignore[union-attr]
            self._attach(mutator)
            return mutator
        if deco_args:
            raise FlowDefinitionError(f"add_decorator on {self._where}: options go by name, in deco_kwargs.")
        options: Mapping[str, Any] = {}
        if isinstance(deco_type, str):
            parsed = registry.parse(deco_type, self._known)
            decorator, options = parsed.decorator, parsed.options
        else:
            decorator = registry.checked(deco_type, "the argument of add_decorator")
        added = Decoration(decorator, {**options, **(deco_kwargs or {})}, Location(self._where))
        for problem in decorator.problems(added, self._configs):
            raise problem.at(added.location).error()
        before = self._read()
        if any(found.decorator.is_same(decorator) for found in before):
            if duplicates == self.ERROR:
                raise FlowDefinitionError(f"add_decorator: {self._where} has @{decorator.name} already.")
            if duplicates == self.IGNORE:
                return None
        self._write((*(found for found in before if not found.decorator.is_same(decorator)), added))
        return added

    def _meaning(self, deco_type: str | Decorator[Any] | type) -> Callable[[Decoration], bool]:
        """Returns whether a decoration is of a decorator, or of one with a name."""
        if isinstance(deco_type, str) and "." not in deco_type:
            return lambda found: found.name == deco_type
        if isinstance(deco_type, str):
            decorator = registry.find(deco_type, self._known)
        else:
            decorator = registry.checked(deco_type, "the argument of remove_decorator")
        return lambda found: found.decorator.is_same(decorator)

    def remove_decorator(
        self,
        deco_type: str | Decorator[Any] | type,
        deco_args: Sequence[Any] | None = None,  # noqa: ARG002  as in add_decorator
        deco_kwargs: Mapping[str, Any] | None = None,
    ) -> bool:
        """Removes a decorator, with deco_kwargs only if it has these options; returns whether there was one."""
        before = self._read()
        is_meant = self._meaning(deco_type)
        kept = tuple(
            found
            for found in before
            if not is_meant(found) or (deco_kwargs is not None and dict(found.options) != dict(deco_kwargs))
        )
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
        return self.flow._definition.steps[self.name].decorations  # noqa: SLF001  the two are one module's business

    def _write(self, decorations: tuple[Decoration, ...]) -> None:
        steps = self.flow._definition.steps  # noqa: SLF001  as above
        changed = {**steps, self.name: replace(steps[self.name], decorations=decorations)}
        self.flow._definition = replace(self.flow._definition, steps=changed)  # noqa: SLF001  as above

    def _attach(self, mutator: Any) -> None:
        self.flow._attach_to(self, mutator)  # noqa: SLF001  as above

    @property
    def _configs(self) -> ConfigSet:
        return self.flow._configs  # noqa: SLF001  as above

    @property
    def _known(self) -> Mapping[str, Decorator[Any]]:
        return self.flow._known  # noqa: SLF001  as above


class MutableFlow(_Decorated):
    """A flow, for a mutator; its steps, configs and parameters are attributes too."""

    def __init__(self, definition: FlowDefinition) -> None:
        super().__init__(definition.name)
        self._definition = definition
        self._mutations: list[_Mutation] | None = None  # while more may be added

    def _read(self) -> tuple[Decoration, ...]:
        return self._definition.decorations

    def _write(self, decorations: tuple[Decoration, ...]) -> None:
        self._definition = replace(self._definition, decorations=decorations)

    def _attach(self, mutator: Any) -> None:
        self._attach_to(self, mutator)

    def _attach_to(self, target: _Decorated, mutator: Any) -> None:
        where = f"add_decorator on {target._where}: @{type(mutator).__name__}"  # noqa: SLF001  as above
        if isinstance(mutator, FlowMutator) is not (target is self):
            raise FlowDefinitionError(f"{where} is a mutator of {'steps' if target is self else 'flows'}.")
        if self._mutations is None:
            raise FlowDefinitionError(
                f"{where} is a mutator, and mutate() can't add more of them.", advice="Add it in pre_mutate()."
            )
        mutator._settle(self._configs)  # noqa: SLF001  as above
        self._mutations.append((mutator, target))

    @property
    def _configs(self) -> ConfigSet:
        return self._definition.configs

    @property
    def _known(self) -> Mapping[str, Decorator[Any]]:
        return self._definition.known_decorators

    @property
    def steps(self) -> Iterator[tuple[str, MutableStep]]:
        """The steps by name."""
        yield from ((name, MutableStep(self, name)) for name in self._definition.steps)

    @property
    def configs(self) -> Iterator[tuple[str, Any]]:
        """The configs' values by attribute."""
        yield from self._configs.items()

    @property
    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters by attribute."""
        yield from self._definition.parameters.items()

    def add_parameter(self, name: str, value: Parameter, overwrite: bool = False) -> None:  # noqa: FBT001, FBT002
        """Adds a parameter under an attribute.

        Raises:
            FlowDefinitionError: The attribute is taken, or the parameter can't be used.
        """
        parameters = self._definition.parameters
        is_removed = name not in parameters and isinstance(getattr(self._definition.flow, name, None), Parameter)
        if not overwrite and not is_removed and (name in parameters or hasattr(self._definition.flow, name)):
            raise FlowDefinitionError(f"add_parameter: {self._where} has {name!r} already.")
        if value.k8sflow_problem is not None:
            raise value.k8sflow_problem.error()
        added = value.named(name, self._definition.flow).with_configs(self._configs)
        self._definition = replace(self._definition, parameters={**parameters, name: added})

    def remove_parameter(self, name: str) -> bool:
        """Removes a parameter; returns whether there was one."""
        parameters = self._definition.parameters
        kept = {attribute: parameter for attribute, parameter in parameters.items() if attribute != name}
        self._definition = replace(self._definition, parameters=kept)
        return len(kept) < len(parameters)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        for found in (self.steps, self.configs, self.parameters):
            for key, value in found:
                if key == name:
                    return value
        raise AttributeError(f"{self._where} has no step, config or parameter {name!r}.")


def mutated(definition: FlowDefinition) -> FlowDefinition:
    """The definition after the flow's mutators and those of its steps, with the problems found."""
    flow = MutableFlow(definition)
    problems: list[Problem] = []
    _apply(flow, _mutations(flow, problems), problems)
    return replace(flow._definition, problems=(*definition.problems, *problems))  # noqa: SLF001  one module's business


def written_on(member: object) -> list[tuple[Location, str]]:
    """The mutators on a member of a class: where, and their names."""
    return [(mutator._location, type(mutator).__name__) for mutator in getattr(member, _MUTATORS, ())]  # noqa: SLF001


def _mutations(flow: MutableFlow, problems: list[Problem]) -> list[_Mutation]:
    """The mutators that are on a valid target, each with the object that it changes."""
    definition = flow._definition  # noqa: SLF001  as above
    placed: list[tuple[Any, Any, Any]]
    placed = [(mutator, definition.flow, flow) for mutator in getattr(definition.flow, _MUTATORS, ())]
    for name, step in definition.steps.items():
        own = getattr(step.function, _MUTATORS, ())
        placed += [(mutator, step.function, MutableStep(flow, name)) for mutator in own]
    for mutator, target, _ in placed:
        problems += [problem.at(mutator._location) for problem in mutator._misplaced(target)]  # noqa: SLF001  as above
    return [(mutator, mutable) for mutator, target, mutable in placed if not mutator._misplaced(target)]  # noqa: SLF001


def _apply(flow: MutableFlow, mutations: list[_Mutation], problems: list[Problem]) -> None:
    """Applies mutators, and those that they add; one that fails is skipped from then on."""
    configs = flow._configs  # noqa: SLF001  as above
    phases: list[Callable[[Any, Any], None]] = [
        lambda mutator, _: mutator._settle(configs),  # noqa: SLF001  as above
        lambda mutator, target: mutator.pre_mutate(target),
        lambda mutator, target: mutator.mutate(target),
    ]
    broken = set()
    for phase in phases:
        flow._mutations = mutations if phase is phases[1] else None  # noqa: SLF001  as above
        for mutator, target in mutations:  # the list grows in pre_mutate
            try:
                if id(mutator) not in broken:
                    phase(mutator, target)
            except (FlowDefinitionError, ParameterError) as error:
                broken.add(id(mutator))
                problems.append(Problem(error.summary, error.advice).at(mutator._location))  # noqa: SLF001  as above
            except Exception as error:  # noqa: BLE001  the mutator is the user's code
                broken.add(id(mutator))
                problems.append(_raised(mutator, error).at(mutator._location))  # noqa: SLF001  as above


def _raised(mutator: object, error: Exception) -> Problem:
    """The problem for an exception of a mutator's own code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    where = f"It was raised in {frames[-1].name}(), {frames[-1].filename}:{frames[-1].lineno}." if frames else ""
    shown = f"{type(error).__name__}: {error}".removesuffix(": ")
    return Problem(f"the mutator {type(mutator).__name__} failed: {shown}.", where)
