"""The agent, as in a pod but with a folder for a bucket: package, child, output, result, signals, time, configs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from k8sflow.flow.compile import compile_flow
from k8sflow.flow.config_values import ConfigValue
from k8sflow.flow.decorators.policy import StepPolicy
from k8sflow.flow.outcome import Outcome
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.task.host.framing import Piece, ResultLine, decode
from k8sflow.task.inside.task_runner import TaskRunner
from k8sflow.task.result import TaskResult
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec
from tests.inprocess import runner_of
from tests.support import DEADLINE_SECONDS, environment, load_flow, wait_for, write_flow

SOURCE = """
    import os, signal, subprocess, sys, time
    from tests.waiting import wait_for
    class F(FlowSpec):
        @step
        def start(self):
            {body}
            self.next(self.end)
        @step
        def end(self): pass
"""
# The agent's main in a process of its own, with a file in place of the pod's /dev/termination-log.
MAIN = """
    import sys
    from pathlib import Path
    from k8sflow.task.host import agent
    agent.TERMINATION_LOG = Path("termination-log")
    sys.exit(agent.main(sys.argv[1:]))
"""


def _prepare(folder: Path, body: str) -> tuple[TaskRunner, list[str]]:
    """A run with an uploaded package, and the command of the start step's agent."""
    code = folder / "code"
    file = write_flow(code, SOURCE.format(body=body.replace("\n", "\n            ")))
    runner = runner_of(load_flow(file), folder)
    made = package.build(code)
    ArtifactStore(runner.store, "F").save_blob(made.sha256, [made.archive])
    spec = TaskSpec("F", "r1", TaskName("start"))
    options = [f"--store={runner.store.url}", "--flow=F", f"--package={made.sha256}", "--file=flow.py"]
    return runner, [sys.executable, "-c", textwrap.dedent(MAIN), spec.to_json(), *options]


