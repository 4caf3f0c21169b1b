"""The check that a server honours conditional writes: results of tasks rely on them, and some servers ignore them."""

from __future__ import annotations

from k8sflow.errors import ConfigurationError
from k8sflow.storage.records import RunRecord, dump
from k8sflow.storage.run_store import RunStore


def check_exclusive(run_store: RunStore, record: RunRecord) -> None:
    """Checks that nobody can replace a run's first record, which was just written.

    Only a bucket is tried: it costs a request.

    Args:
        run_store: The run.
        record: The record.

    Raises:
        ConfigurationError: The record was replaced; it is deleted.
    """
    store, key = run_store.store, f"{run_store.prefix}/run.json"
    if store.is_shared and store.put_new(key, dump(record.to_document())):
        store.delete([*store.list_keys(f"{run_store.flow}/index/{run_store.run}/"), key])
        raise ConfigurationError(
            f"runs can't be kept in {store.url}: the server ignores the condition If-None-Match: *.",
            cause="A second write replaced an object, so two processes could both store the result of a task.",
            advice="Use an S3 server with conditional writes, or a newer version. `k8sflow doctor` tries them.",
        )
