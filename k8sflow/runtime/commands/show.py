"""``run --ui``: the page of a run, from a server that is a process of its own and outlives the command."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

from k8sflow.errors import ConfigurationError
from k8sflow.runtime.progress.console import Console, Tone
from k8sflow.runtime.request import RunRequest, code_folder
from k8sflow.runtime.session import Session

_NEEDED = ("jinja2", "starlette", "uvicorn")
# It starts in the flow's folder, whose settings hold; the files there must not be taken for modules of Python.
_START = "import sys; sys.path[:] = filter(None, sys.path); from k8sflow.cli.main import main; main()"


def check_packages(request: RunRequest) -> None:
    """Refuses ``--ui`` where the page can't be served, before there is a run.

    Raises:
        ConfigurationError: The packages of k8sflow[ui] are missing.
    """
    if not request.has_page:
        return
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ConfigurationError(
            f"--ui needs the packages {' and '.join(missing)}, which are not installed.",
            advice="pip install 'k8sflow[ui]'",
        )


def show(request: RunRequest, session: Session, console: Console) -> None:
    """Opens the page of a run whose record was just written, and says its address.

    The server ends when the run has ended and no page has asked for anything for a minute. A run whose page can't be
    served continues without it.
    """
    words = ["ui", session.pathspec, "--datastore", session.store.url, "--until-end"]
    server = subprocess.Popen(
        [sys.executable, "-c", _START, *words],
        cwd=code_folder(request.definition.flow),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C cancels the run, whose end is then to be seen
    )
    assert server.stdout is not None
    with server.stdout:
        said = server.stdout.read().decode("utf-8", "replace").strip()  # it closes its output when it serves
    if server.poll() is None:
        console.say(f"The run in the browser: {said}", is_aside=True)
    else:
        console.say(f"Warning: the run can't be shown in the browser. {said}", Tone.NOTICE, is_aside=True)
