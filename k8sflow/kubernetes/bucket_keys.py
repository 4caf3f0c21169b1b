"""The credentials of the bucket in a pod: those of the cloud's workload identity, or a Secret's.

Keys of S3 and Azure are environment variables, as the clouds' tools read them. The key of a service account of Google
is a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from k8sflow import azure_account, roots
from k8sflow.config import Settings
from k8sflow.kubernetes.manifest import Manifest

VOLUME = "bucket-key"
FOLDER = "/var/run/secrets/k8sflow.dev"
FILE_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
_FILE_NAME = "key.json"
_NAMES: Mapping[str, tuple[str, ...]] = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "gs": (_FILE_NAME,),
    "azure": (azure_account.CONNECTION_STRING,),
}


@dataclass(frozen=True)
class BucketKeys:
    """The source of a pod's keys for its bucket.

    Args:
        secret: Name of the Secret with them; None for workload identity.
        kind: The kind of bucket: ``s3``, ``gs`` or ``azure``.
    """

    secret: str | None = None
    kind: str = "s3"

    @staticmethod
    def of(settings: Settings) -> BucketKeys:
        """The keys that the settings name."""
        return BucketKeys(settings.credentials_secret, roots.kind_of(settings.bucket_url or "s3://"))

    @property
    def names(self) -> tuple[str, ...]:
        """The keys that the Secret must have; empty if there is none."""
        return _NAMES[self.kind] if self.secret is not None else ()

    @property
    def _is_file(self) -> bool:
        return self.secret is not None and self.kind == "gs"

    def variables(self) -> list[Manifest]:
        """The environment variables of a container, by which it finds the keys."""
        if self._is_file:
            return [{"name": FILE_VARIABLE, "value": f"{FOLDER}/{_FILE_NAME}"}]
        return [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": self.secret, "key": name}}} for name in self.names
        ]

    def labels(self) -> dict[str, str]:
        """The labels of the pod, by which Azure's webhook gives it a workload identity."""
        return {"azure.workload.identity/use": "true"} if self.secret is None and self.kind == "azure" else {}

    def volumes(self) -> list[Manifest]:
        """The volumes of the pod that it needs for the keys."""
        items = [{"key": name, "path": name} for name in self.names]
        return [{"name": VOLUME, "secret": {"secretName": self.secret, "items": items}}] if self._is_file else []

    def mounts(self) -> list[Manifest]:
        """The mounts of a container, in the same order."""
        return [{"name": VOLUME, "mountPath": FOLDER, "readOnly": True}] if self._is_file else []
