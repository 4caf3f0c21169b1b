"""A walk over all that a step's function can reach: functions, classes and values of the user's code.

It follows live objects, not their source, so that closures, default arguments, decorators and what was put into a
module's variables count as they are. Where it can't see what code reaches, it says so, and the key of the step then has
the whole folder in it.
"""

from __future__ import annotations

import hashlib
import sys
import types
from collections import deque
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from k8sflow.executors.fork_server.preload_plan import OURS, is_library
from k8sflow.flow.current import Current
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime.caching import contents
from k8sflow.runtime.caching.bytecode import CodeFacts, facts_of
from k8sflow.runtime.caching.contents import Contents, HiddenStateError, content
from k8sflow.runtime.caching.origins import (
    absolute,
    annotations_of,
    is_installed,
    is_named,
    name_in_library,
    name_of,
    without_addresses,
)
from k8sflow.runtime.caching.outside import home_of
from k8sflow.runtime.caching.reach import Reach
from k8sflow.storage.file_state import hashed

# Members of a class that Python makes, or that say nothing about what its code does.
_OF_PYTHON = frozenset({
    "__abstractmethods__", "__annotations_cache__", "__conditional_annotations__", "__dataclass_fields__",
    "__dataclass_params__", "__dict__", "__doc__", "__firstlineno__", "__module__", "__parameters__", "__qualname__",
    "__static_attributes__", "__type_params__", "__weakref__", "_abc_impl",
})  # fmt: skip
_PLAIN = (type(None), bool, int, float, complex, str, type(Ellipsis), type(NotImplemented))
# Modules that exist only in the names of types, which compiled libraries share.
_OF_COMPILERS = ("_cython_", "pybind11_")
_MOST_DEPTH = 100


