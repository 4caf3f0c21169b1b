"""Commands that inspect a cluster, run from another machine with only the documented Role."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kind.conftest import FLOWS, Namespace
from tests.kind.terminal import Terminal, start
from tests.kind.test_faults import kubeconfig_with_token

KUBERNETES = ("--with", "kubernetes")
INSTALL = Path(__file__).parents[2] / "manifests" / "install.yaml"
# Another machine: a host name and process ids of its own, which the lease looks at, and another folder.
ELSEWHERE = (
    "unshare",
    "--uts",
    "--pid",
    "--fork",
    "--mount-proc",
    "sh",
    "-c",
    'hostname "$0"; cd "$1"; shift; exec "$@"',
)
EXECUTE = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
DOCTOR = "from k8sflow.cli.main import main; main()"
AWKWARD = """it's "quoted", $(id) `id` \\ ünï=日本"""


@dataclass
class User:
    """A person with the Role ``k8sflow-user``, at two machines."""

    namespace: Namespace
    kubeconfig: Path
    folder: Path
    terminals: list[Terminal] = field(default_factory=list)

    def here(self, *arguments: str) -> Terminal:
        """Start a command of the flow at the first machine."""
        return self.namespace.command("fan.py", *arguments, KUBECONFIG=str(self.kubeconfig))

    def elsewhere(self, *arguments: str) -> Terminal:
        """Start a command at the second one, which has a copy of the flow, and another home."""
        return self._python(str(self.folder / "fan.py"), *arguments)

    def doctor(self, *arguments: str) -> Terminal:
        """Start the doctor at the second machine."""
        return self._python("-c", DOCTOR, "doctor", *arguments)

    def _python(self, *arguments: str) -> Terminal:
        environment = {**self.namespace.environment, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)}
        as_root = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        host = (ELSEWHERE[0], *as_root, *ELSEWHERE[1:], "other-machine", str(self.folder), sys.executable, *arguments)
        self.terminals.append(start(["-c", EXECUTE, *host], environment))
        return self.terminals[-1]


@pytest.fixture(scope="module")
def user(namespace: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A user with exactly the documented Role."""
    account, folder = f"user-{secrets.token_hex(3)}", tmp_path_factory.mktemp("elsewhere")
    roles = [each for each in yaml.safe_load_all(INSTALL.read_text()) if each["kind"] == "Role"]
    role = next(each for each in roles if each["metadata"]["name"] == "k8sflow-user")
    role["metadata"]["namespace"] = namespace.name
    namespace.kubectl("create", "serviceaccount", account)
    namespace.kubectl("apply", "-f", "-", stdin=json.dumps(role))
    subject = f"--serviceaccount={namespace.name}:{account}"
    namespace.kubectl("create", "rolebinding", account, "--role=k8sflow-user", subject)
    shutil.copy(FLOWS / "fan.py", folder)
    found = User(namespace, kubeconfig_with_token(namespace, folder, account), folder)
    yield found
    for terminal in found.terminals:
        terminal.kill()


@pytest.fixture(scope="module")
def taken_over(user: User) -> tuple[str, Terminal]:
    """A run whose driver was killed, and the attach on another machine, which waits for half a minute of silence."""
    run = f"over-{user.namespace.name}"
    driver = user.here("run", "--seconds", "25", "--width", "1", "--run-id", run, *KUBERNETES)
    driver.seen(r"\[work/0\] tick 1$")
    driver.kill()
    return run, user.elsewhere("attach", run)


def test_the_doctor_finds_a_usable_cluster_with_the_documented_role(
    user: User, taken_over: tuple[str, Terminal]
) -> None:
    """It skips what the Role doesn't allow it to read, and leaves neither a Job nor a value of a Secret behind."""
    done = user.doctor("--json").wait(60)
    rows = {row["title"]: row for row in json.loads(done.text)}
    assert done.code == 0, done.text
    assert {title for title, row in rows.items() if row["status"] == "failed"} == set()
    assert rows["permissions"]["status"] == rows["from a pod"]["status"] == rows["from here"]["status"] == "ok"
    assert rows["quotas"]["status"] == rows["admission"]["status"] == "skipped"
    assert user.namespace.objects("jobs", "k8sflow.dev/flow=doctor") == []
    assert user.namespace.environment["AWS_SECRET_ACCESS_KEY"] not in done.text


def test_a_run_is_seen_and_killed_from_another_machine(user: User, taken_over: tuple[str, Terminal]) -> None:
    """Its driver ends it as cancelled, and says by whom; tags with quotes and commands in them do no harm."""
    run = f"killed-{user.namespace.name}"
    driver = user.here("run", "--seconds", "60", "--width", "1", "--run-id", run, "--tag", AWKWARD, *KUBERNETES)
    driver.seen(r"\[work/0\] tick 1$")
    listed = user.elsewhere("kubernetes", "list", "--run-id", run)
    follower = user.elsewhere("kubernetes", "logs", f"{run}/work/0", "--follow")
    described = user.elsewhere("kubernetes", "describe", f"{run}/work/0")
    assert re.search(rf"^{run}  work/0  0        running ", listed.wait(30).text, re.MULTILINE), listed.text
    assert "Started: Started container task" in described.wait(30).text
    follower.seen(r"^tick 3$")
    killing = user.elsewhere("kubernetes", "kill", "--run-id", run, "--yes").wait(60)
    assert killing.code == 0, killing.text
    assert re.search(rf"Fan/{run} was cancelled by \S+ on other-machine; its Jobs are deleted", killing.text)
    assert driver.wait(30).code == 130, driver.text
    assert re.search(rf"Fan/{run} was cancelled by \S+ on other-machine in ", driver.text), driver.text
    assert follower.wait(30).code == 0, follower.text
    assert user.namespace.objects("jobs", f"k8sflow.dev/run={run}") == []


def test_no_object_has_a_secret_value_or_a_token(user: User, taken_over: tuple[str, Terminal]) -> None:
    """Neither Jobs, pods and config maps, nor events; the Secret itself is the user's own."""
    kinds = "jobs,pods,configmaps,events,serviceaccounts"
    found = user.namespace.kubectl("get", kinds, "-o", "json")
    key = user.namespace.environment["AWS_SECRET_ACCESS_KEY"]
    assert taken_over[0] in found
    assert key not in found
    assert base64.b64encode(key.encode()).decode() not in found
    for pod in user.namespace.objects("pods"):
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert not any("projected" in volume for volume in pod["spec"]["volumes"])


def test_a_run_is_taken_over_on_another_machine(
    user: User, taken_over: tuple[str, Terminal], client: Callable[[str], Any]
) -> None:
    """Another host, home and working folder with the same bucket; the running pod isn't started again (I5)."""
    run, second = taken_over
    assert second.wait(90).code == 0, second.text
    assert f"Fan/{run} is driven by process" in second.text
    assert "Its driver died; this process is taking over." in second.text
    assert client(f"Fan/{run}").successful
    pods = user.namespace.objects("pods", f"k8sflow.dev/run={run}")
    steps = [pod["metadata"]["annotations"]["k8sflow.dev/step"] for pod in pods]
    assert len(steps) == len(set(steps)), steps
