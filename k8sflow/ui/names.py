"""Names in addresses: they become parts of keys in the store, so nothing that leads elsewhere is a name."""

from __future__ import annotations

import re
from urllib.parse import quote

from k8sflow.errors import NotFoundError

_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")


def checked(name: str) -> str:
    """The name, if it can be one of a flow, a run, a step, a task, an artifact or a card.

    Raises:
        NotFoundError: It can't.
    """
    if not _NAME.fullmatch(name) or name in {".", ".."} or name.encode("utf-8", "replace").decode() != name:
        raise NotFoundError("there is nothing under this address.", advice="The list of runs has links to everything.")
    return name


def address(*names: str) -> str:
    """The path of a page from names, each of which may have any letters."""
    return "/" + "/".join(quote(name, safe="") for name in names)


def address_of_run(flow: str, run: str) -> str:
    """The path of a run's page."""
    return address("runs", flow, run)
