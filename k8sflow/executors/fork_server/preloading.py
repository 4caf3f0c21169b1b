"""Imports libraries in a fork server, and finds out which of them a forked process can't use.

Anything that a library starts when it is imported (a thread, a connection, a file that it continues to read) is missing
or shared in a process that was forked later. Such a library is imported by each task itself.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.machinery
import os
import random
import re
import secrets
import signal
import socket
import stat
import sys
import threading
import uuid
import warnings
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, cast

from k8sflow.executors.fork_server.preload_plan import Ignore, Import, PlanStep, SetVariable, is_library_file

_DESCRIPTORS = Path("/dev/fd")
_THREADS = Path("/proc/self/task")
_MEMORY = Path("/proc/self/maps")
# Threads that look after themselves at a fork: jemalloc's, which pyarrow brings (background_thread.c, pthread_atfork).
_FORKED = frozenset({"jemalloc_bg_thd"})
_generators: list[random.Random] = []
_numpy_generators: list[Any] = []
_ids: list[uuid.UUID] = []
_askers: list[str] = []  # the packages that asked for the process id


def preload(steps: Sequence[PlanStep], left_out: Collection[str]) -> dict[str, str]:
    """Imports libraries as planned.

    Args:
        steps: What to do.
        left_out: Libraries that are not to be imported.

    Returns:
        Those that a forked process can't use, and why: none of them may be here then.
    """
    bad: dict[str, str] = {}
    undo: list[tuple[str, str | None, str]] = []
    ignores = False
    with _watched_exit_hooks() as hooks, _watched_generators(), _Blocked(left_out) as blocked:
        for step in steps:
            match step:
                case SetVariable(name, value, is_default):
                    if not (is_default and name in os.environ):
                        undo.append((name, os.environ.get(name), value))
                        os.environ[name] = value
                case Ignore():
                    ignores = True
                case Import(module, file):
                    root = module.partition(".")[0]
                    if (
                        root not in left_out
                        and root not in bad
                        and (why := _import(module, file, hooks, blocked, ignores=ignores))
                    ):
                        bad[root] = why
    for name, before, value in reversed(undo):
        if os.environ.get(name) == value:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before
    return bad


def _import(module: str, file: str | None, hooks: list[Any], blocked: _Blocked, *, ignores: bool) -> str:
    """Imports a module; why that was wrong, or an empty text."""
    if module in sys.modules:
        return ""
    before = _State(hooks)
    blocked.asked_for = ""
    try:
        loaded = importlib.import_module(module)
    except BaseException as error:  # noqa: BLE001  the boundary to the library's code: the task's own import will show it
        what = f"its import fails where nothing else runs ({type(error).__name__})"
        return f"it imports {blocked.asked_for}" if blocked.asked_for else what
    if blocked.asked_for:
        return f"it imports {blocked.asked_for}"
    if getattr(loaded, "__file__", None) != file:
        return "it is found in another place where nothing else runs"
    return before.changed(hooks, ignores=ignores)


class _Blocked:
    """Keeps libraries from being imported, and notes which one was asked for.

    Args:
        roots: The libraries.
    """

    def __init__(self, roots: Collection[str]) -> None:
        self._roots = roots
        self.asked_for = ""

    def __enter__(self) -> _Blocked:  # noqa: PYI034  typing has no Self in 3.10
        sys.meta_path.insert(0, cast("Any", self))
        return self

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(cast("Any", self))

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Finds such a library, as the import system asks for it (importlib.abc.MetaPathFinder): many only look."""
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name in self._roots else None
        if spec is not None:
            spec.loader = cast("Any", self)
        return spec

    def create_module(self, _spec: importlib.machinery.ModuleSpec) -> None:
        """Lets Python make the module (importlib.abc.Loader)."""

    def exec_module(self, module: ModuleType) -> None:
        """Refuses to load a module (importlib.abc.Loader).

        Raises:
            ModuleNotFoundError: Always.
        """
        self.asked_for = module.__name__
        raise ModuleNotFoundError(f"{module.__name__} is not imported ahead", name=module.__name__)


