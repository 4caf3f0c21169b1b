"""@exit_hook in runs, and the note about decorators that only take effect in a deployment."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from k8sflow.cli.terminal import Terminal
from k8sflow.client import Run
from k8sflow.config import Settings
from k8sflow.flow.compile import declared
from k8sflow.runtime.commands import exit_hooks
from k8sflow.runtime.session import open_session
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from tests.support import flow_command, load_flow, run_flow, running, write_flow

HEAD = """from k8sflow import FlowMutator, FlowSpec, current, exit_hook, schedule, step, trigger, trigger_on_finish
import os, sys, threading, time

def note(text):
    with open("notes", "a") as file:
        file.write(text + "\\n")
"""
FLOW = """
def succeeded(run):
    note(f"succeeded {{run.pathspec}} {{run.successful}} {{run.data.x}} {{run.finished_at is not None}}")

def failed(run, more=1):
    tasks = [task for step in run for task in step]
    note(f"failed {{run.successful}} {{[task.exception.type for task in tasks if task.exception]}}")

def nothing():
    note("nothing")
    print("said to the terminal")

def whatever(*args, **options):
    note(f"whatever {{args}} {{sorted(options)}}")

def first(the_run, /):
    note(f"first {{the_run.id}}")

{hooks}
class F(FlowSpec):
    @step
    def start(self):
        self.x = 5
        {body}
        self.next(self.end)
    @step
    def end(self): pass
"""
ALL = """@exit_hook(on_success=[succeeded, nothing], on_error=[failed])
@exit_hook(on_success=[whatever, first])"""


def run(folder: Path, hooks: str = ALL, body: str = "pass", *arguments: str, module: str = "") -> tuple[Any, list[str]]:
    """Run a flow, and return its hooks' notes too."""
    file = write_flow(folder, module + FLOW.format(hooks=hooks, body=body), head=HEAD)
    done = run_flow(file, "--run-id", "r", *arguments)
    return done, notes(folder)


def wait_for_words(process: subprocess.Popen[bytes], words: bytes) -> None:
    """Read the process's output up to a line with some words."""
    assert process.stdout is not None
    assert any(words in line for line in process.stdout)


def notes(folder: Path) -> list[str]:
    """Return the notes of the hooks so far."""
    return (folder / "notes").read_text().splitlines() if (folder / "notes").exists() else []


@pytest.mark.parametrize("module", ["", "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"])
def test_hooks_are_called_after_a_success(tmp_path: Path, module: str) -> None:
    """The order is that of the source, and each gets the run if it has an argument; the import may start threads."""
    done, noted = run(tmp_path, module=module)
    assert done.returncode == 0, done.stdout + done.stderr
    assert noted == ["succeeded F/r True 5 True", "nothing", "whatever () ['run']", "first r"]
    assert "[exit hook nothing] said to the terminal\n" in done.stdout


def test_hooks_are_called_after_a_failure_and_again_by_resume(tmp_path: Path) -> None:
    """They can read the failed task's exception; a resumed run has an end of its own."""
    done, noted = run(tmp_path, body="assert os.path.exists('go')")
    assert (done.returncode, noted) == (1, ["failed False ['builtins.AssertionError']"])
    (tmp_path / "go").touch()
    done = flow_command(tmp_path / "flow.py", "resume", "--origin-run-id", "r", "--run-id", "again")
    assert done.returncode == 0, done.stdout + done.stderr
    assert notes(tmp_path)[1] == "succeeded F/again True 5 True"


BROKEN = {
    "raises": ("raise ValueError('hook')", "The exit hook broken failed: ValueError: hook"),
    "exits": ("sys.exit(3)", "The exit hook broken failed: "),
    "dies": ("os._exit(3)", "The exit hook broken failed: "),
}


