"""The script that this process was started with, and how a new interpreter would be started with it.

Python can start a flow in many ways: as a script, with ``-m``, under a profiler or a debugger, by IPython's ``%run``,
by ``exec`` of its text. A task needs the same in all of them: the file, what ``sys.argv`` holds, and the
environment and the folder from before the file changed them.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from k8sflow import metaflow_modules, started
from k8sflow.config import DATASTORE
from k8sflow.errors import FlowDefinitionError


def _first_environment() -> dict[str, str]:
    """The environment that this process was started with, as Linux keeps it (proc(5)).

    A program that changes its title (setproctitle) may have written over that.
    """
    with contextlib.suppress(OSError):
        entries = Path("/proc/self/environ").read_bytes().rstrip(b"\0").split(b"\0")
        if all(b"=" in entry for entry in entries):
            pairs = [os.fsdecode(entry).partition("=") for entry in entries]
            return {name: value for name, _, value in pairs if name}
    return dict(os.environ)


# Taken when the flow's file imports FlowSpec, which is before nearly anything that it does.
_FIRST_ENVIRONMENT = _first_environment()


@dataclass(frozen=True)
class Script:
    """The file that a flow is started with.

    Args:
        file: Its absolute path; symbolic links are not resolved, as in ``__file__``.
        module: Its dotted name where it was started by ``python -m``; None for a script.
    """

    file: Path
    module: str | None

    @property
    def folder(self) -> Path:
        """The folder that ``sys.path`` starts with: that of the script, or the one that holds a module's package."""
        resolved = self.file.resolve()
        return resolved.parents[self.module.count(".") if self.module else 0]


@dataclass(frozen=True)
class Launch:
    """The state in which an interpreter starts.

    Args:
        script: The file to run as ``__main__``.
        argv: What ``sys.argv`` holds before the command.
        environment: The environment variables.
        folder: The working folder; None where it no longer exists.
        path: ``sys.path``; None for the one that a new interpreter has.
    """

    script: Script
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str | None
    path: tuple[str, ...] | None


def script_of(flow: type) -> Script:
    """The script to start for a flow: the one that was started if it is in the flow's folder or above, else the flow's.

    A script may import the flow from a module beside it. A notebook, a profiler and pytest are started too, but are
    not the flow's code.

    Raises:
        FlowDefinitionError: The flow is not in a file.
    """
    flows_file = _file_of(flow)
    for namespace in _candidates(flow):
        file = namespace.get("__file__")
        if not isinstance(file, str) or not file:
            continue
        spec = namespace.get("__spec__")
        module = getattr(spec, "name", None) if namespace.get("__name__") == "__main__" else None
        script = Script(Path(os.path.abspath(Path(started.FOLDER or os.sep, file))), module)  # noqa: PTH100  no links resolved
        if (
            script.file.is_file()
            and len(script.file.resolve().parents) > (module or "").count(".")
            and (script.folder in flows_file.resolve().parents)
        ):
            return script
    return Script(flows_file, None)


def launch_of(flow: type) -> Launch:
    """The way to start a new interpreter with a flow, whatever started this one.

    Raises:
        FlowDefinitionError: The flow is not in a file.
    """
    script = script_of(flow)
    typed = _typed_arguments(script)
    if typed is None:  # something else runs the file: the file expects what it has set up
        argv = (sys.argv[0] if sys.argv else str(script.file),)
        return Launch(script, argv, dict(os.environ), started.working_folder(), tuple(sys.path))
    rest = sys.argv[1:]
    removed = typed[: len(typed) - len(rest)] if rest and typed[-len(rest) :] == rest else []
    first = sys.argv[0] if sys.argv else str(script.file)
    return Launch(script, (first, *removed), _environment(), started.FOLDER, None)


def given_datastore() -> str | None:
    """The store that ``--datastore`` named on this process's command line; None if the environment or nothing did."""
    found = os.environ.get(DATASTORE)
    return None if found == _FIRST_ENVIRONMENT.get(DATASTORE) else found


