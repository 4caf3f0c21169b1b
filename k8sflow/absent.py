"""Names of Metaflow that k8sflow doesn't have. Importing one is an error that names the alternative."""

from __future__ import annotations

_INTERNAL = "It is a part of Metaflow's own code; k8sflow's is another."
_INSTEAD = {
    "package_sources": "The folder of the flow's file is packaged whole; .k8sflowignore leaves files out.",
    "R": "k8sflow runs flows in Python only.",
    "EXT_PKG": "Packages extend k8sflow by entry points: see k8sflow.plugins.",
    **dict.fromkeys(
        (
            "airflow_internal",
            "argo_workflows_internal",
            "cli_args",
            "cmd_with_io",
            "datastore",
            "debug",
            "event_logger",
            "extension_support",
            "graph",
            "meta_files",
            "metadata_provider",
            "metaflow_config_funcs",
            "metaflow_environment",
            "metaflow_git",
            "mflog",
            "monitor",
            "package",
            "packaging_sys",
            "sidecar",
            "step_functions_internal",
            "system_context",
            "tagging_util",
            "tracing",
            "tuple_util",
            "unbounded_foreach",
            "unbounded_test_foreach_internal",
        ),
        _INTERNAL,
    ),
    **dict.fromkeys(
        ("airflow_external_task_sensor", "airflow_s3_key_sensor"),
        "k8sflow makes no DAGs of Airflow. A BashOperator or a KubernetesPodOperator calls `python flow.py run`.",
    ),
}


def message(name: str) -> str | None:
    """The message of the error for a name of Metaflow's; None if k8sflow says nothing about it."""
    instead = _INSTEAD.get(name)
    return None if instead is None else f"k8sflow has no {name}, which Metaflow has. {instead}"


def module(name: str) -> str:
    """The message of the error for a module of Metaflow's that k8sflow doesn't have.

    Args:
        name: Its name, without ``metaflow``.
    """
    return (
        f"k8sflow has no module {name}, which Metaflow may have. The names that Metaflow documents are in k8sflow "
        "itself, and in k8sflow.cards, k8sflow.exception and k8sflow.plugins."
    )


def inner(parent: str, name: str) -> str:
    """The message of the error for a name, or a module, that k8sflow doesn't have in one of Metaflow's modules.

    Args:
        parent: The name of the module, with ``metaflow`` or ``k8sflow``.
        name: What was imported from it.
    """
    known = _INSTEAD.get(name)
    advice = known or "The names that Metaflow documents are there, and in k8sflow itself; others are its own code's."
    return f"k8sflow has no {name} in {parent}, where Metaflow may have it. {advice}"
