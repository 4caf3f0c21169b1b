"""The agent, as in a pod but with a folder for a bucket: package, child, output, result, configs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from k8sflow.config import Settings
from k8sflow.executors.agent_arguments import environment as pod_environment
from k8sflow.flow.config_values import ConfigValue
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.spec import TaskName, TaskSpec
from tests.support import environment, wait_for, write_flow
from tests.unit.task.host.agent_runs import MAIN, SOURCE, ended, prepare, run_agent, run_body, start_agent


def test_a_task_runs_and_reports(tmp_path: Path) -> None:
    """Output in both streams and in the store; the commit; the transition; the code in the folder."""
    runner, command = prepare(tmp_path, "print('ü 1')\nprint('e', file=sys.stderr)\nself.x = os.listdir()")
    code, result, output = ended(tmp_path, start_agent(tmp_path, command))
    assert code == 0
    assert result.outcome is Outcome.SUCCEEDED
    assert result.transition is not None
    assert result.transition.steps == ("end",)
    assert output == {"stdout": "ü 1\n".encode(), "stderr": b"e\n"}
    assert runner.run_store.read_log("start", "0", 0, "stdout") == "ü 1\n".encode()
    commit = runner.run_store.read_commit("start", "0")
    assert commit is not None
    assert ArtifactStore(runner.store, "F").load(commit.artifacts["x"], "x") == ["flow.py"]


def test_metaflow_is_k8sflow_where_the_run_says_so(tmp_path: Path) -> None:
    """In the task, and in the processes that it starts."""
    record = replace(RunRecord("F", "r1", "flow.py", {}, Graph("F")), as_metaflow=True)
    variables = pod_environment(Settings(), record)
    assert "K8SFLOW_AS_METAFLOW" not in pod_environment(Settings(), replace(record, as_metaflow=False))
    body = "import metaflow\nself.x = metaflow.FlowSpec.__module__, os.environ['K8SFLOW_AS_METAFLOW']"
    runner, command = prepare(tmp_path, body)
    code, _, output = ended(tmp_path, start_agent(tmp_path, command, **variables))
    assert code == 0, output
    commit = runner.run_store.read_commit("start", "0")
    assert commit is not None
    assert ArtifactStore(runner.store, "F").load(commit.artifacts["x"], "x") == ("k8sflow.flow.spec", "1")


@pytest.mark.parametrize(
    ("body", "summary"),
    [
        ("raise ValueError('ü 🦆')", "ValueError: ü 🦆"),
        ("os._exit(0)", "exit code 0 before its step was finished"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 3)", "killed by signal"),
        ("sys.exit(0)", "called sys.exit(0)"),
    ],
)
def test_a_failure_is_reported_and_written(tmp_path: Path, body: str, summary: str) -> None:
    """As on a machine of one's own."""
    runner, command = prepare(tmp_path, body)
    code, result, _ = ended(tmp_path, start_agent(tmp_path, command))
    assert code == 1
    assert result.outcome is Outcome.USER_ERROR
    assert result.failure is not None
    assert summary in result.failure.summary
    record = runner.run_store.read_outcome("start", "0", 0)
    assert record is not None
    assert summary in record.summary


def test_a_child_that_keeps_writing_does_not_delay_the_pod(tmp_path: Path) -> None:
    """Its output ends with the content of the pipe at the end of the task."""
    code, result, output = run_body(tmp_path, "print('first')\nsubprocess.Popen(['yes', 'y' * 100])")
    assert code == 0
    assert result.outcome is Outcome.SUCCEEDED
    assert output["stdout"].splitlines()[0] == b"first"


def test_a_task_that_is_asked_to_end_says_so(tmp_path: Path) -> None:
    """SIGTERM is passed on to the task and its children; its sender knows the reason."""
    _, command = prepare(tmp_path, "subprocess.Popen(['sleep', '300'])\nopen('../here', 'w').close()\ntime.sleep(300)")
    process = start_agent(tmp_path, command)
    wait_for((tmp_path / "work/here").exists)
    process.send_signal(signal.SIGTERM)
    code, result, _ = ended(tmp_path, process)
    assert code == 143
    assert result.outcome is Outcome.CANCELLED


def test_a_task_loads_no_library_that_it_does_not_need(tmp_path: Path) -> None:
    """Each would cost every pod a tenth of a second or more; the client of a bucket is imported, and boto3 is not."""
    unneeded = ["boto3", "botocore", "click", "asyncio", "kubernetes", "aiohttp", "numpy", "email.mime"]
    body = f"import k8sflow.storage.s3\nprint([name for name in {unneeded} if name in sys.modules])"
    _, _, output = run_body(tmp_path, body)
    assert output["stdout"] == b"[]\n"


