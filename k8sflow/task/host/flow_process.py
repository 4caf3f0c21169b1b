"""Runs a flow's file in the process of a task of a pod or a job: in the agent's fork, or in a new interpreter."""

from __future__ import annotations

import functools
import json
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from k8sflow import hooks, shadowing
from k8sflow.environments.search_path import packages_first
from k8sflow.flow.decorators.environment import PODS_PYTHONPATH
from k8sflow.flow.decorators.pod_options import RUNTIME_FOLDER
from k8sflow.task import moments, streams
from k8sflow.task.conventions import OWN_CGROUP_VARIABLE, RESULT_FD_VARIABLE, Surroundings
from k8sflow.task.failure import has_entered, unloadable
from k8sflow.task.host.become import outlive_sigterm

CODE_FOLDER = "code"
_CODE = "from k8sflow.task.host.flow_process import main; main()"


def run_file(file: str, words: Sequence[str], result: int) -> NoReturn:
    """Runs the flow's file of the code package, and ends this process.

    Args:
        file: The file, relative to the code package.
        words: Its command line.
        result: The descriptor that takes the result of a task whose file can't be loaded.
    """
    code = 1
    try:
        streams.renew()
        os.environ[RESULT_FD_VARIABLE] = str(result)
        if words[0] == "step":
            hooks.register("instance", functools.partial(hooks.call, "instance_in_pod"))
            if os.getppid() == 1:  # the agent is the first process of a container, which has one task
                os.environ[OWN_CGROUP_VARIABLE] = "1"
        os.chdir(CODE_FOLDER)
        sys.argv = [str(Path(file).resolve()), *words]
        shadowing.protect(folder := str(Path.cwd()))
        sys.path.insert(0, folder)
        if "/" in file:  # it was started by `python -m`
            runpy.run_module(file.removesuffix(".py").replace("/", "."), run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if not has_entered(end):
            _report_unloadable(file, end, result)
    except BaseException as error:  # noqa: BLE001  nothing may reach the agent's frames
        _report_unloadable(file, error, result)
    finally:
        streams.flush()
        os._exit(code)


def run_in(python: Path, file: str, words: Sequence[str], result: int, *, outlives_sigterm: bool) -> NoReturn:
    """Becomes another interpreter, which runs the flow's file.

    Args:
        python: The interpreter.
        file: As in ``run_file``.
        words: As in ``run_file``.
        result: As in ``run_file``.
        outlives_sigterm: Whether SIGTERM does nothing in the step, unless it has a handler.
    """
    os.set_inheritable(result, True)
    for name in list(os.environ):  # the descriptors that its command looks for there
        if name.endswith("_FD") and name.startswith("K8SFLOW_"):
            os.set_inheritable(int(os.environ[name]), True)
    task = {"file": file, "words": list(words), "result": result, "outlives_sigterm": outlives_sigterm}
    text = json.dumps({**task, "moments": moments.noted()})
    os.execve(python, [str(python), "-c", _CODE, text], _environment(os.environ))


def _environment(before: Mapping[str, str]) -> dict[str, str]:
    """The variables of a task in an environment of its own, whose ``sys.path`` has the runtime at its end."""
    found = {name: value for name, value in before.items() if name != PODS_PYTHONPATH}
    runtime = {RUNTIME_FOLDER, str(Path(__file__).parents[3])}
    path = [entry for entry in found.pop("PYTHONPATH", "").split(os.pathsep) if entry and entry not in runtime]
    return {**found, **({"PYTHONPATH": os.pathsep.join(path)} if path else {})}


def main() -> NoReturn:
    """Runs the flow's file in the interpreter of an environment."""
    task = json.loads(sys.argv[1])
    moments.take_over(task["moments"])
    sys.path[:] = packages_first(sys.path)
    if task["outlives_sigterm"]:
        outlive_sigterm()
    run_file(task["file"], task["words"], task["result"])


def _report_unloadable(file: str, error: BaseException, result: int) -> None:
    os.write(result, unloadable(file, error, Surroundings.of_agent()).to_termination_message().encode())
