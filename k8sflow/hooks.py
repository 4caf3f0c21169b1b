"""Functions of upper layers that lower ones call: the upper layer registers them, so that no import points upwards."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal

Name = Literal["instance", "instance_in_pod", "current_run", "current_task", "read_url", "cards"]
_registered: dict[Name, str | Callable[..., Any]] = {}


def register(name: Name, function: str | Callable[..., Any]) -> None:
    """Sets the function of a hook.

    Args:
        name: ``instance``: takes an instance of a flow, made in the flow's own file, and runs its command line or the
            task that this process is for; ``instance_in_pod``: the same in a task's process in a pod.
            ``current_run``, ``current_task``: take a run's records (and the names of a step and a task), and return the
            client's objects. ``read_url``: takes a URL, and returns its content as bytes.
            ``cards``: takes a run's records, a task and the options of its cards, and returns what makes the cards.
        function: The function, or ``module:name``, which is imported at the first call.
    """
    _registered[name] = function


def call(name: Name, *arguments: Any) -> Any:
    """Calls the function of a hook."""
    function = _registered[name]
    if isinstance(function, str):
        module, _, attribute = function.partition(":")
        function = getattr(importlib.import_module(module), attribute)
    return function(*arguments)
