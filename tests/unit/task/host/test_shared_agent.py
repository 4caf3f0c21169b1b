"""The agent of a pod that several branches share, with a folder for a bucket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sflow.flow.outcome import Outcome
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.task.batch import TaskBatch
from k8sflow.task.host.framing import Encoder, OutputStream, Piece, ResultLine, StartLine, decode, encode_result
from k8sflow.task.inside.task_runner import TaskRunner
from k8sflow.task.result import TERMINATION_MESSAGE_BYTES, TaskResult, Transition, failed
from k8sflow.task.shared_results import SharedEnds
from k8sflow.task.spec import TaskInput, TaskName, TaskSpec
from tests.inprocess import runner_of
from tests.support import DEADLINE_SECONDS, environment, load_flow, wait_for, write_flow

SOURCE = """
    import os, signal, sys, time
    from tests.waiting import wait_for
    from k8sflow import current
    class F(FlowSpec):
        @step
        def start(self):
            self.items = list(range(10))
            self.next(self.work, foreach="items")
        @step
        def work(self):
            {body}
            self.next(self.join)
        @step
        def join(self, inputs):
            self.next(self.end)
        @step
        def end(self): pass
"""
MAIN = """
    import sys
    from pathlib import Path
    from k8sflow.task.host import agent
    agent.TERMINATION_LOG = Path("termination-log")
    sys.exit(agent.main(sys.argv[1:]))
"""
DONE = TaskResult(Outcome.SUCCEEDED, Transition(("join",)))


@dataclass(frozen=True)
class Pod:
    """A pod's agent, in a process of its own."""

    folder: Path
    runner: TaskRunner
    process: subprocess.Popen[bytes]

    def ended(self) -> tuple[int, SharedEnds, dict[str, list[object]]]:
        """The exit code, the termination message, and what the log has of each task."""
        shown, errors = self.process.communicate(timeout=DEADLINE_SECONDS)
        assert errors == b""
        found: dict[str, list[object]] = {}
        for line in shown.splitlines():
            match decode(line):
                case StartLine(task):
                    found.setdefault(task, []).append("start")
                case ResultLine(text, task):
                    found[task].append(TaskResult.from_json(text))
                case Piece(stream, data, task):
                    found.setdefault(task, []).append((stream, data))
        return self.process.returncode, SharedEnds.from_json((self.folder / "termination-log").read_text()), found


