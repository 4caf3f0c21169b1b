"""The bucket's keys are replaced in the middle of a run, and the old ones are refused."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import replace

from tests.kind.conftest import Namespace
from tests.kind.own_s3 import namespace_of_s3, with_own_s3
from tests.kind.test_faults import KUBERNETES, is_empty

NEW_KEY = "another-secret"


def rotate(namespace: Namespace) -> None:
    """Give the server and the pods that start from now on another key."""
    server = ("--namespace", namespace_of_s3(namespace))
    data = base64.b64encode(NEW_KEY.encode()).decode()
    patch = json.dumps({"data": {"AWS_SECRET_ACCESS_KEY": data}})
    namespace.kubectl("patch", "secret", "k8sflow-s3", "--type=merge", "-p", patch)
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
        assert failed.code == 1, failed.text
        assert "doesn't accept the keys" in failed.text
        assert "Traceback" not in failed.text
        assert done.code == 0, done.text
        assert "[end/0] total 1" in done.text
        assert is_empty(namespace, run)
