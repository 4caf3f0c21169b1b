"""Where the classes of a run's artifacts come from.

A class that stands in the flow's own file was pickled as ``__main__.Point``, since the file ran as a program. In a
reader's process ``__main__`` is something else, so the flow's file is looked for: among the modules that are loaded,
where it was when the run was started, and in the run's code package.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from k8sflow.client.code import Code
from k8sflow.errors import ArtifactError, K8sflowError
from k8sflow.flow.spec import READ_MODULE, FlowSpec
from k8sflow.storage.encoding import Find
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore


def finder(run_store: RunStore, record: RunRecord) -> Find:
    """Looks up what a run's artifacts were made with."""

    def find(module: str, name: str, ordinary: Callable[[str, str], Any]) -> Any:
        if module == "__main__":
            found: Any = _flow_module(run_store, record, name)
            for part in name.split("."):
                found = getattr(found, part)
            return found
        try:
            return ordinary(module, name)
        except ModuleNotFoundError:
            for folder in _folders(run_store, record):
                if _may_have(folder, module):
                    sys.path.append(str(folder))
                    _added.add(folder)
                    importlib.invalidate_caches()
                    return ordinary(module, name)
            raise

    return find


def _flow_module(run_store: RunStore, record: RunRecord, name: str) -> ModuleType:
    """The module of a run's flow, which has such a class.

    Raises:
        ArtifactError: It is not here.
    """
    first = name.partition(".")[0]
    problems = []
    for module in _loaded(record):
        if hasattr(module, first):
            return module
        problems.append(f"{module.__file__} has no {first} any more.")
    for folder in _folders(run_store, record):
        try:
            module = _read(folder / record.file)
        except K8sflowError as error:
            problems.append(str(error))
            continue
        if hasattr(module, first):
            return module
        problems.append(f"{folder / record.file} has no {first} any more.")
    if not problems:
        problems = [f"The run was started from {record.source or record.file}, which is not here, and has no package."]
    raise ArtifactError(
        f"{first} stands in the flow's own file, {record.file}, which can't be used here.",
        cause="\n".join(dict.fromkeys(problems)),
        advice=f"Read it where {record.file} is, or import that file before; or let {first} stand in a module of "
        "its own, which is installed here.",
    )


def _loaded(record: RunRecord) -> Iterator[ModuleType]:
    """The modules that are the flow's file already, the program itself first."""
    for module in (sys.modules["__main__"], *list(sys.modules.values())):
        file = getattr(module, "__file__", None)
        if not file or Path(file).name != record.file:
            continue
        flow = getattr(module, record.flow, None)
        is_flow = isinstance(flow, type) and issubclass(flow, FlowSpec)
        if is_flow and (module.__name__ == "__main__" or str(Path(file).resolve()) == record.source):
            yield module


def _folders(run_store: RunStore, record: RunRecord) -> Iterator[Path]:
    """The folders with the flow's file: the one from which the run was started, and that of the code package."""
    if record.source and Path(record.source).is_file():
        yield Path(record.source).parent
    if record.package is not None:
        yield _unpacked(Code(run_store, record))


def _may_have(folder: Path, module: str) -> bool:
    top = module.partition(".")[0]
    return (folder / top).is_dir() or (folder / f"{top}.py").is_file()


_unpacked_folders: dict[str, Path] = {}
# The folders in which flows' files were looked for.
_added: set[Path] = set()


def _unpacked(code: Code) -> Path:
    """A folder with the code package, until this process ends."""
    if code.sha not in _unpacked_folders:
        folder = Path(tempfile.mkdtemp(prefix="k8sflow-code-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        code.extract(folder)
        _unpacked_folders[code.sha] = folder
    return _unpacked_folders[code.sha]


@lru_cache
def _read(file: Path) -> ModuleType:
    """A flow's file as a module under a name of ours; making an instance of the flow there runs nothing.

    Raises:
        ArtifactError: It can't be imported.
    """
    name = f"{READ_MODULE}{file.stem}_{abs(hash(str(file)))}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ArtifactError(f"{file} is no Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _added.add(file.parent)
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the boundary to the user's code
        del sys.modules[name]
        raise ArtifactError(f"{file} can't be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(file.parent))
    return module


def dumps(value: Any) -> bytes:
    """A pickle that any program can load: classes of the flows' own files and folders travel with it."""
    import cloudpickle  # noqa: PLC0415  needed here alone

    mine = [module for module in list(sys.modules.values()) if _is_read(module)]
    for module in mine:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(value))
    finally:
        for module in mine:
            cloudpickle.unregister_pickle_by_value(module)


def _is_read(module: ModuleType) -> bool:
    """Whether a module was found where a flow's file is, or is one."""
    file = getattr(module, "__file__", None)
    return bool(file) and Path(str(file)).parent in _added
