"""Settings from a TOML file and the environment: where the bucket and the cluster are, and how to use them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from k8sflow import roots, s3_options, settings_file, started
from k8sflow.errors import ConfigurationError
from k8sflow.version import VERSION

ROOT_NAME = ".k8sflow"
# As --datastore: the store that wins over the settings root and bucket.
DATASTORE = "K8SFLOW_DATASTORE"
COMPRESSIONS = ("none", "zstd")
ENVIRONMENTS = ("pypi", "conda", "local")
LOG_LEVELS = ("debug", "info", "warning", "error")
_PATIENCE_SECONDS = 600.0
_LOG_LIMIT_MB = 1000.0
_FOLLOWED_TASKS = 20
_INDEXED_FROM = 100
_JOB_TTL_SECONDS = 3600
_ROOT = "the setting root (K8SFLOW_ROOT)"


@dataclass(frozen=True)
class Settings:
    """All settings. Each comes from the environment (``K8SFLOW_<KEY>``), else from the file, else from its default.

    Args:
        root: Where the runs of this machine are kept: a folder, ``s3://bucket/prefix`` (also with ``gs://`` or
            ``az://``); None for the nearest ``.k8sflow`` in the working folder or above it. A relative path starts in
            the folder in which the process was started or, if it is in a file, in that file's folder.
        bucket: ``name`` or ``name/prefix`` of the S3 bucket of runs on Kubernetes, or its URL (``gs://``, ``az://``);
            None for that of ``root``, if it is one.
        credentials: Where pods get the keys of the bucket: ``secret:NAME``, a Secret in the run's namespace with
            AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (``gs://``: key.json, a service account's key; ``az://``:
            AZURE_STORAGE_CONNECTION_STRING), or ``service-account``, the cloud's workload identity.
        endpoint: URL of the S3 server as this machine reaches it; None for AWS.
        in_cluster_endpoint: URL of the S3 server as pods reach it; None if it is the same.
        region: Region of the bucket.
        s3_ca_bundle: PEM file with the certificates by which the S3 server's is verified; None for the system's. A
            relative path starts where that of ``root`` does.
        in_cluster_s3_ca_bundle: The same in pods; None for those of their image.
        s3_proxy: URL of an HTTP proxy to the S3 server; None for that of the environment.
        in_cluster_s3_proxy: The same for pods; None for that of their environment.
        s3_anonymous: ``true`` to send requests without keys, to read public buckets.
        s3_requester_pays: ``true`` to pay for requests to a bucket whose owner doesn't.
        s3_write_headers: Headers of requests that create objects, as ``name=value`` separated by commas.
        storage_patience_seconds: How long a finished task and a run's driver wait for an unreachable bucket;
            None for ten minutes.
        infrastructure_retries: How often a task is run again after infrastructure failures; None for three times.
        infrastructure_pauses_seconds: How long it waits before each of these executions, separated by commas; the last
            pause is repeated. None for ``2,20,120``.
        default_secrets_backend_type: Store of secrets that ``@secrets`` names by their id alone.
        kubernetes_namespace: Namespace of Jobs and pods.
        kubernetes_image: Image of task pods, with Python 3.10 or newer; None for the runtime image.
        kubernetes_runtime_image: The k8sflow image.
        kubernetes_service_account: Service account of task pods; None for the namespace's default.
        kubernetes_followed_tasks: How many tasks show their output while they run, at a time; None for 20.
        kubernetes_context: Context of the kubeconfig; None for its current one.
        kubernetes_annotations, kubernetes_cpu, kubernetes_disk, kubernetes_gpu_vendor, kubernetes_image_pull_policy,
            kubernetes_image_pull_secrets, kubernetes_labels, kubernetes_memory, kubernetes_node_selector,
            kubernetes_persistent_volume_claims, kubernetes_qos, kubernetes_secrets, kubernetes_shared_memory,
            kubernetes_tolerations: The option of ``@kubernetes`` of this name, for steps that don't set it, as it is
            written after ``--with kubernetes:``.
        default_environment: One of ``ENVIRONMENTS``, for commands without ``--environment``; None for ``pypi``.
        default_decospecs: Decorators of every run's steps, as after ``--with``, separated by spaces.
        package_suffixes: Endings of files that the code package keeps whatever their size, separated by commas.
        package_file_limit_mb: The size in megabytes from which it leaves out files that are not code; None for 10.
        package_limit_mb: The size in megabytes of all of its files; None for 100.
        log_limit_mb: How many megabytes of each output stream of a task are stored; None for 1000.
        kubernetes_indexed_from: From how many pods on a foreach is run as Indexed Jobs; None for the default.
        kubernetes_job_ttl_seconds: How long finished Jobs are kept with their pods, to be looked at; None for an hour.
        batch_queue: Job queue of AWS Batch, by name or ARN, for steps that name none.
        batch_image: Image of jobs of AWS Batch, built on the k8sflow image; None for the runtime image.
        batch_job_role: ARN of the IAM role of jobs, which may use the bucket.
        batch_execution_role: ARN of the IAM role by which ECS starts jobs.
        batch_region: Region of the job queue; None for that of the bucket.
        compression: Compression of the artifacts of steps: one of ``COMPRESSIONS``; None for ``none``.
        log: Level from which k8sflow logs to stderr, one of ``LOG_LEVELS``; None for no logging.
    """

    root: str | None = None
    bucket: str | None = None
    credentials: str = "service-account"
    endpoint: str | None = None
    in_cluster_endpoint: str | None = None
    region: str = "us-east-1"
    s3_ca_bundle: str | None = None
    in_cluster_s3_ca_bundle: str | None = None
    s3_proxy: str | None = None
    in_cluster_s3_proxy: str | None = None
    s3_anonymous: str | None = None
    s3_requester_pays: str | None = None
    s3_write_headers: str | None = None
    storage_patience_seconds: str | None = None
    infrastructure_retries: str | None = None
    infrastructure_pauses_seconds: str | None = None
    default_secrets_backend_type: str | None = None
    kubernetes_namespace: str = "default"
    kubernetes_image: str | None = None
    kubernetes_runtime_image: str = f"k8sflow:{VERSION}"
    kubernetes_service_account: str | None = None
    kubernetes_followed_tasks: str | None = None
    kubernetes_context: str | None = None
    kubernetes_annotations: str | None = None
    kubernetes_cpu: str | None = None
    kubernetes_disk: str | None = None
    kubernetes_gpu_vendor: str | None = None
    kubernetes_image_pull_policy: str | None = None
    kubernetes_image_pull_secrets: str | None = None
    kubernetes_labels: str | None = None
    kubernetes_memory: str | None = None
    kubernetes_node_selector: str | None = None
    kubernetes_persistent_volume_claims: str | None = None
    kubernetes_qos: str | None = None
    kubernetes_secrets: str | None = None
    kubernetes_shared_memory: str | None = None
    kubernetes_tolerations: str | None = None
    default_environment: str | None = None
    default_decospecs: str | None = None
    package_suffixes: str | None = None
    package_file_limit_mb: str | None = None
    package_limit_mb: str | None = None
    log_limit_mb: str | None = None
    kubernetes_indexed_from: str | None = None
    kubernetes_job_ttl_seconds: str | None = None
    batch_queue: str | None = None
    batch_image: str | None = None
    batch_job_role: str | None = None
    batch_execution_role: str | None = None
    batch_region: str | None = None
    compression: str | None = None
    log: str | None = None

    def __post_init__(self) -> None:
        if self.root:
            roots.checked(self.root, _ROOT)
        if self.bucket:
            roots.checked(self.bucket, "the setting bucket (K8SFLOW_BUCKET)")
        s3_options.check(self)
        kind, _, name = self.credentials.partition(":")
        if self.credentials != "service-account" and (kind != "secret" or not name):
            raise ConfigurationError(
                f"the setting credentials is {self.credentials!r}.",
                advice='Use "secret:NAME" (a Secret in the namespace of the run) or "service-account".',
            )
        if self.storage_patience_seconds is not None and not _is_amount(self.storage_patience_seconds):
            raise ConfigurationError(
                f"the setting storage_patience_seconds is {self.storage_patience_seconds!r}.",
                advice='Use a number of seconds, such as "600" for ten minutes.',
            )
        self._check_sizes()
        if self.kubernetes_followed_tasks is not None and not self.kubernetes_followed_tasks.isdecimal():
            raise ConfigurationError(
                f"the setting kubernetes_followed_tasks is {self.kubernetes_followed_tasks!r}.",
                advice='Use a number of tasks, such as "20"; "0" shows no output while tasks run.',
            )
        if self.kubernetes_indexed_from is not None and not _is_count(self.kubernetes_indexed_from):
            raise ConfigurationError(
                f"the setting kubernetes_indexed_from is {self.kubernetes_indexed_from!r}.",
                advice='Use a number of pods from 2 on, such as "20".',
            )
        if self.kubernetes_job_ttl_seconds is not None and not self.kubernetes_job_ttl_seconds.isdecimal():
            raise ConfigurationError(
                f"the setting kubernetes_job_ttl_seconds is {self.kubernetes_job_ttl_seconds!r}.",
                advice='Use a whole number of seconds, such as "3600" for an hour; "0" keeps no finished Job.',
            )
        self._check_infrastructure()
        self._check_choice("compression", COMPRESSIONS)
        self._check_choice("default_environment", ENVIRONMENTS)
        if self.log is not None and self.log.lower() not in LOG_LEVELS:
            raise ConfigurationError(
                f"the setting log ({variable('log')}) is {self.log!r}, which is not a log level.",
                advice=f"Use one of {', '.join(LOG_LEVELS)}, or leave it out for no logging.",
            )

    def _check_choice(self, key: str, choices: tuple[str, ...]) -> None:
        if (written := getattr(self, key)) is not None and written not in choices:
            raise ConfigurationError(
                f"the setting {key} ({variable(key)}) is {written!r}.", advice=f"Use one of {', '.join(choices)}."
            )

    def _check_sizes(self) -> None:
        for key in ("log_limit_mb", "package_file_limit_mb", "package_limit_mb"):
            if (written := getattr(self, key)) is not None and not _is_amount(written):
                raise ConfigurationError(
                    f"the setting {key} is {written!r}.", advice='Use a number of megabytes, such as "1000".'
                )

    def _check_infrastructure(self) -> None:
        if self.infrastructure_retries is not None and not re.fullmatch(r"\d{1,4}", self.infrastructure_retries):
            raise ConfigurationError(
                f"the setting infrastructure_retries is {self.infrastructure_retries!r}.",
                advice='Use a whole number, such as "3"; "0" for none.',
            )
        pauses = self.infrastructure_pauses_seconds
        if pauses is not None and not all(map(_is_amount, pauses.split(","))):
            raise ConfigurationError(
                f"the setting infrastructure_pauses_seconds is {pauses!r}.",
                advice='Use numbers of seconds, separated by commas, such as "2,20,120".',
            )

    @property
    def storage_patience(self) -> float:
        """Seconds that a finished task and a run's driver wait for an unreachable bucket."""
        return _PATIENCE_SECONDS if self.storage_patience_seconds is None else float(self.storage_patience_seconds)

    @property
    def log_limit_bytes(self) -> int:
        """The size up to which each output stream of a task is stored."""
        return int((_LOG_LIMIT_MB if self.log_limit_mb is None else float(self.log_limit_mb)) * 1e6)

    @property
    def followed_tasks(self) -> int:
        """The number of tasks on the cluster whose output is shown while they run, at a time."""
        return _FOLLOWED_TASKS if self.kubernetes_followed_tasks is None else int(self.kubernetes_followed_tasks)

    @property
    def indexed_from(self) -> int:
        """From how many pods on a foreach is run as Indexed Jobs."""
        return _INDEXED_FROM if self.kubernetes_indexed_from is None else int(self.kubernetes_indexed_from)

    @property
    def job_ttl_seconds(self) -> int:
        """The time for which finished Jobs are kept."""
        return _JOB_TTL_SECONDS if self.kubernetes_job_ttl_seconds is None else int(self.kubernetes_job_ttl_seconds)

    @property
    def artifact_compression(self) -> str:
        """The compression of the artifacts of steps: ``none`` or ``zstd``."""
        return self.compression or "none"

    @property
    def credentials_secret(self) -> str | None:
        """Name of the Secret with the bucket's keys, or None for workload identity."""
        return self.credentials.partition(":")[2] or None

    @property
    def bucket_url(self) -> str | None:
        """URL of the bucket of runs on Kubernetes, or None if there is none."""
        return roots.url_of(self.bucket) if self.bucket else None

    @property
    def s3_bucket(self) -> str | None:
        """``name`` or ``name/prefix`` of this bucket if it is one of S3."""
        return None if "://" in (self.bucket or "") else self.bucket

    def in_cluster(self) -> Settings:
        """The same settings, as a pod has to use them."""
        return replace(
            self,
            endpoint=self.in_cluster_endpoint or self.endpoint,
            in_cluster_endpoint=None,
            s3_ca_bundle=self.in_cluster_s3_ca_bundle,
            in_cluster_s3_ca_bundle=None,
            s3_proxy=self.in_cluster_s3_proxy,
            in_cluster_s3_proxy=None,
        )

    def to_environment(self) -> dict[str, str]:
        """Environment variables from which ``load`` reads the same settings."""
        values = {variable(f.name): getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


KEYS = tuple(f.name for f in fields(Settings))


def _is_amount(text: str) -> bool:
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False


def _is_count(text: str) -> bool:
    return text.isdecimal() and int(text) > 1


def variable(key: str) -> str:
    """Name of the environment variable for a setting."""
    return f"K8SFLOW_{key.upper()}"


def load(folder: Path, environment: Mapping[str, str] = os.environ, *, working: Path | None = None) -> Settings:
    """The settings for a flow in ``folder``.

    Args:
        folder: Folder to search for the file, before its parents.
        environment: The environment.
        working: Working folder of the process that the environment belongs to; None for the one that this process
            was started in.

    Raises:
        ConfigurationError: The file can't be read, or has an unknown key or an invalid value.
    """
    path, values = settings_file.read(folder, environment, KEYS)
    if path is not None:
        if root := values.get("root"):
            values["root"] = roots.absolute(root, path.absolute().parent, _ROOT)
        if bundle := values.get("s3_ca_bundle"):
            values["s3_ca_bundle"] = str(path.absolute().parent / bundle)
    values |= {key: text for key in KEYS if (text := environment.get(variable(key)))}
    if root := environment.get(variable("root")):
        values["root"] = roots.absolute(root, working or started.FOLDER, _ROOT)
    if bundle := environment.get(variable("s3_ca_bundle")):
        values["s3_ca_bundle"] = str(Path(working or started.FOLDER or "/") / bundle)
    if datastore := environment.get(DATASTORE):  # the only store: runs on Kubernetes are not kept elsewhere
        if named := roots.datastore([datastore], lambda: values.get("root", ""), working):
            values["root"] = named
        values.pop("bucket", None)
    if roots.is_bucket(found := values.get("bucket") or values.get("root") or ""):
        values["bucket"] = roots.bucket_of(found)
    return Settings(**values)


def origins(folder: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variable or the file that each setting for a flow in ``folder`` comes from; defaults are absent.

    Raises:
        ConfigurationError: As ``load``.
    """
    path, values = settings_file.read(folder, environment, KEYS)
    found = dict.fromkeys(values, str(path)) | {key: variable(key) for key in KEYS if environment.get(variable(key))}
    given = environment.get(DATASTORE)
    if given and not roots.is_kind(given):
        found |= {"root": DATASTORE, "bucket": DATASTORE}
    elif "root" in found:
        found.setdefault("bucket", f"root, of {found['root']}")
    return found


def load_here() -> Settings:
    """The settings for the working folder or, if that was deleted, those of the user.

    Raises:
        ConfigurationError: As ``load``.
    """
    return load(working_folder() or Path("/"))


def working_folder() -> Path | None:
    """The working folder, or None if it was deleted."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None
