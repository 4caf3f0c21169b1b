"""What a reader is told when there is nothing to read."""

from __future__ import annotations

from collections.abc import Iterable

from k8sflow.errors import K8sflowError
from k8sflow.flow.graph import closest


class NotFoundError(K8sflowError, KeyError):
    """There is no such flow, run, step, task or artifact in any store that is known here."""

    def __str__(self) -> str:
        return K8sflowError.__str__(self)


class NamespaceMismatchError(NotFoundError):
    """The run is there, but not in the namespace in which runs are looked for."""


def among(word: str, words: Iterable[str], what: str) -> str:
    """The advice about a name that is not there: the closest one, and what there is."""
    known = list(words)
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")  # noqa: PLR2004  a screen's worth
    return " ".join(filter(None, [closest(word, known), f"{what} {shown or 'none'}."]))
