"""``@parallel``: a step that runs as several processes at once, opened by ``num_parallel``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from k8sflow.flow.decorators.base import decorator
from k8sflow.flow.decorators.environment import environment


@decorator(
    "the step that self.next(self.train, num_parallel=4) runs as processes that know each other (current.parallel)"
)
def parallel() -> None: ...


@overload
def pytorch_parallel(function: Callable[..., None]) -> Callable[..., None]: ...
@overload
def pytorch_parallel(
    *, master_port: int | str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]: ...
def pytorch_parallel(function: Callable[..., None] | None = None, *, master_port: int | str | None = None) -> Any:
    """Metaflow's name for ``@parallel``, which sets the variables of torch.distributed.

    Args:
        function: The step.
        master_port: The port of the first process; by default one that follows from the run.
    """

    def decorate(step: Callable[..., None]) -> Any:
        decorated: Any = parallel(step)
        return decorated if master_port is None else environment(vars={"MASTER_PORT": str(master_port)})(decorated)

    return decorate if function is None else decorate(function)
