"""The message about a module that a flow's file imports at its top, and that only the environment of a step has."""

from __future__ import annotations

import ast
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from k8sflow.flow.decorators.package_names import bare, normalized

_DECORATORS = frozenset({"pypi", "pypi_base", "conda", "conda_base"})
# Packages whose modules have another name than they themselves.
_PACKAGES = {
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "crypto": "pycryptodome",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "fitz": "pymupdf",
    "git": "gitpython",
    "jwt": "pyjwt",
    "magic": "python-magic",
    "pil": "pillow",
    "pkg-resources": "setuptools",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "umap": "umap-learn",
    "yaml": "pyyaml",
}


def package_of(module: str) -> str:
    """The package that probably has a module, by its normalized name."""
    root = normalized(module.partition(".")[0])
    return _PACKAGES.get(root, root)


class _Explaining:
    """Explains such an import in place of Python's traceback, until the flow's file is imported (sys.excepthook)."""

    def __init__(self) -> None:
        self._before: Callable[..., Any] | None = None
        self._is_over = False

    def begin(self) -> None:
        if not self._is_over and self._before is None:
            self._before = sys.excepthook
            sys.excepthook = self

    def end(self) -> None:
        self._is_over = True
        if sys.excepthook is self and self._before is not None:
            sys.excepthook = self._before

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = message(error)
        if text is None or sys.stderr is None:
            (self._before or sys.__excepthook__)(kind, error, trace)
        else:
            sys.stderr.write(f"{text}\n")


_explaining = _Explaining()


def explain_at_the_end() -> None:
    """Explains such an import, where it ends the import of the flow's file and this process."""
    _explaining.begin()


def is_imported() -> None:
    """Ends that: the flow's file has been imported, or isn't run by this process, and exceptions are Python's again."""
    _explaining.end()


def message(error: BaseException) -> str | None:
    """The explanation of a failed import; None where no step of the file asks for the package.

    Args:
        error: The exception that ended the import of the flow's file.
    """
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if not isinstance(error, ModuleNotFoundError) or not error.name or not file:
        return None
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen ")]
    if not frames or frames[-1].name != "<module>":
        return None
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    package = package_of(error.name)
    owners = [owner for owner, names in _declared(tree).items() if package in names]
    if not owners:
        return None
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
    return (
        f"Error: {where} imports {error.name} at the top of a file, and this Python, which starts the run, doesn't "
        f"have it.\nThe environment of {_listed(owners)} has it, but the file is imported outside of it too.\n"
        "Import it inside of the step that uses it, or install it here too."
    )


def _declared(tree: ast.AST) -> Mapping[str, set[str]]:
    """The packages that decorators name in so many words, by what has these decorators."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        names = {normalized(bare(name)) for call in node.decorator_list for name in _packages(call)}
        if names:
            owner = f"step {node.name}" if isinstance(node, ast.FunctionDef) else "every step"
            found.setdefault(owner, set()).update(names)
    return found


def _packages(call: ast.expr) -> Iterator[str]:
    match call:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), keywords=keywords) if name in _DECORATORS:
            for keyword in keywords:
                if keyword.arg in {"packages", "libraries"} and isinstance(keyword.value, ast.Dict):
                    for key in keyword.value.keys:
                        if isinstance(key, ast.Constant) and isinstance(key.value, str):
                            yield key.value


def _listed(owners: Sequence[str]) -> str:
    return " and ".join(owners)