@pytest.mark.parametrize(("body", "words"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("step", ["pass", "raise KeyError"])
def test_a_failing_hook_changes_nothing(tmp_path: Path, body: str, words: str, step: str) -> None:
    """It is reported without frames of k8sflow, and the next one is called."""
    functions = "[broken, nothing]"
    hooks = f"@exit_hook(on_success={functions}, on_error={functions})"
    hooks = f"def broken():\n    {body}\n\n{hooks}"
    done, noted = run(tmp_path, hooks, step)
    assert done.returncode == (0 if step == "pass" else 1)
    assert noted == ["nothing"]
    assert words in done.stdout
    assert "k8sflow/" not in done.stdout.partition("The exit hook broken failed")[2].replace(".k8sflow/", "")


def test_hooks_of_a_cancelled_run(tmp_path: Path) -> None:
    """Those for an error are called, as in Metaflow; a hook that hangs can be interrupted, and the exit code stays."""
    file = write_flow(tmp_path, FLOW.format(hooks=ALL, body="print('here', flush=True); time.sleep(1000)"), head=HEAD)
    with running(file, "--run-id", "r") as process:
        wait_for_words(process, b"here")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
    assert notes(tmp_path) == ["failed False []"]


def test_a_hanging_hook_is_ended_by_ctrl_c(tmp_path: Path) -> None:
    """The run has succeeded before, and this doesn't change."""
    hangs = "def hangs():\n    print('hanging', flush=True)\n    time.sleep(1000)\n\n"
    hooks = f"{hangs}@exit_hook(on_success=[hangs, nothing])"
    file = write_flow(tmp_path, FLOW.format(hooks=hooks, body="pass"), head=HEAD)
    with running(file, "--run-id", "r") as process:
        wait_for_words(process, b"hanging")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert b"The exit hook hangs was interrupted" in rest
    assert Run(RunStore(FolderStore(str(tmp_path / ".k8sflow")), "F", "r")).successful


def test_a_driver_that_takes_over_repeats_no_hook_that_has_ended(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes the missing calls, and reports that one whose end isn't recorded may be made a second time."""
    broken = "def broken():\n    note('broken')\n    os._exit(3)\n\n"
    file = write_flow(
        tmp_path,
        FLOW.format(hooks=f"{broken}@exit_hook(on_success=[succeeded, broken, nothing])", body="pass"),
        head=HEAD,
    )
    assert run_flow(file, "--run-id", "r").returncode == 0
    before = notes(tmp_path)
    assert before == ["succeeded F/r True 5 True", "broken", "nothing"]
    monkeypatch.chdir(tmp_path)
    store = FolderStore(str(tmp_path / ".k8sflow"))
    run_store = RunStore(store, "F", "r")
    session = open_session(run_store, Settings(), declared(load_flow(file)))

    def take_over() -> str:
        exit_hooks.call_all(
            session, Terminal(), lambda report, _: session.executor("local", report), is_success=True, take_over=True
        )
        return capfd.readouterr().out

    assert "The exit hook broken was called by an earlier driver: user_error." in take_over()
    assert notes(tmp_path) == before
    outcome = Path(store.url, run_store.task_key("exit-hook", "2", "0/outcome.json"))
    outcome.unlink()
    assert "The exit hook nothing was started by an earlier driver, and its end isn't recorded" in take_over()
    assert notes(tmp_path) == [*before, "nothing"]
    assert outcome.exists()


def test_hooks_are_not_among_the_steps(tmp_path: Path) -> None:
    """The client, the commands and ``resume`` don't show them; a mutator may add one."""
    hooks = """
class adds(FlowMutator):
    def mutate(self, mutable_flow):
        mutable_flow.add_decorator(exit_hook, deco_kwargs={"on_success": [nothing]})

@adds"""
    done, noted = run(tmp_path, hooks)
    assert (done.returncode, noted) == (0, ["nothing"]), done.stdout + done.stderr
    found = Run(RunStore(FolderStore(str(tmp_path / ".k8sflow")), "F", "r"))
    assert sorted(step.id for step in found) == ["end", "start"]
    for command in (["logs", "r"], ["dump", "r/end"], ["attach", "r"], ["runs"], ["resume", "start", "--dry-run"]):
        done = flow_command(tmp_path / "flow.py", *command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "exit-hook" not in done.stdout


def test_a_run_lists_the_decorators_for_a_deployment_only(tmp_path: Path) -> None:
    """It does so once, for all of them; a flow without them has no such line."""
    done, _ = run(tmp_path, "@schedule(daily=True)\n@trigger(event='e')\n@trigger_on_finish(flow='Other')")
    line = "@schedule and @trigger and @trigger_on_finish take effect in a deployment only"
    assert (done.returncode, done.stderr.count(line)) == (0, 1), done.stderr
    done, _ = run(tmp_path / "one", "@schedule(daily=True)")
    assert done.stderr.count("@schedule takes effect in a deployment only") == 1
    done, _ = run(tmp_path / "none")
    assert "deployment" not in done.stderr
