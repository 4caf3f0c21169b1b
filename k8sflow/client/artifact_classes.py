"""Lookup of the classes of a run's artifacts: in the run's own code, never in another flow's.

A class in the flow's own file was pickled as ``__main__.Point``, because the file ran as a program, and one in a module
beside it as ``models.Model``. In a reader's process, ``__main__`` is another module, and ``models`` may be. So the
run's code folder is searched for: at its location at the start of the run, beside the store, in the reader's folders,
and in the run's code package.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from types import FunctionType, ModuleType
from typing import Any

from k8sflow import metaflow_modules
from k8sflow.client.code import Code
from k8sflow.client.codespace import CodeSpace, is_installed, shared_modules, space_of
from k8sflow.errors import ArtifactError, K8sflowError
from k8sflow.flow.current import current
from k8sflow.flow.spec import READ_MODULE, FlowSpec
from k8sflow.storage.encoding import Find
from k8sflow.storage.package import file_hash
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore

_Ordinary = Callable[[str, str], Any]


def finder(run_store: RunStore, record: RunRecord) -> Find:
    """A function that looks up the classes and functions in a run's artifacts."""
    if record.as_metaflow:  # the modules with the classes import from metaflow
        metaflow_modules.stand_in()
    return _Finder(run_store, record).find


class _Finder:
    """Looks up the classes of one run.

    Args:
        run_store: The run.
        record: The run's record.
    """

    def __init__(self, run_store: RunStore, record: RunRecord) -> None:
        self._run_store = run_store
        self._record = record
        self._searched = _folders(run_store, record)
        self._found: list[Path] = []

    def find(self, module: str, name: str, ordinary: _Ordinary) -> Any:
        """A class or function.

        Args:
            module: Its module in the process that pickled it.
            name: Its name there, with dots.
            ordinary: Looks it up in this process.

        Raises:
            ArtifactError: It is in the run's code, which is not available.
        """
        if module == "__main__":
            return _member(self._program(name), name)
        if module.startswith("cloudpickle.") and name in _REBUILDERS:
            space = next(self._spaces(), None)
            return ordinary(module, name) if space is None else partial(_REBUILDERS[name], space)
        if not self._may_be_of_the_flow(module):
            try:
                return ordinary(module, name)
            except (ModuleNotFoundError, AttributeError):
                if (space := self._space_with(module)) is None:
                    raise
                return _member(space.module(module), name)
        if (space := self._space_with(module)) is not None:
            return _member(space.module(module), name)
        if module.partition(".")[0] in (self._record.modules or ()) and not is_installed(module):
            raise self._missing(module, name)
        return ordinary(module, name)

    def _may_be_of_the_flow(self, module: str) -> bool:
        """True if a module may be in the flow's folder; searching there may fetch the code package."""
        if self._record.modules is None:
            return not is_installed(module)
        return module.partition(".")[0] in self._record.modules

    def _space_with(self, module: str) -> CodeSpace | None:
        return next((space for space in self._spaces() if space.has(module)), None)

    def _spaces(self) -> Iterator[CodeSpace]:
        return map(space_of, self._folders())

    def _folders(self) -> Iterator[Path]:
        """The code folders, each searched for on demand."""
        yield from self._found
        for folder in self._searched:
            self._found.append(folder)
            yield folder

    def _program(self, name: str) -> ModuleType:
        """The module of the run's program, which defines a class.

        Raises:
            ArtifactError: It is not available.
        """
        first, record = name.partition(".")[0], self._record
        problems = []
        for module in self._programs():
            if isinstance(module, K8sflowError):
                problems.append(str(module))
            elif hasattr(module, first):
                return module
            else:
                problems.append(f"{module.__file__} has no {first} any more.")
        if not problems:
            where = record.source or record.file
            problems = [f"The run was started from {where}, which does not exist here, and has no code package."]
        raise ArtifactError(
            f"{first} is a class in the flow's own file, {record.file}, which can't be used here.",
            cause="\n".join(dict.fromkeys(problems)),
            advice=f"Read it in the folder of {record.file}, or import that file first; or move {first} to a module of "
            "its own, and install that here.",
        )

    def _programs(self) -> Iterator[ModuleType | K8sflowError]:
        """The modules that may be the run's program, imported ones first."""
        record = self._record
        main = sys.modules["__main__"]
        if _has_flow(main, record) and (current.flow_name, current.run_id) == (record.flow, record.run):
            yield main
        if record.source and not _changed_files(_folder_of(Path(record.source), record), record):
            yield from _imported(record.source, record)
        for folder in self._folders():
            yield from _imported(str(folder / record.file), record)
            try:
                yield space_of(folder).program(record.file)
            except K8sflowError as error:
                yield error

    def _missing(self, module: str, name: str) -> ArtifactError:
        record = self._record
        return ArtifactError(
            f"{module}.{name} is in the code of {self._run_store.pathspec}, which is not available here.",
            cause=f"The run was started from {record.source or record.file}, and has no code package. This process may "
            "have another module of that name.",
            advice=f"Read it in the folder of {record.file}.",
        )


