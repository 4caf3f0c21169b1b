"""The namespace: the tag that limits which runs are found. By default, readers find their own user's runs."""

from __future__ import annotations

import os

from k8sflow.flow.current import current
from k8sflow.user import current_user

_VARIABLE = "K8SFLOW_NAMESPACE"


class _State:
    """The namespace chosen in this process."""

    is_chosen = False
    tag: str | None = None


def namespace(tag: str | None) -> str | None:
    """Chooses the namespace in which this process looks for runs, and returns it.

    Args:
        tag: The tag that runs must have, for example ``user:ada``; None for the runs of everybody.
    """
    _State.is_chosen, _State.tag = True, tag
    return tag


def get_namespace() -> str | None:
    """The namespace in which this process looks for runs; None for the runs of everybody."""
    if not _State.is_chosen:
        return _default()
    return _State.tag


def default_namespace() -> str:
    """Returns to the default namespace, and returns its name.

    The default is ``K8SFLOW_NAMESPACE``; in a task, the namespace of its run; otherwise the user's ``user:NAME``.
    """
    _State.is_chosen, _State.tag = False, None
    return _default()


def _default() -> str:
    return os.environ.get(_VARIABLE) or current.namespace or f"user:{current_user()}"