def test_a_damaged_package_is_not_run(tmp_path: Path) -> None:
    """Nor one that is missing."""
    runner, command = prepare(tmp_path, "pass")
    (blob,) = [key for key in runner.store.list_keys("F/blobs/") if key.endswith(command[-2].partition("=")[2])]
    runner.store.put(blob, [b"damaged"])
    code, result, _ = ended(tmp_path, start_agent(tmp_path, command))
    assert code == 1
    assert result.outcome is Outcome.STORAGE_ERROR
    assert result.failure is not None
    assert "damaged" in result.failure.summary


def test_a_file_that_cant_be_loaded_in_the_pod_is_reported(tmp_path: Path) -> None:
    """A package that is only on the user's machine, say; with its traceback."""
    runner, command = prepare(tmp_path, "pass")
    (tmp_path / "code/flow.py").write_text("import only_on_my_machine\n")
    made = package.build(tmp_path / "code")
    ArtifactStore(runner.store, "F").save_blob(made.sha256, [made.archive])
    command[-2] = f"--package={made.sha256}"
    code, result, _ = ended(tmp_path, start_agent(tmp_path, command))
    assert code == 1
    assert result.outcome is Outcome.USER_ERROR
    assert result.failure is not None
    assert "No module named 'only_on_my_machine'" in result.failure.summary
    assert "flow.py" in result.failure.detail


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import sys; sys.exit(3)", "sys.exit(3) was called while it was imported at "),
        ("import os; os._exit(3)", "ended with exit code 3 while it imported flow.py"),
    ],
)
def test_a_file_that_ends_the_process_is_named(tmp_path: Path, line: str, said: str) -> None:
    """Its import is at fault, and not the step."""
    runner, command = prepare(tmp_path, "pass")
    (tmp_path / "code/flow.py").write_text(f"{line}\n")
    made = package.build(tmp_path / "code")
    ArtifactStore(runner.store, "F").save_blob(made.sha256, [made.archive])
    command[-2] = f"--package={made.sha256}"
    _, result, _ = ended(tmp_path, start_agent(tmp_path, command))
    assert result.outcome is Outcome.USER_ERROR
    assert result.failure is not None
    assert said in result.failure.summary


STARTED = {
    "a script that imports the flow": ("flow.py", {"flow.py": "from pkg.flows import F\nF()\n"}),
    "a module": ("pkg/flows.py", {}),
    "a package": ("pkg/__main__.py", {"pkg/__main__.py": "from .flows import F\nF()\n"}),
}


