"""The statements of a module that may change something that no name leads to: a seed, a setting, a registry."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from types import CodeType, ModuleType
from typing import Any

from k8sflow.flow.spec import FlowSpec

# Decorators that only make something of the function or the class below them, and the modules that have them.
_HARMLESS = frozenset({
    "abstractmethod", "asynccontextmanager", "cache", "cached_property", "classmethod", "contextmanager", "dataclass",
    "lru_cache", "overload", "property", "singledispatch", "staticmethod", "total_ordering", "unique", "wraps",
})  # fmt: skip
_OF_HARMLESS = frozenset({"abc", "contextlib", "dataclasses", "enum", "functools", "typing"})
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_EFFECTS = (ast.Call, ast.Await, ast.Subscript, ast.NamedExpr)
# Calls in the body of a class that only make a value.
_MAKING = frozenset({
    "Field", "auto", "cached_property", "classmethod", "dict", "field", "frozenset", "getLogger", "list",
    "namedtuple", "partialmethod", "property", "set", "staticmethod", "tuple",
})  # fmt: skip


class Statements:
    """The statements of one module.

    Args:
        module: The module.
        source: Its source.

    Raises:
        SyntaxError: It isn't Python.
    """

    def __init__(self, module: ModuleType, source: bytes) -> None:
        self._module = module
        found: list[ast.stmt] = []
        self.objects: dict[str, Any] = {}
        # The modules that its import statements name, since importing one may change another.
        self.imports: set[str] = set()
        for statement in ast.parse(source).body:
            if isinstance(statement, _DEFINITIONS):
                found += self._look_at(statement)
            elif isinstance(statement, (ast.Import, ast.ImportFrom)):
                self.imports |= set(_imported(statement))
            elif _has_effect(statement):
                found.append(statement)
        tree = ast.Module(body=found, type_ignores=[])
        self.code: CodeType | None = compile(tree, str(module.__file__), "exec", dont_inherit=True) if found else None

    def _look_at(self, definition: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[ast.stmt]:
        """Keeps what may be known somewhere else; returns the statements in a class that do something."""
        value = vars(self._module).get(definition.name)
        is_flow = isinstance(value, type) and issubclass(value, FlowSpec)
        is_decorated = any(not _is_harmless(each) for each in definition.decorator_list)
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        # The values of a flow's own attributes are known: those of its parameters are inputs.
        acting = [
            each
            for each in body
            if not isinstance(each, _DEFINITIONS) and _has_effect(each) and not _gives_name(each, is_flow=is_flow)
        ]
        keywords = isinstance(definition, ast.ClassDef) and bool(definition.keywords)
        is_known = isinstance(value, type) and _is_registered(value)
        acts = any(not isinstance(each, (ast.Assign, ast.AnnAssign)) for each in acting)
        if value is not None and not is_flow and (is_decorated or acts or keywords or is_known):
            self.objects[definition.name] = value
        return acting


def _imported(statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
    names = [each.name for each in statement.names]
    if isinstance(statement, ast.ImportFrom):
        names = [] if statement.level else [statement.module or ""]
    return (name for name in names if name.partition(".")[0] not in sys.stdlib_module_names)


def _gives_name(statement: ast.stmt, *, is_flow: bool) -> bool:
    """True if a statement in a class only makes a value and gives it a name, as for a field or a parameter."""
    if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or not isinstance(statement.value, ast.Call):
        return False
    names = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    is_named = not any(isinstance(each, ast.Name) and each.id == "_" for each in names)
    return is_named and (is_flow or _called(statement.value) in _MAKING)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_registered(kind: type) -> bool:
    """True if a base or the metaclass of a class may have noted that the class exists."""
    bases = [base for base in kind.__mro__[1:] if "__init_subclass__" in vars(base)]
    return any(each.__module__ not in sys.stdlib_module_names for each in (type(kind), *bases))


def _has_effect(statement: ast.stmt) -> bool:
    """True if a statement may do more than give a name to a value that is written out."""
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Pass():
            return False
        case ast.Expr(ast.Constant()):
            return False
        case ast.Assign(targets=targets):
            are_names = all(isinstance(each, (ast.Name, ast.Tuple)) for each in targets)
            return not are_names or any(isinstance(each, _EFFECTS) for each in ast.walk(statement))
        case ast.AnnAssign(target=ast.Name(), value=value):
            return value is not None and any(isinstance(each, _EFFECTS) for each in ast.walk(value))
        case _:
            return True


def _is_harmless(decorator: ast.expr) -> bool:
    found = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(found, ast.Attribute):
        return found.attr in _HARMLESS and isinstance(found.value, ast.Name) and found.value.id in _OF_HARMLESS
    return isinstance(found, ast.Name) and found.id in _HARMLESS
