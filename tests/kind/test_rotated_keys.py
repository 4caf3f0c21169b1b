"""The bucket's keys are replaced, or expire, in the middle of a run, and the old ones are refused."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import replace

from tests.kind.conftest import Namespace
from tests.kind.own_s3 import namespace_of_s3, with_own_s3
from tests.kind.proxy import commit_proxy
from tests.kind.test_faults import KUBERNETES, live_pods

NEW_KEY = "another-secret"


def give_pods(namespace: Namespace, key: str) -> None:
    """Give the pods that start from now on another key."""
    patch = json.dumps({"data": {"AWS_SECRET_ACCESS_KEY": base64.b64encode(key.encode()).decode()}})
    namespace.kubectl("patch", "secret", "k8sflow-s3", "--type=merge", "-p", patch)


def rotate(namespace: Namespace) -> None:
    """Give the server and the pods that start from now on another key."""
    server = ("--namespace", namespace_of_s3(namespace))
    data = base64.b64encode(NEW_KEY.encode()).decode()
    give_pods(namespace, NEW_KEY)
    patch = json.dumps({"data": {"ROOT_SECRET_KEY": data}})
    namespace.kubectl(*server, "patch", "secret", "keys", "--type=merge", "-p", patch)
    namespace.kubectl(*server, "rollout", "restart", "deployment/s3")
    namespace.kubectl(*server, "rollout", "status", "deployment/s3", "--timeout=60s")


def test_replaced_keys_end_the_run_with_advice_and_it_can_be_resumed(namespace: Namespace) -> None:
    """A process has its keys from its start: it doesn't wait for ever, and what it finished is kept."""
    run = f"k{secrets.token_hex(6)}"
    with with_own_s3(namespace) as own:
        running = own.start("fan.py", "--seconds", "8", "--run-id", run, "--width", "2", *KUBERNETES)
        running.seen(r"\[work/0\] tick 1$")
        running.seen(r"\[work/1\] tick 1$")
        rotate(own)
        failed = running.wait(120)
        new = replace(own, environment={**own.environment, "AWS_SECRET_ACCESS_KEY": NEW_KEY})
        done = new.command("fan.py", "resume", *KUBERNETES).wait(120)
        give_pods(namespace, namespace.environment["AWS_SECRET_ACCESS_KEY"])
        assert failed.code == 1, failed.text
        assert "doesn't accept the keys" in failed.text
        assert "Traceback" not in failed.text
        assert done.code == 0, done.text
        assert "[end/0] total 1" in done.text
        assert not live_pods(namespace, run)


def test_expired_keys_of_the_pods_end_the_run_with_advice_and_it_can_be_resumed(namespace: Namespace) -> None:
    """A pod has those of its Secret from its start; nothing waits for them, and nothing is run again with them."""
    run = f"e{secrets.token_hex(6)}"
    with commit_proxy(namespace, before=set(), after=set()) as (proxy, url):
        inside = {"K8SFLOW_IN_CLUSTER_ENDPOINT": url}
        arguments = ("--seconds", "8", "--run-id", run, "--width", "2", *KUBERNETES)
        running = namespace.start("fan.py", *arguments, **inside)
        running.seen(r"\[work/0\] tick 1$")
        running.seen(r"\[work/1\] tick 1$")
        proxy.keys_expired.set()
        failed = running.wait(120)
        proxy.keys_expired.clear()
        done = namespace.command("fan.py", "resume", "--origin-run-id", run, *KUBERNETES, **inside).wait(120)
    assert failed.code == 1, failed.text
    assert "failed (storage error)" in failed.text
    assert "any more: they have expired (ExpiredToken)" in failed.text
    assert "for pods in the Secret that the setting credentials names" in failed.text
    assert "Traceback" not in failed.text
    assert "run again" not in failed.text
    assert done.code == 0, done.text
    assert "[end/0] total 1" in done.text
    assert not live_pods(namespace, run)
