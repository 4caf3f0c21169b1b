"""Ends a command with 130, and without a traceback, where Ctrl-C arrives while it is still importing.

This is the first thing that k8sflow does: a flow's own imports, and k8sflow's, may take seconds.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

# As shells report a program that SIGINT ended.
CANCELLED_EXIT_CODE = 130
_COMMANDS = frozenset({"run", "resume"})


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shows an exception as Python does, but for that of Ctrl-C (sys.excepthook)."""
    seen: BaseException | None = error
    while seen is not None:  # Python wraps what is raised in __set_name__
        if isinstance(seen, KeyboardInterrupt):
            sys.exit(CANCELLED_EXIT_CODE)  # Python exits with the code of a SystemExit that a hook raises
        seen = seen.__cause__
    sys.__excepthook__(kind, error, trace)


if sys.excepthook is sys.__excepthook__ and _COMMANDS.intersection(sys.argv[1:]) and not sys.flags.interactive:
    sys.excepthook = _hook
