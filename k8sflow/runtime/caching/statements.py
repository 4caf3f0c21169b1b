"""The statements of a module that may change something that no name leads to: a seed, a setting, a registry."""

from __future__ import annotations

import ast
from types import CodeType, ModuleType
from typing import Any

from k8sflow.flow.spec import FlowSpec

# Decorators that only make something of the function or the class below them.
_HARMLESS = frozenset({
    "abstractmethod", "asynccontextmanager", "cache", "cached_property", "classmethod", "contextmanager", "dataclass",
    "lru_cache", "overload", "property", "singledispatch", "staticmethod", "total_ordering", "unique", "wraps",
})  # fmt: skip
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_EFFECTS = (ast.Call, ast.Await, ast.Subscript, ast.NamedExpr)


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
        for statement in ast.parse(source).body:
            if isinstance(statement, _DEFINITIONS):
                self._look_at(statement)
            elif _has_effect(statement):
                found.append(statement)
        tree = ast.Module(body=found, type_ignores=[])
        self.code: CodeType | None = compile(tree, str(module.__file__), "exec", dont_inherit=True) if found else None

    def _look_at(self, definition: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        """Keeps what a decorator may have put somewhere else, and a class whose body does something."""
        value = vars(self._module).get(definition.name)
        is_flow = isinstance(value, type) and issubclass(value, FlowSpec)
        is_decorated = any(_name(each) not in _HARMLESS for each in definition.decorator_list)
        body = definition.body if isinstance(definition, ast.ClassDef) else []
        acts = any(
            _has_effect(each) for each in body if not isinstance(each, (*_DEFINITIONS, ast.Assign, ast.AnnAssign))
        )
        bases = isinstance(definition, ast.ClassDef) and bool(definition.keywords)
        if value is not None and not is_flow and (is_decorated or acts or bases):
            self.objects[definition.name] = value


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


def _name(decorator: ast.expr) -> str:
    found = decorator.func if isinstance(decorator, ast.Call) else decorator
    return found.attr if isinstance(found, ast.Attribute) else found.id if isinstance(found, ast.Name) else ""
