"""The URLs to which the keys of an ``S3`` are relative, and the settings for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from k8sflow import config
from k8sflow.errors import ConfigurationError, S3Error
from k8sflow.flow.current import current, run_records
from k8sflow.flow.spec import FlowSpec
from k8sflow.s3 import urls
from k8sflow.settings_file import FILE_NAME
from k8sflow.storage.layout import DATA


def settings() -> config.Settings:
    """The settings: those of a task's flow, or else of the working folder.

    Raises:
        ConfigurationError: They can't be read.
    """
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return config.load(Path(file).absolute().parent) if current.is_running_flow and file else config.load_here()


def root_of(run: Any, s3root: str | None, bucket: str | None, prefix: str | None) -> str | None:
    """The URL to which keys are relative; None if they have to be URLs.

    Args:
        run: The running flow, or a Run of the client.
        s3root: The URL itself.
        bucket: The bucket for the data of runs, instead of the store's.
        prefix: The prefix in the bucket for the data of runs, instead of the store's.

    Raises:
        S3Error: They can't be combined, or it isn't known which run is meant.
        S3UrlError: The URL is none.
        ConfigurationError: No bucket is set.
    """
    if run is not None:
        if s3root is not None:
            raise S3Error("S3(run=…, s3root=…): both say where the objects are.", advice="Give one of them.")
        folder = _folder_of(run)
        return f"{_base(bucket, prefix)}/{folder}"
    if bucket is not None or prefix is not None:
        raise S3Error(
            "S3(bucket=…, prefix=…) says where data of runs is kept, and needs run=.",
            advice="Write S3(run=self, bucket=…), or S3(s3root='s3://bucket/prefix') for data of no run.",
        )
    return None if s3root is None else urls.parsed(s3root.rstrip("/")).url


def _folder_of(run: Any) -> str:
    """The folder of the run's data in the bucket: ``flow/data/run``."""
    if not isinstance(run, FlowSpec):
        parts = str(getattr(run, "pathspec", "")).split("/")
        if len(parts) != 2:  # noqa: PLR2004  Flow/run
            raise S3Error(
                f"S3(run={run!r:.100}) is neither a flow nor a run.",
                advice="Write S3(run=self) in a step, or S3(run=Run('Flow/123')).",
            )
        return f"{parts[0]}/{DATA}/{parts[1]}"
    if not current.is_running_flow:
        raise S3Error(
            "S3(run=self) was called outside of a step, where the flow has no run.",
            advice="Call it in a step, or write S3(run=Run('Flow/123')) for a run that exists.",
        )
    return f"{current.flow_name}/{DATA}/{current.run_id}"


def _base(bucket: str | None, prefix: str | None) -> str:
    """The URL below which the runs' folders are."""
    records = run_records()
    if bucket is None and records is not None and records.store.url.startswith("s3://"):
        store = urls.parsed(records.store.url)
    elif (name := bucket or _name_of_bucket(settings())) is not None:
        store = urls.parsed(f"s3://{name.removeprefix('s3://').strip('/')}")
    else:
        raise ConfigurationError(
            "S3(run=…) needs a bucket for the data of runs, and none is set.",
            cause="Runs are kept in a folder, or in a bucket of another kind, which S3 does not use.",
            advice=f"Set {config.variable('bucket')}=name (or bucket in {FILE_NAME}), and for a server other "
            f"than AWS {config.variable('endpoint')}; or write S3(run=self, bucket='name').",
        )
    key = store.key if prefix is None else prefix.strip("/")
    return urls.Location(store.bucket, key).url


def _name_of_bucket(found: config.Settings) -> str | None:
    """The bucket of the store: that for pods, or else that of runs on this machine."""
    return found.s3_bucket or (found.root if (found.root or "").startswith("s3://") else None)
