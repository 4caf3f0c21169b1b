"""The names that a module's code binds to other modules' objects, and the statements that change those objects."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType

_OURS = "k8sflow"


class ModuleNames:
    """Names of one module, as its code is read from top to bottom.

    Args:
        modules: The modules that are loaded.
    """

    def __init__(self, modules: Mapping[str, ModuleType]) -> None:
        self._modules = modules
        self._imported: dict[str, object] = {}
        self._shared: set[str] = set()  # names for objects that another module may have too
        self._own: set[str] = set(vars(builtins))

    def imported(self, name: str) -> None:
        """Notes ``import name``."""
        self._bind(name.partition(".")[0], self._modules.get(name.partition(".")[0]))

    def imported_as(self, module: str, attribute: str, name: str) -> None:
        """Notes ``from module import attribute as name``, or ``import module as name`` without an attribute."""
        found = self._modules.get(module)
        if attribute == "*":
            for each, value in list(vars(found).items()) if found else []:
                self._bind(each, value)
        elif attribute:
            self._bind(name, _member(found, attribute) or self._modules.get(f"{module}.{attribute}"))
        else:
            self._bind(name, found)

    def _bind(self, name: str, value: object) -> None:
        self._imported[name] = value
        self._shared.add(name)

    def changed_by(self, statement: ast.stmt) -> bool:
        """Whether a statement may change an object of another module: by ``+=``, or by a class that it registers."""
        changes = False
        for node in _executed(statement):
            match node:
                case ast.Assign(targets=targets, value=value) if self._is_shared(value):
                    self._shared.update(found.id for target in targets for found in _names_in(target))
                case ast.AnnAssign(target=target, value=ast.expr() as value) if self._is_shared(value):
                    self._shared.update(found.id for found in _names_in(target))
                case ast.NamedExpr(target=target, value=value) if self._is_shared(value):
                    self._shared.add(target.id)
                case ast.AugAssign(target=ast.Name(id=name)):
                    changes = changes or name in self._shared
                case ast.ClassDef():
                    parents = [*node.bases, *(keyword.value for keyword in node.keywords if keyword.arg == "metaclass")]
                    changes = changes or any(map(self._is_told_of_subclasses, parents))
                    self._own.add(node.name)
        return changes

    def _is_shared(self, value: ast.expr) -> bool:
        return any(found.id in self._shared for found in _names_in(value))

    def _is_told_of_subclasses(self, parent: ast.expr) -> bool:
        """Whether code of a library runs when a class is derived from this one; also where that can't be known."""
        if isinstance(parent, ast.Subscript):  # Generic[T]
            parent = parent.value
        if isinstance(parent, ast.Name) and parent.id in self._own and parent.id not in self._imported:
            return False  # its own definition was read before
        found = self._resolved(parent)
        if not isinstance(found, type):
            return not _is_harmless_root(getattr(found, "__module__", None))
        return any(
            not _is_harmless_root(base.__module__) for base in found.__mro__ if "__init_subclass__" in vars(base)
        ) or not all(_is_harmless_root(kind.__module__) for kind in inspect.getmro(type(found)) + _metaclasses(found))

    def _resolved(self, node: ast.expr) -> object:
        match node:
            case ast.Name(id=name):
                return self._imported.get(name)
            case ast.Attribute(value=value, attr=name):
                return _member(self._resolved(value), name)
        return None


def _member(owner: object, name: str) -> object:
    """A module's or a class's attribute; never one that a module makes when it is asked."""
    return vars(owner).get(name) if isinstance(owner, (ModuleType, type)) else None


def _metaclasses(found: type) -> tuple[type, ...]:
    """The class itself where it is a metaclass."""
    return inspect.getmro(found) if issubclass(found, type) else ()


def _is_harmless_root(module: object) -> bool:
    """Whether a module is Python's or k8sflow's, which keep no list of a user's classes that a library reads."""
    root = module.partition(".")[0] if isinstance(module, str) else ""
    return root in sys.stdlib_module_names or root in {_OURS, "builtins"}


def _names_in(node: ast.AST) -> Iterator[ast.Name]:
    return (found for found in ast.walk(node) if isinstance(found, ast.Name))


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run with a statement: not the bodies of functions."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _executed(child)