class _State:
    """Everything that a fork can't keep, before an import."""

    def __init__(self, hooks: list[Any]) -> None:
        self._python_threads = threading.active_count()
        self._threads = _count_threads()
        self._descriptors = _descriptors()
        self._handlers = _handlers()
        self._has_children = _has_children()
        self._shared_memory = _shared_memory()
        self._modules = set(sys.modules)
        self._hooks = len(hooks)
        self._ids = len(_ids)
        self._askers = len(_askers)
        self._filters = list(warnings.filters)
        self._finalizers = _finalizers()

    def changed(self, hooks: list[Any], *, ignores: bool) -> str:  # noqa: PLR0911  one for each reason
        """Why a fork can't keep what is new since then, or an empty text."""
        if own := _own_module(self._modules):
            return f"it imports {own}, which is not an installed library"
        if what := self._started():
            return f"it {what} when it is imported"
        if _handlers() != self._handlers:
            return "it handles signals when it is imported"
        if any(map(_is_a_file, hooks[self._hooks :])) or self._has_folder():
            return "it makes temporary files when it is imported"
        if len(_ids) > self._ids:
            return "it makes a unique id when it is imported"
        if any(map(_keeps_process_id, set(_askers[self._askers :]) - sys.stdlib_module_names)):
            return "it keeps the process id when it is imported"
        new = [found for found in warnings.filters if found not in self._filters]
        if ignores and any(found[0] != "ignore" for found in new):
            return "it shows warnings that the flow ignores"
        return ""

    def _started(self) -> str:
        """A description of what runs or is open since then; empty if nothing is."""
        if threading.active_count() > self._python_threads:
            return "starts threads"
        if _count_threads() > self._threads and _count_threads_after_fork() > self._threads:
            return "starts native threads"
        for descriptor in _descriptors() - self._descriptors:
            if what := _shared(descriptor):
                return f"opens {what}"
        if _shared_memory() > self._shared_memory:
            return "makes memory that processes share"
        if _has_children() and not self._has_children:
            return "starts a process"
        return ""

    def _has_folder(self) -> bool:
        known = [found.peek() for found in _finalizers() - self._finalizers]
        return any(_is_a_file(call[2]) for call in known if call is not None)


def _own_module(known: Collection[str]) -> str:
    """The name of a module of the user's that is new, or an empty text."""
    for name in [name for name in sys.modules if name not in known]:
        file = getattr(sys.modules[name], "__file__", None)
        if isinstance(file, str) and not is_library_file(file) and os.path.isfile(file):  # noqa: PTH113  for each module
            return name
    return ""


def _keeps_process_id(package: str) -> bool:
    """True if a module of a package has this process's id in a variable, or in an object that a variable names."""
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == package]
    return any(
        _holds_process_id(value)
        for module in modules
        for name, value in list(vars(module).items())
        if not (name.startswith("__") and name.endswith("__"))
    )


def _holds_process_id(value: object, *, is_inner: bool = False) -> bool:
    if type(value) is int:
        return value == os.getpid()
    if type(value) is str:
        # Not as a part of another number, or of a version: processes of a container have small ids.
        return re.search(rf"(?<!\d)(?<!\d\.){os.getpid()}(?!\d)(?!\.\d)", value) is not None
    if is_inner or isinstance(value, (ModuleType, FunctionType)):
        return False
    members: list[object] = []
    with contextlib.suppress(AttributeError):
        members += object.__getattribute__(value, "__dict__").values()  # a lazy object's own, without loading it
    if type(value) in {list, tuple, set}:
        members += cast("Any", value)
    elif type(value) is dict:
        members += value.values()
    return any(_holds_process_id(member, is_inner=True) for member in members)


def _finalizers() -> set[Any]:
    return set(weakref.finalize._registry)  # type: ignore[attr-defined]  # noqa: SLF001  the only list of them


@contextlib.contextmanager
def _watched_exit_hooks() -> Iterator[list[Any]]:
    """A list that gets the arguments of the functions that are to be called at exit."""
    hooks: list[Any] = []
    plain = atexit.register

    def register(function: Callable[..., Any], *arguments: Any, **named: Any) -> Callable[..., Any]:
        hooks.append((*arguments, *named.values(), getattr(function, "__self__", None)))
        return plain(function, *arguments, **named)

    atexit.register = register  # type: ignore[assignment]
    try:
        yield hooks
    finally:
        atexit.register = plain


