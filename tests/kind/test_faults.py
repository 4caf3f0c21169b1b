"""Faults from outside: the bucket unreachable, containers killed, signals, permissions revoked."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster import images
from tests.kind.conftest import FLOWS, Namespace
from tests.kind.own_s3 import namespace_of_s3, with_own_s3
from tests.kind.terminal import Terminal
from tests.kind.test_controller import Controller
from tests.support import wait_for

KUBERNETES = ("--with", "kubernetes")
TIMEOUTS = 20
TIMEOUTS_AT_A_TIME = 4


@pytest.fixture(scope="module")
def namespace(namespace: Namespace) -> Iterator[Namespace]:
    """A namespace with an S3 server of its own."""
    with with_own_s3(namespace) as own:
        yield own


@contextmanager
def bucket_away(namespace: Namespace) -> Iterator[None]:
    """No S3 server while the block runs; its data stays."""
    server = ("--namespace", namespace_of_s3(namespace))
    scale = (*server, "scale", "deployment/s3")
    namespace.kubectl(*scale, "--replicas=0")
    try:
        namespace.kubectl(*server, "wait", "pods", "--selector=app=s3", "--for=delete", "--timeout=60s")
        yield
    finally:
        namespace.kubectl(*scale, "--replicas=1")
        namespace.kubectl(*server, "rollout", "status", "deployment/s3", "--timeout=60s")


@pytest.fixture(scope="module")
def controller(namespace: Namespace) -> Iterator[Controller]:
    release = Controller(namespace)
    release.install()
    yield release
    release.helm("uninstall", "k8sflow", "--ignore-not-found", "--wait")


def log_of(namespace: Namespace, run: str, task: str) -> list[str]:
    """A task's stored output, line by line."""
    done = namespace.command("fan.py", "logs", f"{run}/{task}").wait(60)
    assert done.code == 0, done.text
    return done.text.splitlines()


def ticks(count: int) -> list[str]:
    return [f"tick {number}" for number in range(count)]


def attempts(namespace: Namespace, run: str) -> Counter[str]:
    """The number of Jobs of each task of a run."""
    jobs = namespace.objects("jobs", f"k8sflow.dev/run={run.partition('/')[2]}")
    notes = [job["metadata"]["annotations"] for job in jobs]
    return Counter(f"{note['k8sflow.dev/step']}/{note['k8sflow.dev/task']}" for note in notes)


def is_empty(namespace: Namespace, run_id: str) -> bool:
    """Report if no object of a run remains."""
    return not any(namespace.objects(kind, f"k8sflow.dev/run={run_id}") for kind in ("jobs", "pods", "configmaps"))


def live_pods(namespace: Namespace, run_id: str) -> list[str]:
    """The pods of a run that have not ended."""
    pods = namespace.objects("pods", f"k8sflow.dev/run={run_id}")
    return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] in {"Pending", "Running"}]


# ---------------------------------------------------------------------- the bucket becomes unreachable


def test_stored_logs_are_complete_after_an_outage(namespace: Namespace) -> None:
    """The bucket is unreachable while tasks write: every line is stored, once (F1)."""
    running = namespace.start("fan.py", "--seconds", "15", *KUBERNETES)
    running.seen(r"\[work/2\] tick 2$")
    with bucket_away(namespace):
        running.seen(r"\[work/2\] tick 18$")
    done = running.wait(120)
    assert done.code == 0, done.text
    assert "Traceback" not in done.text
    assert "BufferError" not in done.text
    for task in ("work/0", "work/1", "work/2"):
        # On a busy machine, the bucket may not be back when the task ends, which then says that it waits.
        assert [line for line in log_of(namespace, done.run, task) if "[k8sflow]" not in line] == ticks(30)


