"""The controller's command line."""

from __future__ import annotations

import pytest

from k8sflow.controller.__main__ import parser, policy_of
from k8sflow.controller.flowrun_policy import Policy


def test_options_default_to_those_of_the_policy() -> None:
    options = parser().parse_args(["--namespace=lab", "--image=k8sflow:1"])
    assert policy_of(options) == Policy(image="k8sflow:1")
    assert options.namespace == ["lab"]


def test_every_option_reaches_the_policy() -> None:
    options = parser().parse_args(
        [
            "--namespace=a", "--namespace=b", "--image=i", "--image-pull-policy=Never", "--image-pull-secret=s",
            "--allow-driver-image=j", "--driver-service-account=d", "--task-service-account=t",
            "--allow-task-service-account=u", "--allow-task-option=secrets",
            "--driver-cpu=1", "--driver-memory=1Gi", "--driver-restarts=2",
            "--driver-ttl-seconds=9",
        ]
    )  # fmt: skip
    assert policy_of(options) == Policy(
        image="i",
        driver_images=("j",),
        driver_service_account="d",
        task_service_account="t",
        task_service_accounts=("u",),
        task_options=("secrets",),
        image_pull_policy="Never",
        image_pull_secrets=("s",),
        driver_cpu="1",
        driver_memory="1Gi",
        driver_restarts=2,
        ttl_seconds=9,
    )
    assert options.namespace == ["a", "b"]


def test_a_namespace_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--image=i"])
    assert "--namespace" in capsys.readouterr().err