def pod(folder: Path, body: str, *more: str, **changes: str) -> Pod:
    """The second of the pods of ten branches, of which each has four: 4 to 7."""
    code = folder / "code"
    file = write_flow(code, SOURCE.format(body=body.replace("\n", "\n            ")))
    runner = runner_of(load_flow(file), folder)
    runner.run(TaskSpec("F", "r1", TaskName("start")))
    made = package.build(code)
    ArtifactStore(runner.store, "F").save_blob(made.sha256, [made.archive])
    inputs = (TaskInput("start", ()),)
    tasks = TaskBatch.of([TaskSpec("F", "r1", TaskName("work", (number,)), inputs=inputs) for number in range(10)])
    options = [f"--store={runner.store.url}", "--flow=F", f"--package={made.sha256}", "--file=flow.py"]
    command = [sys.executable, "-c", textwrap.dedent(MAIN), tasks.to_json(), *options, "--per-pod=4", *more]
    (folder / "work").mkdir()
    variables = environment(JOB_COMPLETION_INDEX="1", **changes)
    process = subprocess.Popen(
        command, cwd=folder / "work", env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    return Pod(folder / "work", runner, process)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_each_branch_is_a_process_with_its_own_output_commit_and_log(tmp_path: Path) -> None:
    shared = pod(tmp_path, "print('I am', self.input)\nsys.stderr.write('half')\nself.pid = os.getpid()")
    code, message, log = shared.ended()
    assert code == 0
    assert message.ends == dict.fromkeys(range(4), DONE)
    assert set(log) == {"4", "5", "6", "7"}
    assert log["5"] == ["start", ("stdout", b"I am 5\n"), ("stderr", b"half"), DONE]
    commits = [shared.runner.run_store.read_commit("work", task) for task in log]
    artifacts = ArtifactStore(shared.runner.store, "F")
    assert len({artifacts.load(commit.artifacts["pid"], "pid") for commit in commits if commit is not None}) == 4
    assert shared.runner.run_store.read_log("work", "7", 0, "stdout") == b"I am 7\n"


def test_a_branch_that_fails_or_dies_leaves_its_siblings_alone(tmp_path: Path) -> None:
    body = "if self.input == 4: raise ValueError('no')\nif self.input == 6: os.kill(os.getpid(), signal.SIGKILL)"
    code, message, _ = pod(tmp_path, body).ended()
    assert code == 1
    assert {position: end.outcome for position, end in message.ends.items() if end != DONE} == {
        0: Outcome.USER_ERROR,
        2: Outcome.USER_ERROR,
    }
    assert message.ends[0].explained.summary == "ValueError: no"
    assert "SIGKILL" in message.ends[2].explained.summary


def test_a_branch_that_kills_its_parent_costs_the_branches_after_it_nothing(tmp_path: Path) -> None:
    """They run again in another pod; those that ran beside it have failed with it."""
    body = (
        "open(f'{self.input}.here', 'w').close()\nwait_for(lambda: os.path.exists('5.here'))\n"
        "if self.input == 4: os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)"
    )
    code, message, log = pod(tmp_path, body, "--at-a-time=2").ended()
    assert code == 1
    assert {position: end.outcome for position, end in message.ends.items()} == {
        0: Outcome.USER_ERROR,
        1: Outcome.USER_ERROR,
        2: Outcome.NEVER_STARTED,
        3: Outcome.NEVER_STARTED,
    }
    assert set(log) == {"4", "5"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_branches_whose_process_is_killed_from_outside_cost_no_retry(tmp_path: Path, number: signal.Signals) -> None:
    """It runs none of their code, as the agent, whose death counts as the node's; what had its end keeps it."""
    body = "if self.input > 4:\n    open(f'{self.input}.here', 'w').close()\n    time.sleep(60)"
    shared = pod(tmp_path, body, "--at-a-time=2")
    wait_for(lambda: len(list((tmp_path / "work/code").glob("*.here"))) == 2)
    wait_for(lambda: shared.runner.run_store.read_outcome("work", "4", 0) is not None)
    (child,) = children_of(shared.process.pid)
    os.kill(child, number)
    code, message, _ = shared.ended()
    assert code == 1
    assert {position: end.outcome for position, end in message.ends.items()} == {
        0: Outcome.SUCCEEDED,
        1: Outcome.NODE_LOST,
        2: Outcome.NODE_LOST,
        3: Outcome.NEVER_STARTED,
    }
    assert f"was killed externally ({number.name})" in message.ends[1].explained.summary


def test_as_many_run_at_a_time_as_were_asked_for_and_share_the_cores(tmp_path: Path) -> None:
    """Each waits for the file that the next one makes."""
    body = (
        "from pathlib import Path\nPath(str(self.input)).touch()\n"
        "wait_for(lambda: Path(str(4 + (self.input - 3) % 4)).exists())\n"
        "self.cores = [os.environ[name] for name in ('K8SFLOW_CPUS', 'OMP_NUM_THREADS')]"
    )
    shared = pod(tmp_path, body, "--at-a-time=4", K8SFLOW_CPUS="8")
    code, message, _ = shared.ended()
    assert code == 0
    assert message.ends == dict.fromkeys(range(4), DONE)
    commit = shared.runner.run_store.read_commit("work", "6")
    assert commit is not None
    assert ArtifactStore(shared.runner.store, "F").load(commit.artifacts["cores"], "cores") == ["2", "2"]


def test_a_pod_that_is_asked_to_end_reports_what_is_done(tmp_path: Path) -> None:
    """The others have no end: the driver learns from the pod's status why it was to end."""
    shared = pod(tmp_path, "if self.input > 4: time.sleep(60)")
    wait_for(lambda: shared.runner.run_store.read_outcome("work", "4", 0) is not None)
    wait_for(lambda: shared.runner.run_store.attempts("work", "5"))
    shared.process.send_signal(signal.SIGTERM)
    code, message, log = shared.ended()
    assert code == 143
    assert message.ends == {0: DONE}
    assert log["4"][-1] == DONE


def test_branches_may_finish_in_the_grace_of_their_pod(tmp_path: Path) -> None:
    """They are shown that it is about to end."""
    body = "open(f'{self.input}.here', 'w').close()\nwait_for(lambda: current.preempted)"
    shared = pod(tmp_path, body, "--termination-grace=30", "--at-a-time=4")
    wait_for(lambda: len(list((tmp_path / "work/code").glob("*.here"))) == 4)
    shared.process.send_signal(signal.SIGTERM)
    code, message, _ = shared.ended()
    assert code == 0
    assert message.ends == dict.fromkeys(range(4), DONE)


def test_a_branch_that_fails_in_the_grace_of_its_pod_has_no_end_and_no_other_one_starts(tmp_path: Path) -> None:
    """Like those that have not started, it runs again in another pod, and uses up no retry."""
    body = (
        "open(f'{self.input}.here', 'w').close()\nwait_for(lambda: current.preempted)\n"
        "if self.input == 5: raise ValueError('later')"
    )
    shared = pod(tmp_path, body, "--termination-grace=30", "--at-a-time=2")
    wait_for(lambda: len(list((tmp_path / "work/code").glob("*.here"))) == 2)
    shared.process.send_signal(signal.SIGTERM)
    code, message, log = shared.ended()
    assert code == 143
    assert message.ends == {0: DONE}
    assert set(log) == {"4", "5"}
    assert shared.runner.run_store.read_outcome("work", "5", 0) is None
    assert "the pod was sent SIGTERM" in shared.runner.run_store.read_log("work", "5", 0, "stderr").decode()


def test_a_branch_has_its_own_handler_of_sigterm_in_the_grace_of_its_pod(tmp_path: Path) -> None:
    """The rest is killed at the end of the grace."""
    body = (
        "if self.input == 4: signal.signal(signal.SIGTERM, lambda *_: print('asked to end', flush=True))\n"
        "print('here', flush=True)\ntime.sleep(60)"
    )
    shared = pod(tmp_path, body, "--termination-grace=6", "--at-a-time=2")
    wait_for(lambda: all(shared.runner.run_store.read_log("work", task, 0, "stdout") for task in "45"))
    shared.process.send_signal(signal.SIGTERM)
    code, message, _ = shared.ended()
    assert code == 143
    assert message.ends == {}
    assert "asked to end" in shared.runner.run_store.read_log("work", "4", 0, "stdout").decode()
    assert shared.runner.run_store.read_log("work", "5", 0, "stdout") == b"here\n"


def test_a_traced_branch_has_the_moments_of_its_pod(tmp_path: Path) -> None:
    """They come before its own, so that the start of the pod doesn't count as the import of the flow."""
    body = "from k8sflow.task import moments\nself.moments = moments.noted()"
    shared = pod(tmp_path, body, "--trace")
    assert shared.ended()[0] == 0
    artifacts, found = ArtifactStore(shared.runner.store, "F"), []
    for task in ("4", "7"):
        commit = shared.runner.run_store.read_commit("work", task)
        assert commit is not None
        found.append(artifacts.load(commit.artifacts["moments"], "moments"))
    assert sorted(found[0], key=found[0].get)[:5] == ["process", "agent", "fetched", "shared", "forked"]
    assert found[0]["agent"] == found[1]["agent"]
    assert found[0]["forked"] < found[1]["forked"]


def test_the_log_of_a_branch_has_its_limit(tmp_path: Path) -> None:
    shared = pod(tmp_path, "print('x' * 3_000_000)", K8SFLOW_LOG_LIMIT_MB="1")
    _, message, _ = shared.ended()
    assert "limit" in message.ends[0].note
    assert len(shared.runner.run_store.read_log("work", "4", 0, "stdout")) < 2_000_000


def test_branches_of_a_file_that_can_not_be_loaded_all_say_so(tmp_path: Path) -> None:
    code, message, _ = pod(tmp_path, "pass", "--file=missing.py").ended()
    assert code == 1
    assert {end.outcome for end in message.ends.values()} == {Outcome.USER_ERROR}
    assert "missing.py can't be loaded in the pod" in message.ends[3].explained.summary


results = st.builds(
    TaskResult,
    st.just(Outcome.SUCCEEDED),
    st.builds(Transition, st.just(("join",)), st.one_of(st.none(), st.integers(0, 9))),
) | st.builds(lambda text: failed(Outcome.USER_ERROR, text, text * 30, "fix it"), st.text(max_size=80))


@given(st.dictionaries(st.integers(0, 300), results, max_size=200))
def test_what_a_message_has_is_true_and_it_is_short(ends: Mapping[int, TaskResult]) -> None:
    """A failure may have lost its details, and an end may be missing; none is wrong."""
    text = SharedEnds(ends).to_termination_message()
    assert len(text.encode()) <= TERMINATION_MESSAGE_BYTES
    for position, found in SharedEnds.from_json(text).ends.items():
        assert (found.outcome, found.transition) == (ends[position].outcome, ends[position].transition)


def test_a_thousand_branches_that_succeed_fit_into_a_message() -> None:
    ends = dict.fromkeys(range(1000), DONE)
    assert SharedEnds.from_json(SharedEnds(ends).to_termination_message()).ends == ends


@given(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=40), st.sampled_from(["0", "3.17-2"]))
def test_output_of_a_task_is_read_as_its_own(stream: OutputStream, data: bytes, task: str) -> None:
    encoder = Encoder(stream, task)
    lines = (encoder.feed(data) + encoder.flush()).split(b"\n")[:-1]
    pieces = [piece for piece in map(decode, lines) if isinstance(piece, Piece)]
    assert len(pieces) == len(lines)
    assert {(piece.stream, piece.task) for piece in pieces} <= {(stream, task)}
    assert b"".join(piece.data for piece in pieces) == data
    assert decode(encode_result("{}", task).rstrip(b"\n")) == ResultLine("{}", task)
