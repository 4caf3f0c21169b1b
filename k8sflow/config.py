"""Settings: where the bucket and the cluster are, from a TOML file and the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from k8sflow import started
from k8sflow.errors import ConfigurationError
from k8sflow.version import VERSION

FILE_NAME = "k8sflow.toml"
ROOT_NAME = ".k8sflow"
_PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Settings:
    """Every setting, each from the environment (``K8SFLOW_<KEY>``), else from the file, else its default.

    Args:
        root: Folder with the runs of this machine; None for the nearest ``.k8sflow`` of the working folder and above.
            A relative one is below the folder in which the process was started, or that of the file that says so.
        bucket: ``name`` or ``name/prefix`` of the S3 bucket; runs on Kubernetes need one.
        credentials: Where pods get the bucket's keys: ``secret:NAME``, a Secret in the run's namespace with the keys
            AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ``service-account``, the cloud's workload identity.
        endpoint: URL of the S3 server as this machine reaches it; None for AWS.
        in_cluster_endpoint: URL of the S3 server as pods reach it; None where it is the same.
        region: Region of the bucket.
        storage_patience_seconds: How long a finished task and a run's driver wait for a bucket that can't be reached;
            None for ten minutes.
        default_secrets_backend_type: The store of a secret that ``@secrets`` names by its id alone.
        kubernetes_namespace: Namespace of Jobs and pods.
        kubernetes_image: Image of task pods, with Python 3.10 or newer; None for the runtime image.
        kubernetes_runtime_image: The k8sflow image.
        kubernetes_service_account: Service account of task pods; None for the namespace's default.
        kubernetes_context: Context of the kubeconfig; None for its current one.
    """

    root: str | None = None
    bucket: str | None = None
    credentials: str = "service-account"
    endpoint: str | None = None
    in_cluster_endpoint: str | None = None
    region: str = "us-east-1"
    storage_patience_seconds: str | None = None
    default_secrets_backend_type: str | None = None
    kubernetes_namespace: str = "default"
    kubernetes_image: str | None = None
    kubernetes_runtime_image: str = f"k8sflow:{VERSION}"
    kubernetes_service_account: str | None = None
    kubernetes_context: str | None = None

    def __post_init__(self) -> None:
        if self.root and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", self.root):
            raise ConfigurationError(
                f"the setting root ({variable('root')}) is {self.root!r}, which is not a folder.",
                cause="Runs on this machine are kept in a folder; only those with steps on Kubernetes are in a bucket.",
                advice=f"Name a folder there, and the bucket in the setting bucket ({variable('bucket')}).",
            )
        kind, _, name = self.credentials.partition(":")
        if self.credentials != "service-account" and (kind != "secret" or not name):
            raise ConfigurationError(
                f"the setting credentials is {self.credentials!r}.",
                advice='Use "secret:NAME" (a Secret in the namespace of the run) or "service-account".',
            )

        if self.storage_patience_seconds is not None and not _is_seconds(self.storage_patience_seconds):
            raise ConfigurationError(
                f"the setting storage_patience_seconds is {self.storage_patience_seconds!r}.",
                advice='It is a number of seconds, such as "600" for ten minutes.',
            )

    @property
    def storage_patience(self) -> float:
        """How many seconds a finished task and a run's driver wait for a bucket that can't be reached."""
        return _PATIENCE_SECONDS if self.storage_patience_seconds is None else float(self.storage_patience_seconds)

    @property
    def credentials_secret(self) -> str | None:
        """Name of the Secret with the bucket's keys, or None for workload identity."""
        return self.credentials.partition(":")[2] or None

    def in_cluster(self) -> Settings:
        """The same settings as a pod has to use them."""
        return replace(self, endpoint=self.in_cluster_endpoint or self.endpoint, in_cluster_endpoint=None)

    def to_environment(self) -> dict[str, str]:
        """Environment variables from which ``load`` reads the same settings again."""
        values = {variable(f.name): getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def _is_seconds(text: str) -> bool:
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False


def variable(key: str) -> str:
    """Name of the environment variable of a setting."""
    return f"K8SFLOW_{key.upper()}"


def load(folder: Path, environment: Mapping[str, str] = os.environ, *, working: Path | None = None) -> Settings:
    """The settings that hold for a flow in ``folder``.

    Args:
        folder: The folder; those around it are looked at too.
        environment: The environment.
        working: The working folder of the process whose environment it is; None for that in which this one was started.

    Raises:
        ConfigurationError: The file can't be read, or has a key or a value that it can't have.
    """
    keys = {f.name for f in fields(Settings)}
    values = {}
    if (path := find_file(folder, environment)) is not None:
        values = _read(path)
        if root := values.get("root"):
            values["root"] = _absolute(root, path.absolute().parent)
    values |= {key: text for key in keys if (text := environment.get(variable(key)))}
    if root := environment.get(variable("root")):
        values["root"] = _absolute(root, working or started.FOLDER)
    return Settings(**values)


def load_here(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that hold in the working folder; where that was deleted, those of the user.

    Raises:
        ConfigurationError: As of ``load``.
    """
    return load(working_folder() or Path("/"), environment)


def working_folder() -> Path | None:
    """The working folder; None where it was deleted."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def _absolute(root: str, folder: Path | str | None) -> str:
    """A folder for runs as an absolute path, which stays the same when the working folder changes."""
    if "://" in root:  # refused, with what was written
        return root
    path = Path(os.path.expanduser(root))  # noqa: PTH111  Path.expanduser() raises for a user that doesn't exist
    if path.is_absolute():
        return str(path)
    if folder is None:
        raise ConfigurationError(
            f"the setting root ({variable('root')}) is {root!r}, but the working folder doesn't exist any more.",
            advice="Go to a folder that exists, or give an absolute path.",
        )
    return str(folder / path)


def find_file(folder: Path, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The file with the settings that hold for a flow in ``folder``, or None where there is none."""
    if explicit := environment.get("K8SFLOW_CONFIG"):
        return Path(started.FOLDER or "/") / explicit
    found = _candidates(folder, environment)
    return next((path for path in found if os.path.isfile(path)), None)  # noqa: PTH113  is_file() raises without access


def _candidates(folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    for parent in (folder, *folder.parents):
        yield parent / FILE_NAME
    if folder_of_user := environment.get("XDG_CONFIG_HOME"):
        yield Path(folder_of_user) / "k8sflow" / "config.toml"
    elif home := environment.get("HOME"):  # a pod's user may have none
        yield Path(home) / ".config" / "k8sflow" / "config.toml"


def _read(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the settings in {path} can't be read: {error}.") from error
    return parse(text, path)


def parse(text: str, path: Path) -> dict[str, str]:
    """The settings that a file's text has.

    Args:
        text: The file's text.
        path: Where it is, for the error.

    Raises:
        ConfigurationError: It is not TOML, or has a key or a value that it can't have.
    """
    from k8sflow import toml  # noqa: PLC0415  for those who have such a file

    try:
        document: dict[str, str] = toml.loads(text)
    except toml.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not a TOML file: {error}.") from error
    keys = {f.name for f in fields(Settings)}
    for key, value in document.items():
        if key not in keys:
            raise ConfigurationError(
                f"{path} has an unknown setting {key!r}.",
                advice=f"The settings are {', '.join(sorted(keys))}.",
            )
        if not isinstance(value, str):
            raise ConfigurationError(f"the setting {key} in {path} is {value!r}; it has to be a string.")
    return document