def _start(folder: Path, command: list[str], **changes: str) -> subprocess.Popen[bytes]:
    work = folder / "work"
    work.mkdir()
    return subprocess.Popen(
        command, cwd=work, env=environment(**changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _ended(folder: Path, process: subprocess.Popen[bytes]) -> tuple[int, TaskResult, dict[str, bytes]]:
    """Exit code, result and output of an agent; the result in both places is the same."""
    shown, errors = process.communicate(timeout=DEADLINE_SECONDS)
    assert errors == b""
    output = {"stdout": b"", "stderr": b""}
    results = []
    for line in shown.splitlines():
        match decode(line):
            case Piece(stream, data):
                output[stream] += data
            case ResultLine(text):
                results.append(text)
    assert results == [(folder / "work/termination-log").read_text()]
    return process.returncode, TaskResult.from_json(results[0]), output


def _run(folder: Path, body: str, **changes: str) -> tuple[int, TaskResult, dict[str, bytes]]:
    _, command = _prepare(folder, body)
    return _ended(folder, _start(folder, command, **changes))


def test_a_task_runs_and_tells(tmp_path: Path) -> None:
    """Output in both streams and in the store; the commit; the transition; the code in the folder."""
    runner, command = _prepare(tmp_path, "print('ü 1')\nprint('e', file=sys.stderr)\nself.x = os.listdir()")
    code, result, output = _ended(tmp_path, _start(tmp_path, command))
    assert code == 0
    assert result.outcome is Outcome.SUCCEEDED
    assert result.transition is not None
    assert result.transition.steps == ("end",)
    assert output == {"stdout": "ü 1\n".encode(), "stderr": b"e\n"}
    assert runner.run_store.read_log("start", "0", 0, "stdout") == "ü 1\n".encode()
    commit = runner.run_store.read_commit("start", "0")
    assert commit is not None
    assert ArtifactStore(runner.store, "F").load(commit.artifacts["x"], "x") == ["flow.py"]


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
    runner, command = _prepare(tmp_path, body)
    code, result, _ = _ended(tmp_path, _start(tmp_path, command))
    assert code == 1
    assert result.outcome is Outcome.USER_ERROR
    assert result.failure is not None
    assert summary in result.failure.summary
    record = runner.run_store.read_outcome("start", "0", 0)
    assert record is not None
    assert summary in record.summary


def test_a_child_that_keeps_writing_does_not_delay_the_pod(tmp_path: Path) -> None:
    """Its output ends with the content of the pipe at the end of the task."""
    code, result, output = _run(tmp_path, "print('first')\nsubprocess.Popen(['yes', 'y' * 100])")
    assert code == 0
    assert result.outcome is Outcome.SUCCEEDED
    assert output["stdout"].splitlines()[0] == b"first"


def test_a_task_that_is_asked_to_end_says_so(tmp_path: Path) -> None:
    """SIGTERM is passed on to the task and its children; its sender knows the reason."""
    _, command = _prepare(tmp_path, "subprocess.Popen(['sleep', '300'])\nopen('../here', 'w').close()\ntime.sleep(300)")
    process = _start(tmp_path, command)
    wait_for((tmp_path / "work/here").exists)
    process.send_signal(signal.SIGTERM)
    code, result, _ = _ended(tmp_path, process)
    assert code == 143
    assert result.outcome is Outcome.CANCELLED


def test_a_task_loads_no_library_that_it_does_not_need(tmp_path: Path) -> None:
    """Each would cost every pod a tenth of a second or more; the client of a bucket is imported, and boto3 is not."""
    unneeded = ["boto3", "botocore", "click", "asyncio", "kubernetes", "aiohttp", "numpy", "email.mime"]
    body = f"import k8sflow.storage.s3\nprint([name for name in {unneeded} if name in sys.modules])"
    _, _, output = _run(tmp_path, body)
    assert output["stdout"] == b"[]\n"


def test_a_damaged_package_is_not_run(tmp_path: Path) -> None:
    """Nor one that is missing."""
    runner, command = _prepare(tmp_path, "pass")
    (blob,) = [key for key in runner.store.list_keys("F/blobs/") if key.endswith(command[-2].partition("=")[2])]
    runner.store.put(blob, [b"damaged"])
    code, result, _ = _ended(tmp_path, _start(tmp_path, command))
    assert code == 1
    assert result.outcome is Outcome.STORAGE_ERROR
    assert result.failure is not None
    assert "damaged" in result.failure.summary


def test_a_file_that_cant_be_loaded_in_the_pod_is_reported(tmp_path: Path) -> None:
    """A package that is only on the user's machine, say; with its traceback."""
    runner, command = _prepare(tmp_path, "pass")
    (tmp_path / "code/flow.py").write_text("import only_on_my_machine\n")
    made = package.build(tmp_path / "code")
    ArtifactStore(runner.store, "F").save_blob(made.sha256, [made.archive])
    command[-2] = f"--package={made.sha256}"
    code, result, _ = _ended(tmp_path, _start(tmp_path, command))
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
    runner, command = _prepare(tmp_path, "pass")
    (tmp_path / "code/flow.py").write_text(f"{line}\n")
    made = package.build(tmp_path / "code")
    ArtifactStore(runner.store, "F").save_blob(made.sha256, [made.archive])
    command[-2] = f"--package={made.sha256}"
    _, result, _ = _ended(tmp_path, _start(tmp_path, command))
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
    exit_code, result, output = _ended(tmp_path, _start(tmp_path, command))
    assert exit_code == 0, (result, output)
    commit = again.read_commit("start", "0")
    assert commit is not None
    assert "x" in commit.artifacts


def test_threads_follow_the_pods_cores(tmp_path: Path) -> None:
    """Unless the user has set them."""
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    _, _, output = _run(
        tmp_path, f"import json; print(json.dumps([os.environ.get(n) for n in {names}]))",
        K8SFLOW_CPUS="2", MKL_NUM_THREADS="7",
    )  # fmt: skip
    assert json.loads(output["stdout"]) == ["2", "2", "7"]


def test_a_second_execution_finds_the_first_ones_commit(tmp_path: Path) -> None:
    """Kubernetes may start a pod twice: both succeed, and the outputs exist once (I3)."""
    runner, command = _prepare(tmp_path, "self.who = os.urandom(9)")
    first = _ended(tmp_path, _start(tmp_path, command))
    commit = runner.run_store.read_commit("start", "0")
    spec = TaskSpec.from_json(command[3])
    command[3] = replace(spec, attempt=1).to_json()
    (tmp_path / "work").rename(tmp_path / "work of the first")
    second = _ended(tmp_path, _start(tmp_path, command))
    assert first[:2] == second[:2]
    assert runner.run_store.read_commit("start", "0") == commit


SLOW = """
    class F(FlowSpec):
        @step
        def start(self):
            import signal, subprocess, time
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            subprocess.Popen(["sleep", "1000"])
            time.sleep(1000)
            self.next(self.end)
        @step
        def end(self): pass
"""


def run_agent(
    folder: Path,
    source: str,
    *arguments: str,
    policies: Mapping[str, StepPolicy] | None = None,
    **values: object,
) -> tuple[subprocess.CompletedProcess[bytes], RunStore]:
    """The agent on a flow's first task, and the records of its run."""
    file = write_flow(folder / "code", source)
    flow, store = load_flow(file), FolderStore(str(folder / "store"))
    code, saved = package.build(file.parent), ArtifactStore(store, "F")
    saved.save_blob(code.sha256, [code.archive])
    run_store = RunStore(store, "F", "r")
    fixed = {name: saved.save(value, name) for name, value in values.items()}
    record = RunRecord("F", "r", file.name, fixed, compile_flow(flow).graph, package=code.sha256)
    run_store.create(replace(record, policies=policies or {}))
    spec = TaskSpec("F", "r", TaskName("start"))
    (folder / "pod").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "k8sflow.task.host.agent", spec.to_json(), f"--store={store.url}", "--flow=F",
         f"--package={code.sha256}", f"--file={file.name}", *arguments],
        cwd=folder / "pod", env=environment(), capture_output=True, timeout=DEADLINE_SECONDS, check=False,
    )  # fmt: skip
    return done, run_store


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