def test_a_finished_task_waits_for_the_bucket_with_its_result(
    namespace: Namespace, client: Callable[[str], Any]
) -> None:
    """It waits for three quarters of a minute, which is reported; no task runs twice (F3)."""
    running = namespace.start("fan.py", "--seconds", "9", "--last", "60", "--width", "2", *KUBERNETES)
    running.seen(r"\[work/1\] tick 2$")
    with bucket_away(namespace):
        running.seen(r"\[work/0\] \[k8sflow\] .* can't be reached .* Retrying for up to 10 min", 90)
        running.seen(r"\[work/1\] tick 108$", 90)
    running.seen(r"\[work/0\] \[k8sflow\] The bucket answers again")
    done = running.wait(120)
    assert done.code == 0, done.text
    assert client(done.run)["end"].task.data.total == 1
    assert set(attempts(namespace, done.run).values()) == {1}
    assert [line for line in log_of(namespace, done.run, "work/0") if "[k8sflow]" not in line] == ticks(18)


def test_a_detached_run_survives_the_same(controller: Controller, client: Callable[[str], Any]) -> None:
    """Its driver in the cluster survives too, and the FlowRun succeeds."""
    namespace = controller.namespace
    run = controller.detach("fan.py", "--seconds", "10", "--width", "1")
    wait_for(lambda: "tick 2" in run.log, 90)
    with bucket_away(namespace):
        wait_for(lambda: "can't be reached" in run.log, 90)
    assert run.wait_for_end()["phase"] == "Succeeded", run.log
    assert client(run.run)["end"].task.data.total == 0
    assert set(attempts(namespace, run.run).values()) == {1}


def test_the_end_of_patience_is_an_infrastructure_failure(namespace: Namespace) -> None:
    """The task runs again after a pause, at no cost to the user; the message says that it does."""
    running = namespace.start(
        "fan.py", "--seconds", "16", "--width", "1", *KUBERNETES, K8SFLOW_STORAGE_PATIENCE_SECONDS="3"
    )
    running.seen(r"\[work/0\] tick 2$")
    with bucket_away(namespace):
        running.seen(r"\[work/0\] .*can't be reached.*run again in .*costs no retry", 120)
    done = running.wait(180)
    assert done.code == 0, done.text
    assert attempts(namespace, done.run)["work/0"] >= 2


def test_a_run_can_be_cancelled_while_the_bucket_is_unreachable(namespace: Namespace) -> None:
    """Nothing waits for the bucket then; Jobs and pods are deleted, and the last lines say that it was cancelled."""
    run = f"c{secrets.token_hex(6)}"
    running = namespace.start("fan.py", "--seconds", "8", "--width", "2", "--run-id", run, *KUBERNETES)
    running.seen(r"\[work/1\] tick 2$")
    with bucket_away(namespace):
        running.seen("can't be reached", 90)
        running.interrupt()
        assert running.wait(90).code == 130, running.text
        assert f"Fan/{run} was cancelled in" in running.text
        assert "Traceback" not in running.text
        assert is_empty(namespace, run)


# ---------------------------------------------------------------------- parts of the cluster stop for a while


@contextmanager
def signalled(namespace: Namespace, process: str) -> Iterator[None]:
    """A process of the node is stopped while the block runs."""
    in_node = namespace.cluster.kind.in_node
    in_node("pkill", "-STOP", "--exact", process, doing=f"stop {process}")
    try:
        yield
    finally:
        in_node("pkill", "-CONT", "--exact", process, doing=f"continue {process}")


@contextmanager
def kubelet_away(namespace: Namespace) -> Iterator[None]:
    """No kubelet while the block runs; its pods run on."""
    in_node = namespace.cluster.kind.in_node
    in_node("systemctl", "stop", "kubelet", doing="stop the kubelet")
    try:
        yield
    finally:
        in_node("systemctl", "start", "kubelet", doing="start the kubelet")


@contextmanager
def room_for_one_pod(namespace: Namespace) -> Iterator[None]:
    """Have a quota for one pod more than there are, such as the controller's of an earlier test."""
    live = [pod for pod in namespace.objects("pods") if pod["status"]["phase"] in {"Pending", "Running"}]
    namespace.kubectl("create", "quota", "one-pod", f"--hard=pods={len(live) + 1}")
    try:
        yield
    finally:
        namespace.kubectl("delete", "quota", "one-pod")


