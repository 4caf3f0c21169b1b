"""Tries a bucket with one small object: everything that a run does with it, from wherever this process runs.

``k8sflow doctor`` does it on the user's machine, and in a pod by ``main``.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from k8sflow import bucket_servers, config
from k8sflow.errors import K8sflowError, ObjectNotFoundError
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.open_store import store_of

FOLDER = "k8sflow-doctor"
# S3 refuses requests whose time differs by 15 minutes (RequestTimeTooSkewed).
MOST_SKEW_SECONDS = 300.0
_SKEW_TIMEOUT_SECONDS = 5.0
_TERMINATION_LOG = Path("/dev/termination-log")
_LONGEST_TEXT = 400


@dataclass(frozen=True)
class Trial:
    """One thing that was tried.

    Args:
        name: What was tried: ``write``.
        failure: Why it failed, or an empty text.
        advice: What to do about the failure.
        milliseconds: How long it took.
    """

    name: str
    failure: str = ""
    advice: str = ""
    milliseconds: int = 0


def trials(store: ObjectStore) -> Iterator[Trial]:
    """Tries what a run needs, until something fails; the object is deleted in any case."""
    key = f"{FOLDER}/{secrets.token_hex(8)}"
    written = False

    def overwrite() -> None:
        if store.put_new(key, b"again"):
            raise _broken(
                "it lets a conditional write (If-None-Match: *) replace an object, so that two pods of one "
                "task could both store a result"
            )

    def read() -> None:
        if bytes(store.get(key)) != b"k8sflow":
            raise _broken("an object that was just written has other content")

    steps: dict[str, Callable[[], object]] = {
        "list": lambda: next(iter(store.list_keys(f"{key}/")), None),
        "write": lambda: store.put(key, [b"k8sflow"]),
        "read": read,
        "conditional write": overwrite,
    }
    try:
        for name, step in steps.items():
            trial = _tried(name, step)
            yield trial
            if trial.failure:
                return
            written = written or name == "write"
        yield _tried("delete", lambda: store.delete([key]))
        written = False
    finally:
        if written:
            with contextlib.suppress(K8sflowError):  # the first failure is what counts
                store.delete([key])


def skew(url: str) -> Trial:
    """Compares this machine's clock with the server's, which puts the time into every answer."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310  the setting is a URL of a server
    try:
        with urllib.request.urlopen(request, timeout=_SKEW_TIMEOUT_SECONDS) as answer:  # noqa: S310  as above
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:  # without a signature it refuses, and has a clock too
        date = error.headers.get("Date")
        error.close()
    except (OSError, ValueError):
        return Trial("clock")  # whether it can be reached is another trial
    if date is None:
        return Trial("clock")
    seconds = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    if abs(seconds) < MOST_SKEW_SECONDS:
        return Trial("clock")
    return Trial(
        "clock",
        f"the clock here is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the server's",
        "Synchronize it (NTP): S3 refuses requests whose time differs by 15 minutes.",
    )


def main() -> int:
    """Tries the bucket of the environment, and prints each trial as a line of JSON; for a pod."""
    settings = config.load(Path("/"), os.environ)
    found = []
    try:
        store = store_of(settings, settings.bucket_url or "")
        found = list(trials(store))
        store.close()
    except K8sflowError as error:
        found.append(_failed("open", error))
    found.append(skew(server_url(settings)))
    text = json.dumps([asdict(trial) for trial in found])
    sys.stdout.write(f"{text}\n")
    with contextlib.suppress(OSError):  # only a pod has it
        _TERMINATION_LOG.write_text(text, encoding="utf-8")
    return 1 if any(trial.failure for trial in found) else 0


def server_url(settings: config.Settings) -> str:
    """The URL of the bucket's server."""
    return bucket_servers.outside(settings) or f"https://s3.{settings.region}.amazonaws.com"


def _tried(name: str, step: Callable[[], object]) -> Trial:
    start = time.monotonic()
    try:
        step()
    except ObjectNotFoundError as error:
        return _failed(name, _broken(error.summary))
    except K8sflowError as error:
        return _failed(name, error)
    return Trial(name, milliseconds=round((time.monotonic() - start) * 1000))


def _broken(what: str) -> K8sflowError:
    return K8sflowError(
        f"the server can't be used: {what.rstrip('.')}.", advice="Use an S3 server that works as S3 does."
    )


def _failed(name: str, error: K8sflowError) -> Trial:
    return Trial(name, error.summary[:_LONGEST_TEXT], error.advice[:_LONGEST_TEXT])


if __name__ == "__main__":
    sys.exit(main())
