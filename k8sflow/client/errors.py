"""Pathspecs that name nothing, and the errors about them."""

from __future__ import annotations

from collections.abc import Iterable

from k8sflow.errors import NotFoundError
from k8sflow.flow.problems import did_you_mean
from k8sflow.storage.run_store import SPINS


def above(pathspec: str, form: str) -> tuple[str, str]:
    """A pathspec split in two: the pathspec of the parent, and the last part.

    Args:
        pathspec: The user's input.
        form: The expected form, such as ``flow/run/step``.

    Raises:
        NotFoundError: It has another form.
    """
    parts = pathspec.strip("/").split("/")
    depth = form.count("/") + 1 + (parts[1:2] == [SPINS])  # a task of spin is one folder deeper
    if len(parts) != depth or not all(parts):
        raise NotFoundError(
            f"{pathspec!r} names no {form.rpartition('/')[2]}.", advice=f"A pathspec of one has the form {form}."
        )
    return "/".join(parts[:-1]), parts[-1]


def among(word: str, words: Iterable[str], what: str) -> str:
    """The advice about an unknown name: the closest one, and the known ones."""
    known = list(words)
    shown = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")  # noqa: PLR2004  a screen's worth
    return " ".join(filter(None, [did_you_mean(word, known), f"{what} {shown or 'none'}."]))
