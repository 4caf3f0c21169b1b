"""Environment variables that a step can't set in its pod: keys, and those by which a run works."""

from __future__ import annotations

from collections.abc import Iterable

from k8sflow import azure_account, roots
from k8sflow.flow.decorators.parsers import SecretValueError

# Every object that holds them could be read by anyone who may list Jobs, and so could the run's record.
KEYS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *(azure_account.CONNECTION_STRING, azure_account.KEY, azure_account.SAS),
)
# Set in each pod by its Job or its agent.
_OF_THE_POD = (
    "K8SFLOW_CPUS",
    "K8SFLOW_LOG_FD",
    "K8SFLOW_MAIN_ADDRESS",
    "K8SFLOW_MEMORY_BYTES",
    "K8SFLOW_NODE",
    "K8SFLOW_POD",
    "K8SFLOW_POD_PYTHONPATH",
    "K8SFLOW_POD_UID",
    "K8SFLOW_PREEMPTION_NOTICE",
    "K8SFLOW_PYTHONPATH",
    "K8SFLOW_RESULT_FD",
    "K8SFLOW_TEMPDIR",
)
# Settings by which a task finds its run's bucket and stores its result.
_SETTINGS = (
    azure_account.ENDPOINT,
    roots.EMULATOR_OF_GOOGLE,
    "K8SFLOW_BUCKET",
    "K8SFLOW_COMPRESSION",
    "K8SFLOW_CREDENTIALS",
    "K8SFLOW_DATASTORE",
    "K8SFLOW_DEFAULT_SECRETS_BACKEND_TYPE",
    "K8SFLOW_ENDPOINT",
    "K8SFLOW_IN_CLUSTER_ENDPOINT",
    "K8SFLOW_LOG_LIMIT_MB",
    "K8SFLOW_REGION",
    "K8SFLOW_ROOT",
    "K8SFLOW_S3_ANONYMOUS",
    "K8SFLOW_S3_CA_BUNDLE",
    "K8SFLOW_S3_PROXY",
    "K8SFLOW_S3_REQUESTER_PAYS",
    "K8SFLOW_S3_WRITE_HEADERS",
    "K8SFLOW_STORAGE_PATIENCE_SECONDS",
)
OF_THE_RUN = (*_OF_THE_POD, *_SETTINGS)


def check_names(names: Iterable[str]) -> None:
    """Returns if a step may set variables of these names in its pod.

    Raises:
        ValueError: It may not set one of them.
    """
    for name in names:
        if name in KEYS:
            raise SecretValueError(
                f"{name} would be readable in the Job and in the run's record; name a Secret with it in "
                "@kubernetes(secrets=…), or use @secrets"
            )
        if name in _OF_THE_POD:
            raise ValueError(f"{name} is set by k8sflow in each pod and job")
        if name in _SETTINGS:
            raise ValueError(
                f"{name} is a setting by which the task stores its result; set it where the run is started"
            )