def _member(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _has_flow(module: ModuleType, record: RunRecord) -> bool:
    flow = getattr(module, record.flow, None)
    return isinstance(flow, type) and issubclass(flow, FlowSpec)


def _imported(file: str, record: RunRecord) -> Iterator[ModuleType]:
    """The modules that are a flow's file, the program itself first."""
    for module in (sys.modules["__main__"], *list(sys.modules.values())):
        path = getattr(module, "__file__", None)
        if not path or Path(path).name != PurePosixPath(record.file).name or str(Path(path).resolve()) != file:
            continue
        if _has_flow(module, record) and not module.__name__.startswith(READ_MODULE):
            yield module


def _folders(run_store: RunStore, record: RunRecord) -> Iterator[Path]:
    """The folders from which the run's modules can be imported.

    First those with exactly the run's code: the original folder, folders to which the project may have been moved or
    that a container mounts under another name, and the code package. Without a package, folders with changed code
    follow, with a warning. They may contain another project, so their flow must have the run's steps.
    """
    files = list(dict.fromkeys(_guesses(run_store, record)))
    if record.source and _names(Path(record.source), [record.flow]):
        files.insert(0, Path(record.source))
    changed = {file: _changed_files(_folder_of(file, record), record) for file in dict.fromkeys(files)}
    if record.package is not None:
        package = _unpacked(Code(run_store, record))
        code = (package / record.file).read_bytes()
        is_original = {file: file.read_bytes() == code for file in changed} if not record.code_hashes else {}
        yield from (_folder_of(file, record) for file in changed if is_original.get(file, not changed[file]))
        yield package
        return
    yield from (_folder_of(file, record) for file in changed if not changed[file])
    for file, differences in changed.items():
        if differences and _names(file, record.steps):
            warnings.warn(
                f"{_folder_of(file, record)} has changed since {run_store.pathspec} was started: "
                f"{', '.join(differences)}. The classes of its artifacts are taken from the current code.",
                stacklevel=2,
            )
            yield _folder_of(file, record)


def _changed_files(folder: Path, record: RunRecord) -> list[str]:
    """The files of a run's code that are missing from a folder, or different."""
    return [file for file, found in record.code_hashes.items() if file_hash(folder / file) != found]


def _folder_of(file: Path, record: RunRecord) -> Path:
    """The folder from which a flow's modules are imported, given the flow's file."""
    return file.parents[len(PurePosixPath(record.file).parts) - 1]


def _guesses(run_store: RunStore, record: RunRecord) -> Iterator[Path]:
    """Files that may be the flow's, which is not in its original folder any more."""
    parts = Path(record.source).parts[1:] if record.source else PurePosixPath(record.file).parts
    shortest = len(PurePosixPath(record.file).parts)
    candidates = []
    if (folder := run_store.store.folder) is not None:
        candidates = [folder.parent.joinpath(*parts[start:]) for start in range(len(parts) - shortest + 1)]
    candidates += [Path(entry or ".").absolute() / record.file for entry in (*sys.path, ".")]
    yield from (path.resolve() for path in candidates if _names(path, [record.flow, *record.steps]))


def _names(file: Path, words: Sequence[str]) -> bool:
    """True if a file exists and contains the names of a flow and its steps."""
    try:
        text = file.read_bytes() if file.is_file() else None
    except OSError:
        return False
    return text is not None and all(word.encode() in text for word in words)


_unpacked_folders: dict[str, Path] = {}
_unpacking = threading.Lock()


def _unpacked(code: Code) -> Path:
    """A folder with the unpacked code package, which is deleted when this process ends."""
    with _unpacking:
        if code.sha not in _unpacked_folders:
            folder = Path(tempfile.mkdtemp(prefix="k8sflow-code-")).resolve()
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            code.extract(folder)
            _unpacked_folders[code.sha] = folder
        return _unpacked_folders[code.sha]


def _make_function(space: CodeSpace, code: Any, names: dict[str, Any], *rest: Any) -> FunctionType:
    """Rebuilds a function for cloudpickle; the function's imports use the run's code."""
    names["__builtins__"] = space.builtins
    return FunctionType(code, names, *rest)


def _subimport(space: CodeSpace, name: str) -> ModuleType:
    """Imports for cloudpickle a module that a pickled function uses."""
    return space.import_module(name)


_REBUILDERS: dict[str, Callable[..., Any]] = {"_make_function": _make_function, "subimport": _subimport}


def dumps(value: Any) -> bytes:
    """A pickle that any program can load: classes of the flows' own files and folders travel with it."""
    import cloudpickle  # noqa: PLC0415  needed only here

    shared = shared_modules()
    for module in shared:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(value))
    finally:
        for module in shared:
            cloudpickle.unregister_pickle_by_value(module)
