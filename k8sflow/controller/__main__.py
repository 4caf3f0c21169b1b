"""``python -m k8sflow.controller``: the controller's process."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from k8sflow.controller.flowrun_policy import Policy


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the controller with the options of its command line."""
    options = parser().parse_args(arguments)
    from k8sflow.controller import operator  # noqa: PLC0415  --help needs no kopf

    operator.run(policy_of(options), options.namespace, options.port)


def policy_of(options: argparse.Namespace) -> Policy:
    """The policy in the options of the command line."""
    return Policy(
        image=options.image,
        driver_images=tuple(options.allow_driver_image),
        driver_service_account=options.driver_service_account,
        task_service_account=options.task_service_account,
        task_service_accounts=tuple(options.allow_task_service_account),
        task_options=tuple(options.allow_task_option),
        image_pull_policy=options.image_pull_policy,
        image_pull_secrets=tuple(options.image_pull_secret),
        driver_cpu=options.driver_cpu,
        driver_memory=options.driver_memory,
        driver_restarts=options.driver_restarts,
        ttl_seconds=options.driver_ttl_seconds,
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m k8sflow.controller", description="Starts drivers of FlowRuns.")

    def names(option: str, about: str, *, required: bool = False) -> None:
        found.add_argument(option, action="append", default=[], metavar="NAME", required=required, help=about)

    names(
        "--namespace", "namespace to watch for FlowRuns; repeatable, like all options that take a NAME", required=True
    )
    found.add_argument("--image", required=True, help="the k8sflow image, used for drivers")
    found.add_argument("--image-pull-policy", default=Policy.image_pull_policy)
    names("--image-pull-secret", "Secret for pulling the driver's image")
    names("--allow-driver-image", "another image that a FlowRun may choose for its driver")
    found.add_argument("--driver-service-account", default=Policy.driver_service_account, metavar="NAME")
    found.add_argument(
        "--task-service-account",
        default=Policy.task_service_account,
        metavar="NAME",
        help="service account of tasks whose flow names none",
    )
    names("--allow-task-service-account", "another service account that a flow may choose for its tasks")
    names("--allow-task-option", "a guarded option of @kubernetes that a flow may use, such as secrets")
    found.add_argument("--driver-cpu", default=Policy.driver_cpu, metavar="QUANTITY")
    found.add_argument("--driver-memory", default=Policy.driver_memory, metavar="QUANTITY", help="request and limit")
    found.add_argument(
        "--driver-restarts", type=int, default=Policy.driver_restarts, help="how often a dead driver is restarted"
    )
    found.add_argument(
        "--driver-ttl-seconds",
        type=int,
        default=Policy.ttl_seconds,
        help="how long the Jobs of finished drivers are kept",
    )
    found.add_argument("--port", type=int, default=8080, help="port of the liveness probe, /healthz")
    return found


if __name__ == "__main__":
    main()
