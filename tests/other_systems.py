"""Windows and macOS, imitated in a process of their own: what their Python lacks is taken away.

    python tests/other_systems.py win32 flow.py run --with kubernetes

Modules of the standard library and of other projects are imported before that: they have code of their own for each
system, which this one doesn't have.
"""

from __future__ import annotations

import importlib
import os
import runpy
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def _words(text: str) -> list[str]:
    return text.split()


_BEFORE = _words(
    "aiohttp asyncio boto3.session botocore.session boto3.s3.transfer botocore.httpsession click "
    "cloudpickle concurrent.futures.process ctypes getpass http.server kubernetes.client "
    "kubernetes.config logging multiprocessing pathspec rich.console shutil subprocess tempfile "
    "threadpoolctl unittest uuid webbrowser yaml xml.etree.ElementTree email.parser runpy queue zipfile "
    "tarfile platform mimetypes "
)
_MODULES = {
    "win32": {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"},
    "darwin": set[str](),
}
# Names of `os` that Windows has, of those that begin like names that it lacks (docs.python.org/3/library/os.html).
_OS = {
    "win32": _words(
        "EX_OK CLD_EXITED O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_NOCTTY O_SYNC P_ALL P_PID RTLD_NOW SCHED_OTHER "
        "WCOREDUMP WEXITSTATUS WIFEXITED WIFSIGNALED WIFSTOPPED WNOHANG WSTOPSIG WTERMSIG chown chroot confstr "
        "ctermid eventfd fchmod fchown fdatasync fork forkpty fpathconf fstatvfs getegid geteuid getgid getgrouplist "
        "getgroups getloadavg getpgid getpgrp getpriority getrandom getresgid getresuid getsid getuid killpg lchown "
        "lockf login_tty memfd_create mkfifo mknod nice openpty pathconf pidfd_open pipe2 posix_fadvise "
        "posix_fallocate posix_spawn posix_spawnp pread preadv pwrite pwritev readv register_at_fork "
        "sched_getaffinity sched_setaffinity sched_yield sendfile set_blocking setegid seteuid setgid setgroups "
        "setpgid setpgrp setpriority setregid setresgid setresuid setreuid setsid setuid splice statvfs sync sysconf "
        "tcgetpgrp ttyname uname wait wait3 wait4 waitid writev"
    ),
    "darwin": _words(
        "eventfd getrandom getresgid getresuid memfd_create pidfd_open pipe2 posix_fadvise posix_fallocate "
        "sched_getaffinity sched_setaffinity setresgid setresuid splice"
    ),
}
_WINDOWS_SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}
_SIGNAL = {
    "win32": _words(
        "ITIMER_PROF ITIMER_REAL ITIMER_VIRTUAL SIG_BLOCK SIG_SETMASK SIG_UNBLOCK alarm getitimer pause "
        "pidfd_send_signal pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigtimedwait "
        "sigwait sigwaitinfo"
    )
    + [name for name in dir(signal) if name.startswith("SIG") and name[3] != "_" and name not in _WINDOWS_SIGNALS],
    "darwin": ["pidfd_send_signal", "sigtimedwait", "sigwaitinfo", "SIGRTMIN", "SIGRTMAX", "SIGPWR", "SIGPOLL"],
}
_OTHERS: dict[str, list[tuple[ModuleType, str]]] = {
    "win32": [
        *((select, name) for name in ("epoll", "poll", "EPOLLIN", "POLLIN")),
        *((selectors, name) for name in ("EpollSelector", "PollSelector")),
        *((socket, name) for name in ("AF_UNIX", "SCM_RIGHTS", "CMSG_LEN", "CMSG_SPACE", "send_fds", "recv_fds")),
        *((time, name) for name in ("clock_gettime", "CLOCK_BOOTTIME", "pthread_getcpuclockid", "tzset")),
    ],
    "darwin": [
        *((select, name) for name in ("epoll", "EPOLLIN")),
        (selectors, "EpollSelector"),
        (time, "CLOCK_BOOTTIME"),
    ],
}


class _Missing:
    """Refuses the modules that a system doesn't have (sys.meta_path)."""

    def __init__(self, names: set[str]) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def _socketpair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, as Python makes them on Windows: without AF_UNIX."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        return client, server.accept()[0]


def imitate(system: str) -> None:
    """Takes away what Python has not on `win32` or `darwin`."""
    assert not any(name.partition(".")[0] == "k8sflow" for name in sys.modules), "k8sflow is imported already"
    for name in _BEFORE:
        importlib.import_module(name)
    sys.meta_path.insert(0, _Missing(_MODULES[system]))
    for name in _MODULES[system]:
        sys.modules.pop(name, None)
    for module, name in [*((os, n) for n in _OS[system]), *((signal, n) for n in _SIGNAL[system]), *_OTHERS[system]]:
        if hasattr(module, name):
            delattr(module, name)
    selectors.DefaultSelector = selectors.SelectSelector if system == "win32" else selectors.PollSelector  # type: ignore[misc]
    sys.platform = system
    if system == "win32":
        socket.socketpair = _socketpair
    if system == "win32":
        os.environ["USERPROFILE"] = os.environ.pop("HOME", "")
        os.environ.setdefault("USERNAME", "ada")


if __name__ == "__main__":
    imitate(sys.argv[1])
    sys.argv = sys.argv[2:]
    if sys.argv[0] == "-c":
        exec(compile(sys.argv[1], "-c", "exec"), {"__name__": "__main__"})
    else:
        sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
        runpy.run_path(sys.argv[0], run_name="__main__")
