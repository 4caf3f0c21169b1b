"""Which values of a library count as the id of the process that imported it."""

from __future__ import annotations

import os

import pytest

from k8sflow.executors.fork_server import preloading


@pytest.mark.parametrize(
    ("value", "is_held"),
    [
        ("11", True),
        ("/tmp/lib-11.sock", True),
        ("lock_11", True),
        ("1.7.11", False),
        ("lib/python3.11/site-packages", False),
        ("11.2", False),
        ("2011", False),
        (11, True),
        ({"key": "id 11"}, True),
    ],
)
def test_a_process_id_is_found_in_values_but_not_in_versions(
    monkeypatch: pytest.MonkeyPatch, value: object, is_held: bool
) -> None:
    """In a container, ids are small numbers."""
    monkeypatch.setattr(os, "getpid", lambda: 11)
    assert preloading._holds_process_id(value) is is_held


def test_a_function_that_a_library_keeps_watches_nothing_later() -> None:
    """``from uuid import uuid4`` keeps the watching function, which tasks call for as long as they live."""
    import uuid

    with preloading._watched_generators():
        kept, getpid = uuid.uuid4, os.getpid
        kept()
    before = len(preloading._ids), len(preloading._askers)
    assert kept() != kept()
    assert getpid() == os.getpid()
    assert (len(preloading._ids), len(preloading._askers)) == before