def _environment() -> Mapping[str, str]:
    """The first environment with the store of this command, in which tasks look for runs too."""
    datastore = given_datastore()
    changes = {} if datastore is None else {DATASTORE: datastore}
    if metaflow_modules.is_installed():
        changes[metaflow_modules.VARIABLE] = "1"
    return {**_FIRST_ENVIRONMENT, **changes}


def beside(flow: type | None, path: Path) -> Path:
    """A file of the working folder, or else the one beside a flow's file, or beside the file that this is a link to.

    Args:
        flow: The flow's class, where it is known.
        path: The file; it is returned as it is where there is none in any of these folders.
    """
    file = getattr(sys.modules.get(getattr(flow, "__module__", "")), "__file__", None)
    if path.exists() or not file:
        return path
    flows_file = Path(started.FOLDER or os.sep, file)
    found = [folder / path for folder in (flows_file.parent, flows_file.resolve().parent)]
    return next((candidate for candidate in found if candidate.exists()), path)


def _file_of(flow: type) -> Path:
    """The file in which a flow's class is written."""
    code_file = next((function.__code__.co_filename for function in _functions(flow)), "")
    module = sys.modules.get(flow.__module__)
    for file in (code_file, getattr(module, "__file__", None)):
        if file and Path(started.FOLDER or os.sep, file).is_file():
            return Path(os.path.abspath(Path(started.FOLDER or os.sep, file)))  # noqa: PTH100  no links resolved
    cause, advice = _no_file(code_file or getattr(module, "__file__", None) or "", f"{flow.__name__.lower()}.py")
    raise FlowDefinitionError(
        f"the flow {flow.__name__} is in no file that a task could run.",
        cause=f"{cause} Each task is a new Python that runs the flow's file.",
        advice=advice,
    )


def _no_file(named: str, example: str) -> tuple[str, str]:
    """The cause and the advice for a flow whose code came from somewhere other than a file."""
    save = f"Save the flow in a file and run that: python {example} run"
    if named == "<stdin>":
        return "Python read the flow from its standard input, which only one process can do.", save
    if named == "<string>":
        return "The flow was given as text, to python -c or exec().", save
    path = Path(started.FOLDER or os.sep, named)
    if archive := next((parent for parent in path.parents if parent.is_file()), None):
        return (
            f"It is packed in the archive {archive}, which k8sflow can't run tasks from.",
            f"Unpack it and run the file: python -m zipfile -e {archive.name} app; python app/{path.name} run",
        )
    return "The class was typed in, or its file was deleted.", save


def _functions(flow: type) -> Iterator[FunctionType]:
    """The functions that are written in a class."""
    for member in vars(flow).values():
        function = inspect.unwrap(member) if callable(member) else None
        if isinstance(function, FunctionType) and function.__module__ == flow.__module__:
            yield function


def _candidates(flow: type) -> Iterator[Mapping[str, Any]]:
    if flow.__module__ == "__main__":
        yield from (function.__globals__ for function in _functions(flow))
    yield vars(sys.modules["__main__"])
    yield {"__file__": sys.argv[0] if sys.argv else ""}


def _typed_arguments(script: Script) -> list[str] | None:
    """The words after the script on the command line; None where the interpreter wasn't started with it."""
    main = getattr(sys.modules["__main__"], "__file__", None)
    if not main or Path(started.FOLDER or os.sep, main).resolve() != script.file.resolve():
        return None
    words: Sequence[str] = sys.orig_argv
    for position in range(len(words) - 1, 0, -1):
        is_module = script.module is not None and words[position - 1] == "-m" and _is_module(words[position], script)
        if is_module or Path(started.FOLDER or os.sep, words[position]).resolve() == script.file.resolve():
            return list(words[position + 1 :])
    return None


def _is_module(word: str, script: Script) -> bool:
    return script.module in {word, f"{word}.__main__"}