@pytest.mark.slow
def test_a_task_is_ended_when_its_time_is_over(tmp_path: Path) -> None:
    """Also one that ignores SIGTERM; the agent tells timed_out, and writes it."""
    began = time.monotonic()
    done, run_store = run_agent(tmp_path, SLOW, "--timeout=1")
    assert time.monotonic() - began > 1
    assert done.returncode == 1, done.stderr
    line = decode(done.stdout.splitlines()[-1])
    assert isinstance(line, ResultLine)
    result = TaskResult.from_json(line.text)
    assert result.outcome is Outcome.TIMED_OUT
    assert result.failure is not None
    assert "timeout of 1 s" in result.failure.summary
    outcome = run_store.read_outcome("start", "0", 0)
    assert outcome is not None
    assert outcome.outcome == "timed_out"


@pytest.mark.slow
def test_a_task_whose_time_is_over_can_clean_up(tmp_path: Path) -> None:
    """TimeoutException is raised in its step; what it had set is kept where the step is under @catch."""
    source = """
        from k8sflow.exception import TimeoutException
        class F(FlowSpec):
            @step
            def start(self):
                import time
                try:
                    time.sleep(1000)
                except TimeoutException as error:
                    print("except", error, flush=True)
                    raise
                finally:
                    print("finally", flush=True)
                self.next(self.end)
            @step
            def end(self): pass
    """
    policy = StepPolicy(timeout_seconds=1, grace_seconds=60)
    done, run_store = run_agent(tmp_path, source, "--timeout=1", "--grace=60", policies={"start": policy})
    assert done.returncode == 1, done.stderr
    outcome = run_store.read_outcome("start", "0", 0)
    assert outcome is not None
    assert outcome.outcome == "timed_out"
    message = "the task took longer than its timeout of 1 s, and was ended"
    assert outcome.summary == message
    assert run_store.read_log("start", "0", 0, "stdout").decode() == f"except {message}\nfinally\n"