class Walk:
    """Follows all that a function, a value or a piece of a module can reach; looks at each object once.

    Args:
        flow: The flow, whose members are looked at where the code mentions them.
        modules: The loaded modules by name.
        is_locked: True if the step has packages of its own: modules that this process doesn't find are theirs.
    """

    def __init__(
        self, flow: type[FlowSpec], modules: Mapping[str, types.ModuleType] | None = None, *, is_locked: bool = False
    ) -> None:
        self._flow, self._is_locked = flow, is_locked
        self._modules = sys.modules if modules is None else modules
        self._digests: dict[int, str] = {}
        # Where an object that can be changed was first found, and how many such objects each place has.
        self._first: dict[int, str] = {}
        self._found_at: dict[str, int] = {}
        self._is_in_set = False
        self._labels: dict[str, int] = {}
        self._kept: list[object] = []
        self._waiting: deque[tuple[CodeFacts, dict[str, Any], str]] = deque()
        self._is_following = False
        self._within: dict[int, int] = {}
        self.parts: dict[str, str] = {}
        self.facts: list[CodeFacts] = []
        self.strings: set[str] = set()
        self.reach = Reach()
        # What can't be compared with what another run has: no result can be taken then.
        self.refused: dict[str, None] = {}

    # ------------------------------------------------------------------ values

    def add(self, label: str, value: object) -> str:
        """The hash of a value, which becomes a part of the key under its own name."""
        if self._labels.get(label) != id(value):
            self.parts[label] = self.digest(value, label)
            self._labels[label] = id(value)
        return self.parts[label]

    def digest(self, value: object, where: str) -> str:
        """The hash of a value with all that it reaches.

        Args:
            value: The value.
            where: What it is, for people.
        """
        kind = type(value)
        if isinstance(value, str):
            self.strings.add(str.__str__(value))
        if kind in _PLAIN:
            return hashed([kind.__name__, repr(value)])
        if kind is bytes:
            return hashed(["bytes", hashlib.sha256(value).hexdigest()])  # type: ignore[arg-type]
        if id(value) in self._within:
            return hashed(["again", len(self._within) - self._within[id(value)]])
        is_first = id(value) not in self._digests
        if is_first:
            self._kept.append(value)  # so that its id is not used again
            self._note_first(value, where)
            self._within[id(value)] = len(self._within)
            try:
                shape = self._too_deep(where) if len(self._within) > _MOST_DEPTH else self._shape(value, where)
                self._digests[id(value)] = hashed([kind.__module__, kind.__qualname__, shape])
            finally:
                del self._within[id(value)]
        found = self._digests[id(value)]
        if not is_first and id(value) in self._first:
            # A change of it by one name is seen by the other: two equal lists are not one list.
            found = hashed(["the same as", self._first[id(value)], found])
        self._follow()
        return found

    def _note_first(self, value: object, where: str) -> None:
        if isinstance(value, (type, types.FunctionType, types.ModuleType)) or not contents.is_changeable(value):
            return
        self._found_at[where] = self._found_at.get(where, 0) + (not self._is_in_set)
        self._first[id(value)] = f"{where} in a set" if self._is_in_set else f"{where} {self._found_at[where]}"

    def _too_deep(self, where: str) -> str:
        self.refused[f"{where} is nested too deeply to be compared"] = None
        return ""

    def _follow(self) -> None:
        """Follows the names in functions that were found; one after the other, since they may form long chains."""
        if self._within or self._is_following:
            return
        self._is_following = True
        while self._waiting:
            self._reached(*self._waiting.popleft())
        self._is_following = False

    def _shape(self, value: Any, where: str) -> Any:
        match value:
            case types.FunctionType():
                return self._function(value, where)
            case types.CodeType():
                return self._code(value, where)
            case types.BuiltinFunctionType() if value.__self__ is None or isinstance(value.__self__, types.ModuleType):
                self.reach.library(value.__module__ or "builtins")
                self.reach.function(value, where)
                return [value.__module__, value.__qualname__]
            case types.ModuleType():
                return self._module(value, where)
            case type() if issubclass(type(value), type):  # Python 3.10 takes list[int] for a class
                return self._class(value, where)
        return self._value(value, where)

    def _value(self, value: Any, where: str) -> Any:
        kind = type(value)
        if self.reach.is_surrounding(value) or contents.is_without_state(value):
            return ""
        if isinstance(value, PurePath):
            self.strings.add(str(value))
        known = contents.of_known(value) or contents.of_typing(value)
        if known is not None:
            return self._each(known, where)
        if self._is_own(kind):
            return [self.digest(kind, where), self._state(value, where)]
        self.reach.library(kind.__module__)
        if kind.__module__ == "functools" and hasattr(value, "__wrapped__"):
            if contents.has_results(value) and self._is_own(value.__wrapped__):
                self.refused[f"{where} has results of earlier calls, which can't be compared"] = None
            return self._each(Contents([*vars(value).items()]), where)  # functools.cache
        try:
            return self._each(contents.reduced(value), where)
        except HiddenStateError:
            return self._state(value, where)

    def _each(self, found: Contents, where: str) -> list[str]:
        if found.is_ordered:
            return [self.digest(each, where) for each in found.values]
        self._is_in_set, before = True, self._is_in_set
        try:
            return sorted(self.digest(each, where) for each in found.values)
        finally:
            self._is_in_set = before

    def _state(self, value: Any, where: str) -> Any:
        """The attributes of an object, and what it holds by its bases."""
        try:
            return [self._each(each, where) for each in contents.of_own(value, self._is_own)]
        except HiddenStateError as error:
            if (name := name_in_library(value)) is not None:
                return name
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            self.refused[f"{where} has a {kind}, which can't be compared with that of another run ({error})"] = None
            return ""

    # ------------------------------------------------------------------ functions, classes and modules

    def _is_own(self, value: Any) -> bool:
        """True if a function or a class is the user's, whatever ``functools.wraps`` has written to it."""
        is_function = isinstance(value, types.FunctionType)
        name = value.__globals__.get("__name__") if is_function else getattr(value, "__module__", None)
        module = self._modules.get(name) if isinstance(name, str) else None
        if module is not None:
            is_own = not is_library(module)
        else:
            first = str(name).partition(".")[0]
            is_own = is_function if name is None else first not in {OURS, *sys.stdlib_module_names}
            is_own &= not first.startswith(_OF_COMPILERS)
        if is_own or not isinstance(value, type) or is_named(value):
            return is_own
        return any(self._is_own(each) for each in vars(value).values() if isinstance(each, types.FunctionType))

    def _function(self, function: types.FunctionType, where: str) -> Any:
        name = f"{function.__module__}.{function.__qualname__}"
        held = [
            function.__defaults__,
            function.__kwdefaults__,
            [content(cell) for cell in function.__closure__ or ()],
            {key: each for key, each in vars(function).items() if not key.startswith("__k8sflow")},
        ]
        if not self._is_own(function):
            self.reach.library(function.__globals__.get("__name__"))
            self.reach.function(function, where)
            # What no name of the library leads to is something that it has made of the user's.
            return [name, *(self._each(Contents(held), name) if not is_named(function) else ())]
        facts = self._code_facts(function.__code__)
        self._waiting.append((facts, function.__globals__, name))
        annotations = sorted((key, name_of(each)) for key, each in annotations_of(function, self.reach.unclear).items())
        return self._part(f"function {name}", hashed([facts.shape, annotations, *self._each(Contents(held), name)]))

    def _code_facts(self, code: types.CodeType) -> CodeFacts:
        facts = facts_of(code)
        self.facts.append(facts)
        self.strings |= facts.strings
        return facts

    def _code(self, code: types.CodeType, where: str) -> Any:
        self.reach.unclear[f"{where} has code that may run anywhere"] = None
        return self._code_facts(code).shape

    def _part(self, label: str, found: str) -> str:
        """Adds the hash of a function or a class; several may have one name."""
        self.parts[label] = hashed([self.parts[label], found]) if label in self.parts else found
        return found

    def code(self, label: str, code: types.CodeType, names: dict[str, Any]) -> None:
        """Adds a piece of a module's code."""
        facts = self._code_facts(code)
        self.parts[label] = hashed(facts.shape)
        self._waiting.append((facts, names, label))
        self._follow()

    def variables(self, module: types.ModuleType) -> None:
        """Adds all that a module of the user's has."""
        for name, value in list(vars(module).items()):
            if type(value) is Current:
                self.reach.of_current.add("*")
            elif not (name.startswith("__") and name.endswith("__")) and not isinstance(value, types.ModuleType):
                self._labelled(f"{module.__name__}.{name}", value)

    def _reached(self, facts: CodeFacts, names: dict[str, Any], where: str) -> None:
        """Follows the globals that code loads, and what it imports."""
        for word in sorted(facts.dynamic):
            self.reach.unclear[f"{where} uses {word}"] = None
        for first, *attributes in sorted(facts.chains):
            value = names.get(first)
            if isinstance(value, Current):
                self.reach.current(attributes)
            elif self.reach.is_plain_environment(first, value):
                self.reach.library("os")
            elif first in names:
                self._set_in_library(facts, names[first], attributes)
                self._named(names[first], [first, *attributes], 0, f"{names.get('__name__', '')}.{first}")
        for level, name, of in sorted(facts.imports):
            self._imported(absolute(name, level, names), of, facts, where)

    def _named(self, value: Any, chain: list[str], position: int, label: str) -> None:
        """Follows a global, and the attributes of modules that the code loads from it."""
        if not isinstance(value, types.ModuleType):
            self._labelled(label, value)
        elif is_library(value):
            self._in_library(value, chain[position + 1 :])
        elif position + 1 == len(chain):
            self.reach.unclear[f"the module {value.__name__} is used as a value"] = None
        elif chain[position + 1] in vars(value):
            member = vars(value)[chain[position + 1]]
            self._named(member, chain, position + 1, f"{value.__name__}.{chain[position + 1]}")
        else:
            self.reach.unclear[f"{value.__name__}.{chain[position + 1]} is not known before it is used"] = None

    def _in_library(self, module: types.ModuleType, attributes: list[str]) -> None:
        """Notes the modules of a library on the way to what code uses of it."""
        self.reach.library(module.__name__)
        self.reach.names_of(module.__name__, set(attributes))
        for position, name in enumerate(attributes, 1):
            self.reach.library(home_of(module.__name__, name))
            if isinstance(vars(module).get(name), Current):
                self.reach.current(attributes[position:])
            member = vars(module).get(name)
            if not isinstance(member, types.ModuleType):
                return
            module = member
            self.reach.library(module.__name__)

    def _set_in_library(self, facts: CodeFacts, value: Any, attributes: list[str]) -> None:
        """Adds what the code has set in a library's module or class."""
        for name in ["", *attributes]:
            value = vars(value).get(name) if name else value
            if isinstance(value, types.ModuleType):
                is_own = not is_library(value)
            elif isinstance(value, type):
                is_own = self._is_own(value)
            else:
                return
            for each in sorted(facts.stores & vars(value).keys()) if not is_own else ():
                label = f"{value.__name__}.{each}"
                self.parts[f"variable {label}"] = self.digest(vars(value)[each], label)

    def _labelled(self, label: str, value: Any) -> None:
        """Adds a global; functions and classes have parts of their own."""
        if isinstance(value, (types.FunctionType, type)):
            self.digest(value, label)
        elif not label.endswith(".__name__") and self._labels.get(label) != id(value):
            # __name__ depends on how the flow is started.
            self.parts[f"variable {label}"] = self.digest(value, label)
            self._labels[label] = id(value)

    def _imported(self, name: str, of: tuple[str, ...], facts: CodeFacts, where: str) -> None:
        first = name.partition(".")[0]
        module = self._modules.get(name)
        if is_library(module) if module is not None else is_installed(first, or_missing=self._is_locked):
            self.reach.library(name)
            if name.partition(".")[0] == OURS and "current" in {*of, *facts.names}:
                self.reach.of_current |= facts.loads
            self.reach.names_of(name, facts.names)
            for member in of or facts.names if name == OURS or of else ():
                home = home_of(name, member)
                self.reach.library(home if home != name else f"{name}.{member}")
        elif module is None:
            self.reach.unclear[f"{where} imports {name} when it runs"] = None
            self.reach.imported_later.add(first)
        else:
            self.reach.library(first)
            for member in of if of and "*" not in of else facts.names:
                if member in vars(module):
                    self._named(vars(module)[member], [member], 0, f"{name}.{member}")
                elif of:
                    self.reach.unclear[f"{where} imports {name}.{member} when it runs"] = None
            if not of and "." in name and (above := self._modules.get(first)) is not None:
                self.reach.unclear[f"{where} imports {name}, a part of {above.__name__}"] = None

    def _module(self, module: types.ModuleType, where: str) -> str:
        if is_library(module):
            self.reach.library(module.__name__)
        else:
            self.reach.unclear[f"{where} has the module {module.__name__} as a value"] = None
        return module.__name__

    def _class(self, kind: type, where: str) -> Any:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind in self._flow.__mro__:
            self.reach.has_flow |= kind not in {FlowSpec, object}
            return name  # its members count where they are mentioned
        if not self._is_own(kind):
            self.reach.library(kind.__module__)
            self.reach.function(kind, where)
            return name
        if issubclass(kind, FlowSpec):
            self.reach.unclear[f"{where} has another flow, {name}"] = None
            return name
        members = {key: each for key, each in vars(kind).items() if key not in _OF_PYTHON}
        found = hashed([
            [self.digest(base, name) for base in kind.__mro__[1:]],
            self.digest(type(kind), name) if type(kind) is not type else "",
            [[key, self._member(each, name)] for key, each in sorted(members.items())],
            without_addresses(str(kind.__doc__)),
            self._fields(kind, name),
        ])  # fmt: skip
        return self._part(f"class {name}", found)

    def _member(self, member: Any, where: str) -> str:
        if isinstance(member, (types.MemberDescriptorType, types.GetSetDescriptorType)):
            return ""  # a slot
        return self.digest(member, where)

    def _fields(self, kind: type, where: str) -> list[Any]:
        """The defaults of a dataclass, which are not all in its members."""
        fields = vars(kind).get("__dataclass_fields__", {})
        found = []
        for name, each in fields.items():
            defaults = [value for value in (each.default, each.default_factory) if not _is_missing(value)]
            defaults += [dict(each.metadata)]
            found.append([name, name_of(each.type), [self.digest(value, where) for value in defaults]])
        return found


def _is_missing(value: object) -> bool:
    return type(value).__name__ == "_MISSING_TYPE"
