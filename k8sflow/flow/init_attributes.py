"""The attributes that a flow's own ``__init__`` sets before it calls FlowSpec's: they are on ``self`` in every step."""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import Any

# On a flow's class: the attributes of the instance that its file made.
_MADE = "__k8sflow_made__"
_is_trial: ContextVar[bool] = ContextVar("is_trial", default=False)


class ReachedError(BaseException):
    """Ends an ``__init__`` that is called for its attributes alone; no handler of a user's code should catch it."""


def note(instance: object) -> None:
    """Keeps the attributes of an instance that is about to run its command line.

    Raises:
        ReachedError: It was made for its attributes alone.
    """
    type.__setattr__(type(instance), _MADE, dict(vars(instance)))
    if _is_trial.get():
        raise ReachedError


def attributes(flow: type) -> dict[str, Any]:
    """The attributes that an instance of the flow has when its command line begins.

    Where nobody has made an instance, as in a test, one is made here; one whose ``__init__`` needs arguments isn't.
    """
    if _MADE not in vars(flow) and _can_be_made(flow):
        token = _is_trial.set(True)
        try:
            flow()
        except ReachedError:
            pass
        finally:
            _is_trial.reset(token)
    found: dict[str, Any] = vars(flow).get(_MADE, {})
    return found


def _can_be_made(flow: type) -> bool:
    try:
        inspect.signature(flow).bind()
    except (TypeError, ValueError):
        return False
    return True