def test_a_failure_after_sigterm_is_not_blamed_on_the_code(tmp_path: Path) -> None:
    """The signal ends the task's own children too, so that its code raises: the driver asks who sent it."""
    runner, command = _prepare(
        tmp_path,
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "child = subprocess.Popen(['sleep', '300'])\n"
        "open('ready', 'w').close()\n"
        "if child.wait(): raise RuntimeError('my child was killed')",
    )
    process = _start(tmp_path, command)
    wait_for((tmp_path / "work/code/ready").exists)
    process.send_signal(signal.SIGTERM)
    exit_code, result, _ = _ended(tmp_path, process)
    assert exit_code == 143
    assert result.outcome is Outcome.CANCELLED
    assert "my child was killed" in str(result.failure)
    assert runner.run_store.read_outcome("start", "0", 0) is None, "the driver records that the pod was deleted"


FINISHES = """
from k8sflow import current
print('ready', current.preempted, flush=True)
open('ready', 'w').close()
wait_for(lambda: os.path.exists(current.spot_termination_notice))
self.x = current.preempted
"""


def _graceful(folder: Path, body: str, grace_seconds: int) -> tuple[TaskRunner, subprocess.Popen[bytes]]:
    """A task that was sent SIGTERM, with so much grace, as soon as it was ready."""
    runner, command = _prepare(folder, body)
    process = _start(folder, [*command, f"--termination-grace={grace_seconds}"])
    wait_for((folder / "work/code/ready").exists)
    process.send_signal(signal.SIGTERM)
    return runner, process


def test_a_step_may_finish_after_sigterm(tmp_path: Path) -> None:
    """Within its grace its result counts; current.preempted tells it, and the log tells the user."""
    runner, process = _graceful(tmp_path, FINISHES, 3600)
    code, result, output = _ended(tmp_path, process)
    assert (code, result.outcome) == (0, Outcome.SUCCEEDED)
    assert output["stdout"] == b"ready False\n"
    assert b"the step has 3597 s to finish" in output["stderr"]
    assert runner.run_store.read_log("start", "0", 0, "stderr") == output["stderr"]
    commit = runner.run_store.read_commit("start", "0")
    assert commit is not None
    assert ArtifactStore(runner.store, "F").load(commit.artifacts["x"], "x") is True


def test_a_step_that_uses_up_its_grace_is_ended(tmp_path: Path) -> None:
    """Before the kubelet does so: its output is stored, and it is not the code's failure."""
    body = "print('kept', flush=True)\nopen('ready', 'w').close()\nsubprocess.run(['sleep', '300'])"
    runner, process = _graceful(tmp_path, body, 4)
    code, result, _ = _ended(tmp_path, process)
    assert (code, result.outcome) == (143, Outcome.CANCELLED)
    assert runner.run_store.read_log("start", "0", 0, "stdout") == b"kept\n"


def test_a_handler_of_the_step_sees_sigterm(tmp_path: Path) -> None:
    """As libraries expect it that save a checkpoint there; forks of the task still end by SIGTERM."""
    body = """
import multiprocessing
with multiprocessing.get_context('fork').Pool(1) as pool:
    pool.apply(os.getpid)
seen = []
signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
open('ready', 'w').close()
wait_for(lambda: seen)
print(seen)
"""
    _, process = _graceful(tmp_path, body, 3600)
    code, result, output = _ended(tmp_path, process)
    assert (code, result.outcome) == (0, Outcome.SUCCEEDED)
    assert output["stdout"] == b"[15]\n"


def test_processes_in_pods_know_where_the_first_is(tmp_path: Path) -> None:
    """By current.parallel and the variables of training libraries; each has its machine for itself."""
    body = (
        "self.seen = [os.environ[name] for name in ('MASTER_ADDR', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'PET_NNODES')]"
    )
    result, output, _ = _together(tmp_path, body, "127.0.0.%d")
    assert result.outcome is Outcome.SUCCEEDED
    assert output["stdout"] == b"['127.0.0.0', '1', '2', '0', '2']\n"


@pytest.mark.parametrize(("variables", "processes"), [({"K8SFLOW_GPUS": "4"}, b"4"), ({}, b"None")])
def test_torchrun_starts_a_process_for_each_gpu_of_a_pod(
    tmp_path: Path, variables: dict[str, str], processes: bytes
) -> None:
    """Without GPUs the variable is not set: torchrun starts one process then."""
    body = "self.seen = os.environ.get('PET_NPROC_PER_NODE')"
    _, output, _ = _together(tmp_path, body, "127.0.0.%d", **variables)
    assert output["stdout"] == processes + b"\n"