@contextlib.contextmanager
def _watched_generators() -> Iterator[None]:
    """Notes the random generators that the system seeds, the unique ids, and the process ids that libraries get."""
    plain = random.Random.seed
    plain_id = uuid.uuid4
    plain_bits = secrets.randbits
    plain_pid = os.getpid
    drawn: set[int] = set()
    watching = True  # a library may keep these functions for good

    def seed(self: random.Random, a: Any = None, *further: Any, **named: Any) -> None:
        plain(self, a, *further, **named)
        if a is None and watching:
            _generators.append(self)

    def randbits(k: int) -> int:
        bits = plain_bits(k)
        drawn.add(bits)
        return bits

    def uuid4() -> uuid.UUID:
        if not watching:
            return plain_id()
        _ids.append(plain_id())
        return _ids[-1]

    def getpid() -> int:
        if watching:
            _askers.append(str(sys._getframe(1).f_globals.get("__name__")).partition(".")[0])  # noqa: SLF001
        return plain_pid()

    os.getpid = getpid
    random.Random.seed = seed  # type: ignore[method-assign]
    uuid.uuid4 = uuid4
    secrets.randbits = randbits  # numpy seeds its generators with it (numpy/random/bit_generator.pyx)
    try:
        yield
    finally:
        watching = False
        random.Random.seed = plain  # type: ignore[method-assign]
        secrets.randbits = plain_bits
        os.getpid = plain_pid
        uuid.uuid4 = plain_id
        _numpy_generators.extend(_numpy_generators_seeded_with(drawn))


def _numpy_generators_seeded_with(entropy: Collection[int]) -> Iterator[Any]:
    """The generators of numpy that were seeded with one of these numbers, and not by the library that made them."""
    module = sys.modules.get("numpy.random")
    if module is None or not entropy:
        return
    for found in gc.get_objects():
        if isinstance(found, module.BitGenerator) and getattr(found._seed_seq, "entropy", None) in entropy:  # noqa: SLF001  it has no other name for numpy 1
            yield found


def reseed() -> None:
    """Seeds the generators of the libraries again, as their import in a new interpreter would."""
    for generator in _generators:
        generator.seed()
    for bits in _numpy_generators:
        bits.state = type(bits)().state


def _is_a_file(arguments: Sequence[Any]) -> bool:
    """True if one of the arguments names a file or folder that is there."""
    found = [argument for argument in arguments if isinstance(argument, str | os.PathLike) and str(argument)]
    return any(os.path.lexists(argument) for argument in found)


def _shared_memory() -> int:
    """The number of pieces of memory that a fork would share and write to, as multiprocessing's locks are."""
    with contextlib.suppress(OSError):
        return sum(line.split()[1].startswith("rw-s") for line in _MEMORY.read_text("utf-8", "replace").splitlines())
    return 0


def _count_threads() -> int:
    try:
        threads = list(_THREADS.iterdir())
    except OSError:
        return threading.active_count()
    return sum(_name(thread) not in _FORKED for thread in threads)


def _name(thread: Path) -> str:
    with contextlib.suppress(OSError):  # it has just ended
        return (thread / "comm").read_text().strip()
    return ""


def _count_threads_after_fork() -> int:
    """The threads that remain after a fork: some libraries end theirs for it, until they are used again."""
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return _count_threads()


def _descriptors() -> set[int]:
    try:
        found = {int(entry.name) for entry in _DESCRIPTORS.iterdir()}
    except OSError:
        return set()
    return {descriptor for descriptor in found if _is_open(descriptor)}  # that of the listing no longer is


def _is_open(descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(descriptor)
        return True
    return False


def _shared(descriptor: int) -> str:
    """A description of what processes would share by a descriptor; empty if nothing."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as found:
            found.getpeername()
            return "a connection"
        return "a socket"
    if stat.S_ISCHR(mode) or stat.S_ISDIR(mode):
        return ""
    return "a file" if stat.S_ISREG(mode) else "a channel between processes"


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _handlers() -> list[Any]:
    return [signal.getsignal(number) for number in signal.valid_signals()]
