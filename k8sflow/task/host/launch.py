"""The words that start the agent in a container whose image has the runtime."""

from __future__ import annotations

from k8sflow.flow.decorators.pod_options import RUNTIME_FOLDER
from k8sflow.version import VERSION

DEFAULT_PYTHON = "python3"
# The beginning of the message of a runtime that is not the driver's.
OTHER_RUNTIME = "[k8sflow] the version of the runtime is "


def agent_words(module: str, python: str | None = None) -> tuple[str, ...]:
    """The words that start the agent; its arguments follow.

    The runtime's folder is not added by PYTHONPATH, which would replace the image's own; the agent adds it to that.

    Args:
        module: The module whose ``main`` is called.
        python: The image's Python; None for ``python3``.
    """
    code = (
        f"import sys; sys.path.insert(0, {RUNTIME_FOLDER!r}); from k8sflow.version import VERSION; "
        f"VERSION == {VERSION!r} or sys.exit({OTHER_RUNTIME!r} + VERSION); "
        f"from {module} import main; sys.exit(main())"
    )
    return (python or DEFAULT_PYTHON, "-c", code)