def test_a_process_without_its_peers_does_not_start(tmp_path: Path) -> None:
    """The failure names them; the driver, which may know why they have no pod, records it."""
    result, output, runner = _together(tmp_path, "self.seen = []", "no-such-host-%d.invalid")
    assert result.outcome is Outcome.NEVER_STARTED
    assert result.failure is not None
    assert "train/0, train/1" in result.failure.summary
    assert output["stdout"] == b""
    assert runner.run_store.read_outcome("train", "1", 0) is None


def _together(folder: Path, body: str, peers: str, **variables: str) -> tuple[TaskResult, dict[str, bytes], TaskRunner]:
    """The second of two processes that run together, in a pod whose peers have such host names."""
    source = f"""
        import os
        from k8sflow import parallel
        class F(FlowSpec):
            @step
            def start(self): self.next(self.train, num_parallel=2)
            @parallel
            @step
            def train(self):
                {body}
                print(self.seen)
                self.next(self.join)
            @step
            def join(self, inputs): self.next(self.end)
            @step
            def end(self): pass
    """
    code = folder / "code"
    runner = runner_of(load_flow(write_flow(code, source)), folder)
    made = package.build(code)
    ArtifactStore(runner.store, "F").save_blob(made.sha256, [made.archive])
    assert runner.run(TaskSpec("F", "r1", TaskName("start"))).outcome is Outcome.SUCCEEDED
    spec = TaskSpec("F", "r1", TaskName("train", (1,)), 0, (TaskInput("start", ()),), 2)
    options = [f"--store={runner.store.url}", "--flow=F", f"--package={made.sha256}", "--file=flow.py"]
    options += [f"--peers={peers}", "--peers-timeout=0"]
    command = [sys.executable, "-c", textwrap.dedent(MAIN), spec.to_json(), *options]
    _, result, output = _ended(folder, _start(folder, command, **variables))
    return result, output, runner


class _Noticed(BaseHTTPRequestHandler):
    """Google's metadata server, on an instance that is preempted."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"TRUE")

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


def test_a_failure_after_a_spot_notice_costs_no_retry(tmp_path: Path) -> None:
    """A step that gives up because its node is taken away has not failed by itself."""
    body = FINISHES + "raise RuntimeError('saved')"
    with ThreadingHTTPServer(("127.0.0.1", 0), _Noticed) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        runner, command = _prepare(tmp_path, body)
        process = _start(tmp_path, [*command, "--spot=gcp"], GCE_METADATA_HOST=f"127.0.0.1:{server.server_port}")
        code, result, output = _ended(tmp_path, process)
        server.shutdown()
        thread.join()
    assert (code, result.outcome) == (1, Outcome.PREEMPTED)
    assert result.failure is not None
    assert "RuntimeError: saved" in result.failure.detail
    assert b"the node is about to be taken away (preempted)." in output["stderr"]
    record = runner.run_store.read_outcome("start", "0", 0)
    assert record is not None
    assert record.outcome == "preempted"


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
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    home = "/tmp/home"
    assert json.loads(done.stdout) == ["k8sflow", "k8sflow", 54321, home, home, "k8sflow", "k8sflow", True]


@pytest.mark.parametrize("users", [{}, {"K8SFLOW_PYTHONPATH": "/users/a:/users/b"}])
@pytest.mark.parametrize("images", [[], ["/image"]])
def test_the_paths_of_image_and_user_are_kept(tmp_path: Path, users: dict[str, str], images: list[str]) -> None:
    """In the task, and in what it starts; ours is added."""
    checkout = environment()["PYTHONPATH"]
    _, _, output = _run(
        tmp_path,
        "import json\nprint(json.dumps([sys.path, os.environ['PYTHONPATH'].split(':'), "
        "os.environ.get('K8SFLOW_PYTHONPATH')]))",
        PYTHONPATH=":".join([checkout, *images]), **users,
    )  # fmt: skip
    path, variable, left = json.loads(output["stdout"])
    expected = [checkout, *(["/users/a", "/users/b"] if users else []), *images]
    assert variable == expected
    assert [part for part in path if part in expected] == expected
    assert left is None