@pytest.mark.destructive
def test_a_run_survives_a_full_quota_and_stops_of_etcd_the_kubelet_and_its_driver(
    namespace: Namespace, client: Callable[[str], Any]
) -> None:
    """Each is reported while it lasts, live output comes back, and no task runs twice (F5, F6)."""
    with room_for_one_pod(namespace):
        running = namespace.start("fan.py", "--seconds", "14", "--width", "2", *KUBERNETES)
        running.seen(r"\[start/0\] started")
        with signalled(namespace, "etcd"):
            running.seen(r"API server .* (has not answered a request|can't serve requests|can't be reached)", 30)
        running.seen("The API server answers again, after")
        running.seen(r"waits: the namespace's quota is used up")
    running.seen(r"\[work/0\] tick 1$", 60)
    running.seen(r"\[work/1\] tick 1$", 60)
    with kubelet_away(namespace):
        running.seen(r"\[work/1\] its output can't be shown now", 20)
    running.seen(r"\[work/1\] Its output is shown again", 30)
    running.process.send_signal(signal.SIGSTOP)
    run = next(iter(namespace.objects("pods", "k8sflow.dev/flow=Fan,k8sflow.dev/step=work")))
    selector = f"--selector=k8sflow.dev/run={run['metadata']['labels']['k8sflow.dev/run']}"
    namespace.kubectl("wait", "jobs", selector, "--for=condition=Complete", "--timeout=90s")
    running.process.send_signal(signal.SIGCONT)
    done = running.wait(60)
    assert done.code == 0, done.text
    assert client(done.run)["end"].task.data.total == 1
    assert set(attempts(namespace, done.run).values()) == {1}
    assert log_of(namespace, done.run, "work/1") == ticks(28)


def test_what_a_dead_driver_leaves_ends_with_its_lease(namespace: Namespace) -> None:
    """Once the week is over, Job controller and garbage collector delete everything, a running pod too (F10)."""
    run = f"d{secrets.token_hex(6)}"
    running = namespace.start("fan.py", "--seconds", "60", "--width", "1", "--run-id", run, *KUBERNETES)
    running.seen(r"\[work/0\] tick 1$")
    running.kill()
    (owner,) = namespace.objects("configmaps", f"k8sflow.dev/run={run}")
    (lease,) = owner["metadata"]["ownerReferences"]
    namespace.kubectl("patch", "job", lease["name"], "--type=merge", "-p", '{"spec":{"activeDeadlineSeconds":1}}')
    wait_for(lambda: is_empty(namespace, run), 60)
    wait_for(lambda: lease["name"] not in namespace.kubectl("get", "jobs", "-o", "name"), 30)


# ---------------------------------------------------------------------- containers are killed externally


def kill_in_node(namespace: Namespace, pod: dict[str, Any], program: str) -> None:
    """Send SIGKILL to the processes of a pod whose command line has a word."""
    uid = pod["metadata"]["uid"]
    script = (
        f"for p in /proc/[0-9]*; do grep -qs -e {uid} -e {uid.replace('-', '_')} $p/cgroup "
        f'&& tr "\\0" " " <$p/cmdline | grep -qs "{program}" && kill -9 ${{p#/proc/}} && echo killed; done; true'
    )
    assert "killed" in namespace.cluster.kind.in_node("sh", "-c", script, doing=f"kill {program}")


def test_a_container_that_is_killed_externally_runs_again(namespace: Namespace, client: Callable[[str], Any]) -> None:
    """SIGTERM and SIGKILL to the agent, and the death of a sandbox, are not a cancellation (F2).

    What the agent had not stored when it was killed is in the store all the same.
    """
    running = namespace.start("fan.py", "--seconds", "20", *KUBERNETES)
    for task in ("work/0", "work/1", "work/2"):
        running.seen(rf"\[{task}\] tick 2$")
    pods = {
        pod["metadata"]["annotations"]["k8sflow.dev/task"]: pod
        for pod in namespace.objects("pods", "k8sflow.dev/flow=Fan")
        if pod["metadata"]["annotations"].get("k8sflow.dev/step") == "work" and pod["status"]["phase"] == "Running"
    }
    namespace.kubectl(
        "exec", pods["0"]["metadata"]["name"], "-c", "task", "--", "python3", "-c", "import os; os.kill(1, 15)"
    )
    kill_in_node(namespace, pods["1"], "pause")
    kill_in_node(namespace, pods["2"], "task.host.agent")
    done = running.wait(180)
    assert done.code == 0, done.text
    assert "cancelled" not in done.text
    assert "ended by SIGTERM (exit code 143)" in done.text
    assert done.text.count("costs no retry") == 3
    text = namespace.command("fan.py", "logs", f"{done.run}/work/2", "--attempt", "0", "--json").wait(60).text
    stored = [json.loads(line)["text"] for line in text.splitlines()]
    assert stored == ticks(len(stored))
    assert len(stored) >= 3
    assert client(done.run)["end"].task.data.total == 0 + 1 + 4
    assert attempts(namespace, done.run)["work/0"] == 2


