"""FlowSpec: the class that users derive their flows from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from k8sflow import hooks
from k8sflow.flow.decorators.step import is_step
from k8sflow.flow.own_names import OwnName, run_command, script_name
from k8sflow.flow.parameters import Parameter
from k8sflow.flow.problems import Misplaced

# Names that a flow can't use for its own attributes, because self has them already.
RESERVED_ATTRIBUTES = frozenset({"next", "input", "index", "foreach_stack", "merge_artifacts"})
# Where a task keeps what belongs to it and not to the user.
CONTEXT = "_k8sflow_context"
# The prefix of the modules into which a reader loads a flow's file for its classes.
READ_MODULE = "_k8sflow_read_"
# Whether an instance is made for the attributes that its ``__init__`` sets.
is_trial: ContextVar[bool] = ContextVar("is_trial", default=False)


class InitReachedError(BaseException):
    """Ends an ``__init__`` that is called for the attributes that it sets; user code should not catch it."""


@dataclass(frozen=True)
class NextCall:
    """The arguments of a ``self.next(...)``."""

    targets: tuple[Any, ...]
    foreach: str | None = None
    max_parallel: Any = None
    num_parallel: Any = None
    condition: str | None = None


class TaskContext(Protocol):
    """The part of a running task that ``self`` uses."""

    def load(self, name: str) -> Any:
        """The value of an artifact that an earlier step set; AttributeError where there is none."""

    def forget(self, name: str) -> bool:
        """Drops an artifact that an earlier step set; False where there is none."""

    def next(self, flow: FlowSpec, call: NextCall) -> None:
        """Records the transition."""

    @property
    def index(self) -> int | None:
        """The index of the innermost foreach branch."""

    @property
    def input(self) -> Any:
        """The item of the innermost foreach branch."""

    def foreach_stack(self) -> list[tuple[int, int, Any]]:
        """Index, number of branches and item, from the outermost foreach to the innermost."""

    def merge_artifacts(self, flow: FlowSpec, inputs: Any, exclude: list[str], include: list[str]) -> None:
        """Takes over the artifacts on which the joined branches agree."""

    def has_parameter(self, name: str) -> bool:
        """True if the run has a parameter under this attribute."""

    def fixed(self, name: str) -> str:
        """A description of an attribute that no step can set; empty for all others."""


class FlowSpec:
    """Base class of flows: its steps are methods under ``@step``, its artifacts are the attributes of ``self``.

    Making an instance in the flow's own file runs the command line (``if __name__ == "__main__": MyFlow()``).
    """

    def __init__(self, use_cli: bool = True) -> None:  # noqa: FBT001, FBT002  the name and position that users know
        """Runs the command line of the flow, and does not return.

        Args:
            use_cli: False makes an object that runs nothing.
        """
        if not use_cli or type(self).__module__.startswith(READ_MODULE):
            return
        if is_trial.get():
            raise InitReachedError
        hooks.call("instance", self)

    def next(
        self,
        *targets: Callable[..., None] | Mapping[Any, Callable[..., None]],
        foreach: str | None = None,
        max_parallel: int | None = None,
        num_parallel: int | None = None,
        condition: str | None = None,
    ) -> None:
        """Says which steps are next: the last statement of every step but the end.

        Args:
            targets: The next step, or several which run side by side; with ``condition``, a dict of steps.
            foreach: The name of an attribute of ``self``: one branch for each of its items.
            max_parallel: How many branches of the foreach may be under way at a time; any number by default.
            num_parallel: How many processes run the next step at the same time and know each other (``@parallel``).
            condition: The name of an attribute of ``self`` whose value chooses one of the steps in the dict.
        """
        self._k8sflow_task().next(self, NextCall(targets, foreach, max_parallel, num_parallel, condition))

    @property
    def index(self) -> int | None:
        """The index of this task's item in its foreach, or None outside of any."""
        return self._k8sflow_task().index

    @property
    def input(self) -> Any:
        """This task's item of its foreach, or None outside of any."""
        return self._k8sflow_task().input

    def foreach_stack(self) -> list[tuple[int, int, Any]]:
        """The foreach branches around this task, the outermost first: index, number of branches, item."""
        return self._k8sflow_task().foreach_stack()

    def merge_artifacts(self, inputs: Any, exclude: list[str] | None = None, include: list[str] | None = None) -> None:
        """Takes over, in a join, the artifacts on which all branches agree, without loading them.

        Args:
            inputs: The join's inputs.
            exclude: Names that are not taken over.
            include: The only names that are taken over.

        Raises:
            ArtifactError: Branches disagree on an artifact, or an included one is missing.
        """
        self._k8sflow_task().merge_artifacts(self, inputs, exclude or [], include or [])

    name = OwnName(lambda flow: flow.__name__)
    script_name = OwnName(script_name)

    def cmd(
        self,
        cmdline: str,
        input: Mapping[str, str | bytes] | None = None,  # noqa: A002  the name that users know
        output: Sequence[str] = (),
    ) -> bytes | list[bytes]:
        """Runs a shell command; kept for flows that were written for Metaflow.

        Args:
            cmdline: The command.
            input: Files to write before it, by path.
            output: Files to read after it; one gives its content, several a list.

        Raises:
            RunError: The command failed.
        """
        return run_command(cmdline, input or {}, output)

    def _k8sflow_task(self) -> TaskContext:
        context: TaskContext | None = self.__dict__.get(CONTEXT)
        if context is None:
            raise RuntimeError(f"{type(self).__name__} is not in a running task; this works only in a step.")
        return context

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or CONTEXT not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        member = next((vars(base)[name] for base in type(self).__mro__ if name in vars(base)), None)
        if isinstance(member, (property, cached_property)):
            # It raised an AttributeError, which Python drops before it asks here: once more, for what that says.
            return member.__get__(self, type(self))
        value = self._k8sflow_task().load(name)
        self.__dict__[name] = value
        return value

    def __setattr__(self, name: str, value: object) -> None:
        self._k8sflow_refuse_fixed(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._k8sflow_refuse_fixed(name)
        inherited = CONTEXT in self.__dict__ and self._k8sflow_task().forget(name)
        if name in self.__dict__ or not inherited:
            super().__delattr__(name)

    def _k8sflow_has_parameter(self, name: str) -> bool:
        """True if an attribute is a parameter of the run; outside of a task, those of the class are."""
        context: TaskContext | None = self.__dict__.get(CONTEXT)
        return context is None or context.has_parameter(name)

    def _k8sflow_refuse_fixed(self, name: str) -> None:
        """Refuses a value under a name that means something else in the later steps."""
        context: TaskContext | None = self.__dict__.get(CONTEXT)
        if what := fixed(type(self), name) if context is None else context.fixed(name):
            raise AttributeError(f"self.{name} is {what}. Put the value under another name.")


def fixed(flow: type[FlowSpec], name: str) -> str:
    """A description of an attribute that no step can set; empty for all others.

    Parameters and configs refuse a value by themselves.
    """
    member = next((vars(base)[name] for base in flow.__mro__ if base is not FlowSpec and name in vars(base)), None)
    if member is not None and is_constant(name, member):
        return f"a constant of the class {flow.__name__}, which can't change during a run"
    if is_step(member):
        return f"a step of {flow.__name__}"
    return "a part of every flow" if name in RESERVED_ATTRIBUTES else ""


def steps(flow: type[FlowSpec]) -> dict[str, Callable[..., None]]:
    """The steps of a flow by name, in the order in which they are written, those of its base classes first."""
    return {name: member for name, member in members(flow) if is_step(member)}


def is_constant(name: str, member: object) -> bool:
    """True if a member of a class is a plain value, which every step and every reader of the run sees."""
    if name.startswith("_") or isinstance(member, (Parameter, Misplaced, property, staticmethod, classmethod, type)):
        return False
    return not callable(member) and not hasattr(member, "__get__")


def members(flow: type[FlowSpec]) -> Iterator[tuple[str, Any]]:
    """The members of a class and its bases below FlowSpec, by name; a derived class's member overrides its base's."""
    found: dict[str, Any] = {}
    for base in reversed(flow.__mro__):
        if issubclass(base, FlowSpec) and base is not FlowSpec:
            found.update(vars(base))
        elif base not in {object, FlowSpec, Protocol}:
            found.update({n: m for n, m in vars(base).items() if not n.startswith("__")})
    yield from found.items()
