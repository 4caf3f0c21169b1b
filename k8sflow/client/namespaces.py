"""The namespace: the tag that a run needs to have to be found. By default a reader finds the runs of its user."""

from __future__ import annotations

import os

from k8sflow.flow.current import current
from k8sflow.user import current_user

_VARIABLE = "K8SFLOW_NAMESPACE"


class _State:
    """What this process has chosen."""

    is_chosen = False
    tag: str | None = None


def namespace(tag: str | None) -> str | None:
    """Chooses the namespace in which this process looks for runs, and returns it.

    Args:
        tag: A tag that runs need to have, for example ``user:ada``; None for the runs of everybody.
    """
    _State.is_chosen, _State.tag = True, tag
    return tag


def get_namespace() -> str | None:
    """The namespace in which this process looks for runs; None for the runs of everybody."""
    if not _State.is_chosen:
        return _default()
    return _State.tag


def default_namespace() -> str:
    """Goes back to the default namespace, and returns it.

    That is ``K8SFLOW_NAMESPACE``; in a task what its run was started with; else ``user:NAME`` of the user.
    """
    _State.is_chosen, _State.tag = False, None
    return _default()


def _default() -> str:
    return os.environ.get(_VARIABLE) or current.namespace or f"user:{current_user()}"
