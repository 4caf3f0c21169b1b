"""A walk over all that a step's function can reach: functions, classes and values of the user's code.

It follows live objects, not their source, so that closures, default arguments, decorators and what was put into a
module's variables count as they are. Where it can't see what code reaches, it says so, and the key of the step then has
the whole folder in it.
"""

from __future__ import annotations

import enum
import functools
import io
import logging
import pickle
import re
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from k8sflow.executors.fork_server.preload_plan import OURS, is_library
from k8sflow.flow.current import Current
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime.caching.bytecode import CodeFacts, facts_of
from k8sflow.storage.file_state import hashed

# Members of a class that Python makes, or that say nothing about what its code does.
_OF_PYTHON = frozenset({
    "__abstractmethods__", "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__",
    "__conditional_annotations__", "__dataclass_fields__", "__dataclass_params__", "__dict__", "__doc__",
    "__firstlineno__", "__match_args__", "__module__", "__orig_bases__", "__parameters__", "__qualname__",
    "__static_attributes__", "__type_params__", "__weakref__", "_abc_impl",
})  # fmt: skip
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented))
_MOST_DEPTH = 200


class Walk:
    """Follows all that a function, a value or a piece of a module can reach; looks at each object once.

    Args:
        flow: The flow, whose members are looked at where the code mentions them.
        modules: The loaded modules by name.
    """

    def __init__(self, flow: type[FlowSpec], modules: Mapping[str, types.ModuleType] | None = None) -> None:
        self._flow = flow
        self._modules = sys.modules if modules is None else modules
        self._digests: dict[int, str] = {}
        self._kept: list[object] = []
        self._depth = 0
        self.parts: dict[str, str] = {}
        self.facts: list[CodeFacts] = []
        self.libraries: set[str] = set()
        self.strings: set[str] = set()
        self.unclear: dict[str, None] = {}
        # The attributes of ``current`` that code loads; all of them where it is passed on as a value.
        self.of_current: set[str] = set()

    # ------------------------------------------------------------------ values

    def add(self, label: str, value: object) -> str:
        """The hash of a value, which becomes a part of the key under its own name."""
        digest = self.digest(value, label)
        self.parts[label] = digest
        return digest

    def digest(self, value: object, where: str) -> str:
        """The hash of a value with all that it reaches.

        Args:
            value: The value.
            where: What it is, for people.
        """
        if isinstance(value, str):
            self.strings.add(value)
        if type(value) in _PLAIN:
            return hashed([type(value).__name__, repr(value)])
        if id(value) in self._digests:
            return self._digests[id(value)]
        self._kept.append(value)  # so that its id is not used again
        self._digests[id(value)] = hashed(["again", type(value).__name__])  # within itself
        self._depth += 1
        try:
            if self._depth > _MOST_DEPTH:
                self.unclear[f"{where} is nested too deeply"] = None
                return ""
            found = hashed([type(value).__qualname__, self._shape(value, where)])
        finally:
            self._depth -= 1
        self._digests[id(value)] = found
        return found

    def _shape(self, value: Any, where: str) -> Any:  # noqa: PLR0911, PLR0912, C901  one case for each kind of value
        match value:
            case list() | tuple() if type(value) in {list, tuple}:
                return [self.digest(each, where) for each in value]
            case dict() | types.MappingProxyType() if type(value) in {dict, types.MappingProxyType}:
                return [[self.digest(key, where), self.digest(each, where)] for key, each in value.items()]
            case set() | frozenset() if type(value) in {set, frozenset}:
                return sorted(self.digest(each, where) for each in value)
            case types.FunctionType():
                return self._function(value)
            case types.MethodType():
                return [self.digest(value.__func__, where), self.digest(value.__self__, where)]
            case types.BuiltinFunctionType() if value.__self__ is None or isinstance(value.__self__, types.ModuleType):
                self._library(value.__module__ or "builtins")
                return [value.__module__, value.__qualname__]
            case types.ModuleType():
                return self._module(value, where)
            case type():
                return self._class(value, where)
            case re.Pattern():
                return [str(value.pattern), value.flags]
            case logging.Logger():
                return value.name
            case enum.Enum():
                return [self.digest(type(value), where), value.name, self.digest(value.value, where)]
            case property():
                return [self.digest(each, where) for each in (value.fget, value.fset, value.fdel)]
            case staticmethod() | classmethod():
                return self.digest(value.__func__, where)
            case functools.cached_property():
                return self.digest(value.func, where)
            case functools.partial():
                return [self.digest(each, where) for each in (value.func, value.args, value.keywords)]
            case functools.partialmethod():
                return [self.digest(each, where) for each in (value.func, value.args, value.keywords)]
            case _ if _is_typing(value):
                return repr(value)
        return self._object(value, where)

    def _object(self, value: Any, where: str) -> Any:
        kind = type(value)
        if kind.__module__.partition(".")[0] == OURS:
            self.of_current |= {"*"} if kind is Current else set()
            self._library(OURS)
            return kind.__qualname__
        if self._is_own(kind):
            return [self.digest(kind, where), self._state(value, where)]
        self._library(kind.__module__)
        if kind.__module__ == "functools" and isinstance(
            wrapped := getattr(value, "__wrapped__", None), types.FunctionType
        ):
            return self.digest(wrapped, where)  # functools.cache
        return self._pickled(value, where)

    def _state(self, value: Any, where: str) -> Any:
        """The attributes of an object of the user's class, and what it holds by being a container."""
        slots = [name for base in type(value).__mro__ for name in _listed(vars(base).get("__slots__", ()))]
        found = {name: getattr(value, name) for name in slots if hasattr(value, name) and name != "__dict__"}
        found |= getattr(value, "__dict__", {})
        content: list[Any] = [[name, self.digest(each, where)] for name, each in sorted(found.items())]
        for base, copy in ((dict, dict), (list, list), (tuple, tuple), (set, set), (frozenset, frozenset)):
            if isinstance(value, base):
                content.append(self.digest(copy(value), where))
        plain = next((base for base in (str, bytes, int, float) if isinstance(value, base)), None)
        content.append("" if plain is None else plain.__repr__(value))
        if isinstance(value, BaseException) or "__reduce__" in _members(type(value)):
            content.append(self._pickled(value, where))
        return content

    def _pickled(self, value: object, where: str) -> str:
        """The pickle of an object of a library, with the user's functions and classes in it."""
        buffer = io.BytesIO()
        pickler = _Pickler(buffer)
        try:
            pickler.dump(value)
        except Exception as error:  # noqa: BLE001  an object may refuse in any way
            name = f"{type(value).__module__}.{type(value).__qualname__}"
            self.unclear[f"{where} is a {name}, which can't be compared: {type(error).__name__}"] = None
            return ""
        return hashed([buffer.getvalue().hex(), *(self.digest(each, where) for each in pickler.named)])

    # ------------------------------------------------------------------ functions, classes and modules

    def _is_own(self, value: Any) -> bool:
        """True if a function or a class is the user's."""
        name = getattr(value, "__module__", None)
        module = self._modules.get(name) if isinstance(name, str) else None
        if module is None:
            return name is not None and name != "builtins" and not self._is_of_library_file(value)
        return not is_library(module)

    def _is_of_library_file(self, value: Any) -> bool:
        return str(getattr(value, "__module__", "")).partition(".")[0] in {OURS, *sys.stdlib_module_names}

    def _library(self, module: str | None) -> None:
        if module:
            self.libraries.add(module.partition(".")[0])

    def _function(self, function: types.FunctionType) -> Any:
        name = f"{function.__module__}.{function.__qualname__}"
        if not self._is_own(function):
            self._library(function.__module__)
            # A wrapper that a library has put around the user's function.
            inner = [c for c in map(_content, function.__closure__ or ()) if self._is_code(c)]
            if (wrapped := getattr(function, "__wrapped__", None)) is not None:
                inner.append(wrapped)
            return [name, *(self.digest(each, name) for each in inner)]
        facts = facts_of(function.__code__)
        self.facts.append(facts)
        self.strings |= facts.strings
        shape = [
            facts.shape,
            self.digest(function.__defaults__, name),
            self.digest(function.__kwdefaults__, name),
            [self.digest(_content(cell), name) for cell in function.__closure__ or ()],
            {key: self.digest(each, name) for key, each in vars(function).items() if not key.startswith("__k8sflow")},
        ]
        self._reached(facts, function.__globals__, name)
        return self._part(f"function {name}", hashed(shape))

    def _part(self, label: str, found: str) -> str:
        """Adds the hash of a function or a class; several may have one name."""
        self.parts[label] = hashed([self.parts[label], found]) if label in self.parts else found
        return found

    def _is_code(self, value: object) -> bool:
        return isinstance(value, (types.FunctionType, types.MethodType, type)) and self._is_own(value)

    def code(self, label: str, code: types.CodeType, names: dict[str, Any]) -> None:
        """Adds a piece of a module's code."""
        facts = facts_of(code)
        self.facts.append(facts)
        self.strings |= facts.strings
        self.parts[label] = hashed(facts.shape)
        self._reached(facts, names, label)

    def _reached(self, facts: CodeFacts, names: dict[str, Any], where: str) -> None:
        """Follows the globals that code loads, and what it imports."""
        for word in sorted(facts.dynamic):
            self.unclear[f"{where} uses {word}"] = None
        for first, *attributes in sorted(facts.chains):
            if isinstance(names.get(first), Current) and attributes:
                self.of_current.add(attributes[0])
            elif first in names:
                self._named(names[first], [first, *attributes], 0, f"{names.get('__name__', '')}.{first}")
        for level, name, of in sorted(facts.imports):
            self._imported(_absolute(name, level, names), of, facts, where)

    def _named(self, value: Any, chain: list[str], position: int, label: str) -> None:
        """Follows a global, and the attributes of modules that the code loads from it."""
        if not isinstance(value, types.ModuleType):
            self._labelled(label, value)
        elif is_library(value):
            self._library(value.__name__)
        elif position + 1 == len(chain):
            self.unclear[f"the module {value.__name__} is used as a value"] = None
        elif chain[position + 1] in vars(value):
            member = vars(value)[chain[position + 1]]
            self._named(member, chain, position + 1, f"{value.__name__}.{chain[position + 1]}")
        else:
            self.unclear[f"{value.__name__}.{chain[position + 1]} is not known before it is used"] = None

    def _labelled(self, label: str, value: Any) -> None:
        """Adds a global; functions and classes have parts of their own."""
        if isinstance(value, (types.FunctionType, type)):
            self.digest(value, label)
        elif not label.endswith(".__name__"):  # which depends on how the flow is started
            self.parts[f"variable {label}"] = self.digest(value, label)

    def _imported(self, name: str, of: tuple[str, ...], facts: CodeFacts, where: str) -> None:
        first = name.partition(".")[0]
        module = self._modules.get(name)
        if is_library(module) if module is not None else _is_installed(first):
            self._library(first)
        elif module is None:
            self.unclear[f"{where} imports {name} when it runs"] = None
        else:
            self._library(first)
            for member in of if of and "*" not in of else facts.names:
                if member in vars(module):
                    self._named(vars(module)[member], [member], 0, f"{name}.{member}")
                elif of:
                    self.unclear[f"{where} imports {name}.{member} when it runs"] = None
            if not of and "." in name and (above := self._modules.get(first)) is not None:
                self.unclear[f"{where} imports {name}, a part of {above.__name__}"] = None

    def _module(self, module: types.ModuleType, where: str) -> str:
        if is_library(module):
            self._library(module.__name__)
        else:
            self.unclear[f"{where} has the module {module.__name__} as a value"] = None
        return module.__name__

    def _class(self, kind: type, where: str) -> Any:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind in self._flow.__mro__:
            return name  # its members count where they are mentioned
        if not self._is_own(kind):
            self._library(kind.__module__)
            return name
        if issubclass(kind, FlowSpec):
            self.unclear[f"{where} has another flow, {name}"] = None
            return name
        members = {key: each for key, each in vars(kind).items() if key not in _OF_PYTHON}
        found = hashed([
            [self.digest(base, name) for base in kind.__mro__[1:]],
            self.digest(type(kind), name) if type(kind) is not type else "",
            [[key, self._member(each, name)] for key, each in sorted(members.items())],
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
            found.append([name, str(each.type), [self.digest(value, where) for value in defaults]])
        return found


class _Pickler(pickle.Pickler):
    """Notes the functions and classes that a pickle names, and does not contain."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=4)
        self.named: list[Any] = []

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (types.FunctionType, type)):
            self.named.append(obj)
        return NotImplemented


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def _members(kind: type) -> set[str]:
    """The names of what a class and its bases, other than ``object``, define."""
    return {name for base in kind.__mro__ if base is not object for name in vars(base)}


def _listed(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _is_missing(value: object) -> bool:
    return type(value).__name__ == "_MISSING_TYPE"


def _is_typing(value: object) -> bool:
    return (
        isinstance(value, (types.GenericAlias, types.UnionType, typing.TypeVar)) or type(value).__module__ == "typing"
    )


def _absolute(name: str, level: int, names: Mapping[str, Any]) -> str:
    if not level:
        return name
    package = str(names.get("__package__") or names.get("__name__", ""))
    base = package.rsplit(".", level - 1)[0] if level > 1 else package
    return f"{base}.{name}" if name else base


def _is_installed(name: str) -> bool:
    """True if a module that is not loaded is in an installed package, or comes with Python."""
    if name in {OURS, *sys.stdlib_module_names}:
        return True
    from importlib.machinery import PathFinder  # noqa: PLC0415  few steps import as they run

    from k8sflow.executors.fork_server.preload_plan import is_library_file  # noqa: PLC0415

    spec = PathFinder.find_spec(name)
    if spec is None:
        return False
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return bool(places) and all(is_library_file(each) for each in places)