@pytest.mark.parametrize("kind", STARTED)
def test_what_was_started_is_started(tmp_path: Path, kind: str) -> None:
    """The run's record names it; in the pod it finds its neighbours as it did for the user."""
    started, others = STARTED[kind]
    code = tmp_path / "code"
    write_flow(code / "pkg", SOURCE.format(body="from pkg import near; self.x = near.x")).rename(code / "pkg/flows.py")
    for name, text in {"pkg/__init__.py": "", "pkg/near.py": "x = 7", **others}.items():
        (code / name).write_text(text)
    arguments = (
        [started]
        if "/" not in started
        else ["-m", started.removesuffix(".py").removesuffix("/__main__").replace("/", ".")]
    )
    done = subprocess.run(
        [sys.executable, *arguments, "run"], cwd=code, env=environment(), check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    store = FolderStore(code / ".k8sflow")
    (run,) = store.list_folders("F/runs/")
    record = RunStore(store, "F", run).read()
    assert record.file == started

    made = package.build(code)
    ArtifactStore(store, "F").save_blob(made.sha256, [made.archive])
    again = RunStore(store, "F", "again")
    again.create(replace(record, run="again"))
    options = [f"--store={store.url}", "--flow=F", f"--package={made.sha256}", f"--file={record.file}"]
    spec = TaskSpec("F", "again", TaskName("start"))
    command = [sys.executable, "-c", textwrap.dedent(MAIN), spec.to_json(), *options]
    exit_code, result, output = ended(tmp_path, start_agent(tmp_path, command))
    assert exit_code == 0, (result, output)
    commit = again.read_commit("start", "0")
    assert commit is not None
    assert "x" in commit.artifacts


def test_threads_follow_the_pods_cores(tmp_path: Path) -> None:
    """Unless the user has set them."""
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    _, _, output = run_body(
        tmp_path,
        f"import json; print(json.dumps([os.environ.get(n) for n in {names}]))",
        K8SFLOW_CPUS="2",
        MKL_NUM_THREADS="7",
    )
    assert json.loads(output["stdout"]) == ["2", "2", "7"]


def test_a_second_execution_finds_the_first_ones_commit(tmp_path: Path) -> None:
    """Kubernetes may start a pod twice: both succeed, and the outputs exist once (I3)."""
    runner, command = prepare(tmp_path, "self.who = os.urandom(9)")
    first = ended(tmp_path, start_agent(tmp_path, command))
    commit = runner.run_store.read_commit("start", "0")
    spec = TaskSpec.from_json(command[3])
    command[3] = replace(spec, attempt=1).to_json()
    (tmp_path / "work").rename(tmp_path / "work of the first")
    second = ended(tmp_path, start_agent(tmp_path, command))
    assert first[:2] == second[:2]
    assert runner.run_store.read_commit("start", "0") == commit


MUTATED = """
    from k8sflow import Config, FlowMutator, user_step_decorator
    @user_step_decorator
    def marked(step_name, flow, inputs=None, attributes=None):
        flow.mark = attributes["mark"]
        yield
    class everywhere(FlowMutator):
        def mutate(self, mutable_flow):
            for name, mutable_step in mutable_flow.steps:
                mutable_step.add_decorator(marked, deco_kwargs={"mark": mutable_flow.settings.mark})
    @everywhere
    class F(FlowSpec):
        settings = Config("settings", default_value={"mark": "default"})
        @step
        def start(self): self.next(self.end)
        @step
        def end(self): pass
"""


def test_a_pod_takes_the_configs_that_its_run_was_started_with(tmp_path: Path) -> None:
    """Its mutators and decorators are made from them; nobody gives it a command line."""
    done, run_store = run_agent(tmp_path, MUTATED, settings=ConfigValue({"mark": "given"}))
    assert done.returncode == 0, done.stdout + done.stderr
    commit = run_store.read_commit("start", "0")
    assert commit is not None
    assert ArtifactStore(run_store.store, "F").load(commit.artifacts["mark"], "mark") == "given"
    assert "settings" not in commit.artifacts


# As in a pod whose image has no entry for its user: the system's functions find none.
NAMELESS = """
    import grp, os, pwd, sys
    os.getuid, os.getgid = (lambda: 54321), (lambda: 54322)
"""


def test_a_user_without_an_entry_has_a_name(tmp_path: Path) -> None:
    """For getpass, pwd and grp in the task, and for its children by the environment; no root is needed."""
    code = """
    import getpass, json, os, pwd, grp
    entry = pwd.getpwuid(os.getuid())
    print(json.dumps([
        getpass.getuser(), entry.pw_name, entry.pw_uid, pwd.getpwnam("k8sflow").pw_dir, os.path.expanduser("~k8sflow"),
        grp.getgrgid(os.getgid()).gr_name, os.environ["LOGNAME"], entry in pwd.getpwall(),
    ]))
    """
    before = "from k8sflow.task.host import pod_environment; pod_environment.complete()"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(map(textwrap.dedent, (NAMELESS, before, code)))],
        env={name: value for name, value in environment(HOME="/tmp/home").items() if name not in {"USER", "LOGNAME"}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    home = "/tmp/home"
    assert json.loads(done.stdout) == ["k8sflow", "k8sflow", 54321, home, home, "k8sflow", "k8sflow", True]


@pytest.mark.parametrize("users", [{}, {"K8SFLOW_PYTHONPATH": "/users/a:/users/b"}])
@pytest.mark.parametrize("images", [[], ["/image"]])
def test_the_paths_of_image_and_user_are_kept(tmp_path: Path, users: dict[str, str], images: list[str]) -> None:
    """In the task, and in what it starts; ours is added."""
    checkout = environment()["PYTHONPATH"]
    _, _, output = run_body(
        tmp_path,
        "import json\nprint(json.dumps([sys.path, os.environ['PYTHONPATH'].split(':'), "
        "os.environ.get('K8SFLOW_PYTHONPATH')]))",
        PYTHONPATH=":".join([checkout, *images]),
        **users,
    )
    path, variable, left = json.loads(output["stdout"])
    expected = [checkout, *(["/users/a", "/users/b"] if users else []), *images]
    assert variable == expected
    assert [part for part in path if part in expected] == expected
    assert left is None
