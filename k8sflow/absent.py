"""Names of Metaflow that k8sflow doesn't have. Importing one is an error that names the alternative."""

from __future__ import annotations

_PACKAGES = "Write @pypi and @pypi_base, with the names that the packages have on PyPI (docs/environments.md)."
_EVENTS = "k8sflow has no event bus: @trigger is recorded with the run, and starts none."
_INSTEAD = {
    **dict.fromkeys(("conda", "conda_base"), _PACKAGES),
    **dict.fromkeys(
        ("conda_environment_yml_parser", "pyproject_toml_parser", "requirements_txt_parser"),
        _PACKAGES,
    ),
    "pytorch_parallel": "Use @parallel: current.parallel and the variables MASTER_ADDR, RANK and WORLD_SIZE are set "
    "for torch.distributed (docs/flows.md, Distributed training).",
    "namespaced_event_name": _EVENTS,
    "NBDeployer": "Write the flow to a file, and use Deployer.",
    "inspect_spin": "Task(pathspec) reads the results of spin, which are in the same store as runs.",
    "package_sources": "The folder of the flow's file is packaged whole; .k8sflowignore leaves files out.",
    **dict.fromkeys(
        ("airflow_external_task_sensor", "airflow_s3_key_sensor"),
        "k8sflow makes no DAGs of Airflow. A BashOperator or a KubernetesPodOperator calls `python flow.py run`.",
    ),
}


def message(name: str) -> str | None:
    """The message of the error for a name of Metaflow's; None if k8sflow says nothing about it."""
    instead = _INSTEAD.get(name)
    return None if instead is None else f"k8sflow has no {name}, which Metaflow has. {instead}"
