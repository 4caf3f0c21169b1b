"""``@timeout``: its options."""

from __future__ import annotations

from typing import Any

import pytest

from k8sflow import timeout
from k8sflow.errors import FlowDefinitionError


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (timeout, "needs a time"),
        (lambda: timeout(seconds=-5), "seconds=-5"),
        (lambda: timeout(5), "by name"),
    ],
    ids=range(3),
)
def test_a_wrong_option_is_reported(make: Any, words: str) -> None:
    """The error has the option, its value, and what is accepted."""
    with pytest.raises(FlowDefinitionError, match=words):
        make()(lambda self: None)
