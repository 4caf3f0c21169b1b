"""``@catch``: lets a run continue after a step has failed for good."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Annotated, Any

from k8sflow.flow.decorators import parsers
from k8sflow.flow.decorators.base import Option, decorator


def _variable(value: object) -> str:
    if not isinstance(value, str) or not value.isidentifier() or value.startswith("_k8sflow"):
        raise ValueError(f"{value!r} can't be the name of an artifact")
    return value


def _no_exception(
    _step_name: str, flow: Any, _inputs: Any, attributes: Mapping[str, Any]
) -> Generator[None, None, None]:
    """Sets the artifact of ``@catch`` to None after a success, for the later steps."""
    yield
    if attributes["var"] is not None:
        setattr(flow, attributes["var"], None)


@decorator("lets the run continue after a step has failed for good", around=_no_exception, outermost=True)
def catch(
    *,
    var: Annotated[
        str | None,
        Option(_variable, "the name of the artifact that holds the exception; None where the step did not fail"),
    ] = None,
    print_exception: Annotated[bool | str, Option(parsers.flag, "whether the exception is shown")] = True,
) -> None: ...
