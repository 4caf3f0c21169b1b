"""``@parallel``: a step that runs as several processes at once, opened by ``num_parallel``."""

from __future__ import annotations

from k8sflow.flow.decorators.base import decorator


@decorator(
    "the step that self.next(self.train, num_parallel=4) runs as processes that know each other (current.parallel)"
)
def parallel() -> None: ...
