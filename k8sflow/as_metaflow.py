"""``python -m k8sflow.as_metaflow flow.py run``: runs a flow that imports from ``metaflow``, unchanged.

In its process, and in those of its tasks, ``metaflow`` is k8sflow, whether or not Metaflow is installed too. A
notebook calls ``install()`` before it imports from ``metaflow``.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from k8sflow import shadowing
from k8sflow.metaflow_modules import install

__all__ = ["install", "main"]

_USAGE = """\
Usage: python -m k8sflow.as_metaflow FILE [COMMAND …]
       python -m k8sflow.as_metaflow -m MODULE [COMMAND …]

Runs a flow, or a script, that imports from metaflow. Its tasks, and the flows that it runs by Runner, do the same.\
"""


def main(words: Sequence[str]) -> int:
    """Runs a file, or a module, as Python does; returns the exit code unless the file ends the process.

    Args:
        words: The file, or ``-m`` and the module, and its arguments.
    """
    is_module = words[:1] == ["-m"]
    named = words[1:2] if is_module else words[:1]
    if not named or named[0] in {"--help", "-h"}:
        print(_USAGE)  # noqa: T201  the output of --help
        return 0 if named else 2
    if not is_module and not Path(named[0]).is_file():
        print(f"Error: there is no file {named[0]}.\n{_USAGE}", file=sys.stderr)  # noqa: T201
        return 2
    install()
    sys.argv = list(words[is_module:])
    if is_module:
        runpy.run_module(named[0], run_name="__main__", alter_sys=True)
        return 0
    folder = str(Path(named[0]).resolve().parent)
    if not getattr(sys.flags, "safe_path", False):  # as `python file` does; so far it is the working folder
        shadowing.protect(folder)
        sys.path[0] = folder
    runpy.run_path(named[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
