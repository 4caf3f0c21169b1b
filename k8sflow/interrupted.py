"""Ends a command with 130, and without a traceback, where Ctrl-C arrives while it is still importing.

This is the first thing that k8sflow does: a flow's own imports, and k8sflow's, may take seconds. What is being imported
may drop the KeyboardInterrupt, or make another error of it: native code does, as numpy's.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # built in: a types.py of the user, which signal imports, can't hide it
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType

# As shells report a program that SIGINT ended.
CANCELLED_EXIT_CODE = 130
_COMMANDS = frozenset({"run", "resume"})


class _Interrupt:
    """Raises the KeyboardInterrupt of SIGINT, and records that there was one (signal.signal)."""

    came = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt


_interrupt = _Interrupt()


def came() -> bool:
    """Returns True once Ctrl-C has arrived since the command started to import."""
    return _interrupt.came


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shows an exception as Python does, but for that of Ctrl-C (sys.excepthook)."""
    seen: BaseException | None = error
    while seen is not None:  # Python wraps what is raised in __set_name__
        if isinstance(seen, KeyboardInterrupt) or (isinstance(seen, ImportError) and came()):
            sys.exit(CANCELLED_EXIT_CODE)  # Python exits with the code of a SystemExit that a hook raises
        seen = seen.__cause__
    sys.__excepthook__(kind, error, trace)


if sys.excepthook is sys.__excepthook__ and _COMMANDS.intersection(sys.argv[1:]) and not sys.flags.interactive:
    sys.excepthook = _hook
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        try:  # noqa: SIM105  contextlib is a module that a user's file may hide
            _signal.signal(_signal.SIGINT, _interrupt)
        except ValueError:  # another thread than the main one imports k8sflow
            pass