# ---------------------------------------------------------------------- signals to the driver


def test_timeout_leaves_nothing_running(namespace: Namespace) -> None:
    """coreutils timeout sends SIGTERM to the driver, and to its group a moment later; 20 of 20 are cancelled (F4)."""

    def ended_by_timeout(run: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["timeout", "8", sys.executable, FLOWS / "fan.py", "run", "--run-id", run, "--seconds", "60", *KUBERNETES],
            env=namespace.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=90,
        )  # fmt: skip

    runs = [f"t{secrets.token_hex(6)}" for _ in range(TIMEOUTS)]
    with ThreadPoolExecutor(TIMEOUTS_AT_A_TIME) as pool:
        for run, done in zip(runs, pool.map(ended_by_timeout, runs), strict=True):
            assert f"Fan/{run} was cancelled in" in done.stdout, done.stdout + done.stderr
            assert "Left before" not in done.stderr
            assert is_empty(namespace, run)


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)])
@pytest.mark.destructive
def test_a_second_signal_leaves_nothing(namespace: Namespace, signals: tuple[signal.Signals, ...]) -> None:
    """SIGTERM some seconds after SIGINT changes nothing; a second SIGINT leaves after its deletes are sent."""
    run = f"s{secrets.token_hex(6)}"
    running = namespace.start("fan.py", "--seconds", "60", "--run-id", run, *KUBERNETES)
    running.seen(r"\[work/2\] tick 1$")
    running.process.send_signal(signals[0])
    running.seen("Cancelling")
    wait_for(lambda: _signalled(running, signals[1]))
    assert running.wait(10).code == 130, running.text
    wait_for(lambda: is_empty(namespace, run), 60)


def _signalled(running: Terminal, number: signal.Signals) -> bool:
    running.process.send_signal(number)
    return running.process.poll() is not None


# ---------------------------------------------------------------------- permissions are revoked


RIGHTS = [
    {
        "apiGroups": ["batch"],
        "resources": ["jobs"],
        "verbs": ["create", "get", "list", "patch", "delete", "deletecollection"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "delete"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "delete", "patch"]},
]


def test_revoked_permissions_end_the_run_with_advice(namespace: Namespace, tmp_path: Path) -> None:
    """The first refused Job ends the run; it is not retried (F9)."""
    account = f"driver-{secrets.token_hex(3)}"
    namespace.kubectl("create", "serviceaccount", account)
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": account},
            "rules": RIGHTS}  # fmt: skip
    namespace.kubectl("apply", "-f", "-", stdin=json.dumps(role))
    namespace.kubectl(
        "create", "rolebinding", account, f"--role={account}", f"--serviceaccount={namespace.name}:{account}"
    )
    kubeconfig = kubeconfig_with_token(namespace, tmp_path, account)
    running = namespace.start("fan.py", "--seconds", "12", "--width", "1", *KUBERNETES, KUBECONFIG=str(kubeconfig))
    running.seen(r"\[work/0\] tick 2$")
    lesser = {**role, "rules": [{**rule, "verbs": [v for v in rule["verbs"] if v != "create"]} for rule in RIGHTS]}
    namespace.kubectl("apply", "-f", "-", stdin=json.dumps(lesser))
    done = running.wait(90)
    assert done.code == 1, done.text
    assert "run again" not in done.text
    assert "its Job couldn't be created" in done.text
    assert 'Add the rule {"apiGroups": ["batch"], "resources": ["jobs"]' in done.text


