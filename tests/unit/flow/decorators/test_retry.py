"""``@retry``: its options."""

from __future__ import annotations

from typing import Any

import pytest

from k8sflow import retry
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.decorators.base import Decoration


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: retry(times=-1), "times=-1"),
        (lambda: retry(times=1.5), "whole number"),
        (lambda: retry(times=True), "whole number"),
        (lambda: retry(minutes_between_retries="soon"), "minutes_between_retries='soon'"),
        (lambda: retry(backoff=0.5), "shorter"),
        (lambda: retry(max_delay=float("nan")), "max_delay"),
        (lambda: retry(on=("node_lost",)), "'node_lost' is not one of user_error, timed_out, out_of_memory"),
        (lambda: retry(on=()), "list of outcomes"),
        (lambda: retry(tmes=3), "Did you mean 'times'"),
        (lambda: retry(3), "by name, not 3. Write for example @retry|times=3"),
    ],
    ids=range(10),
)
def test_a_wrong_option_is_reported(make: Any, words: str) -> None:
    """The error has the option, its value, and what is accepted."""
    with pytest.raises(FlowDefinitionError, match=words):
        make()(lambda self: None)


def test_none_is_the_same_as_not_written_out() -> None:
    """Also as the value of a config, or of a mutator's options, which are known only later."""
    late = Decoration(retry, {"times": 2, "minutes_between_retries": None})
    assert late.parsed() == Decoration(retry, {"times": 2}).parsed()