def kubeconfig_with_token(namespace: Namespace, folder: Path, account: str) -> Path:
    """The test's kubeconfig with a service account's token."""
    path = folder / "kubeconfig"
    path.write_text(Path(namespace.environment["KUBECONFIG"]).read_text())
    config = ("config", f"--kubeconfig={path}")
    token = namespace.kubectl("create", "token", account).strip()
    namespace.kubectl(*config, "set-credentials", account, f"--token={token}")
    namespace.kubectl(*config, "set-context", "--current", f"--user={account}")
    return path


def test_an_expired_token_is_read_again(namespace: Namespace, tmp_path: Path) -> None:
    """The user logs in again during the run, which writes another token into the kubeconfig (F9)."""
    account = f"login-{secrets.token_hex(3)}"
    namespace.kubectl("create", "serviceaccount", account)
    namespace.kubectl("create", "rolebinding", account, "--clusterrole=edit",
                      f"--serviceaccount={namespace.name}:{account}")  # fmt: skip
    kubeconfig = kubeconfig_with_token(namespace, tmp_path, account)
    running = namespace.start("fan.py", "--seconds", "20", "--width", "1", *KUBERNETES, KUBECONFIG=str(kubeconfig))
    running.seen(r"\[work/0\] tick 2$")
    # The old token becomes invalid with its account; the new one belongs to another account with the same permissions.
    other = f"{account}-2"
    namespace.kubectl("create", "serviceaccount", other)
    namespace.kubectl("create", "rolebinding", other, "--clusterrole=edit",
                      f"--serviceaccount={namespace.name}:{other}")  # fmt: skip
    document = yaml.safe_load(kubeconfig.read_text())
    token = namespace.kubectl("create", "token", other).strip()
    for user in document["users"]:
        if user["name"] == account:
            user["user"]["token"] = token
    kubeconfig.write_text(yaml.safe_dump(document))
    namespace.kubectl("delete", "serviceaccount", account)
    done = running.wait(120)
    assert done.code == 0, done.text


# ---------------------------------------------------------------------- the environment of user code in a pod


def image_with_path(namespace: Namespace, folder: Path) -> str:
    """A user image with its own PYTHONPATH."""
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text(f"FROM {namespace.cluster.plain_image}\nENV PYTHONPATH=/app/images\n")
    reference = images.ensure(images.Recipe("k8sflow-test/path", {"Dockerfile": dockerfile}),
                              namespace.cluster.kind.engine)  # fmt: skip
    namespace.cluster.load_image(reference)
    return reference


@pytest.mark.parametrize("kind", ["own", "plain", "path"])
def test_user_code_finds_its_variables_its_user_and_its_modules(
    namespace: Namespace, client: Callable[[str], Any], tmp_path: Path, kind: str
) -> None:
    """The images are k8sflow's, one without its passwd entry, and one with a PYTHONPATH (K1 to K3)."""
    image = {
        "own": lambda: namespace.cluster.image,
        "plain": lambda: namespace.cluster.plain_image,
        "path": lambda: image_with_path(namespace, tmp_path),
    }[kind]()
    done = namespace.run("inside.py", *KUBERNETES, K8SFLOW_KUBERNETES_IMAGE=image)
    assert done.code == 0, done.text
    data = client(done.run)["start"].task.data
    assert data.seen == "pa$$word $(HOME)x $HOME ${HOME} $ '\" ü"
    assert (data.user, data.user_of_child) == ("k8sflow", "k8sflow")
    assert (data.entry[0], data.entry[2], data.uid) == ("k8sflow", 65532, 65532)
    assert data.home == data.home_of_user == "/tmp"
    images_own = ["/app/images"] if kind == "path" else []
    assert data.variables["PYTHONPATH"].split(":") == ["/opt/k8sflow", "/app/users", *images_own]
    for path in (data.path, data.path_of_child):
        kept = [part for part in path if part in {"/opt/k8sflow", "/app/users", "/app/images"}]
        assert kept == ["/opt/k8sflow", "/app/users", *images_own]
    assert os.path.isabs(data.entry[5])
