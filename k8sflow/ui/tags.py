"""Changes of a run's tags from its page: the only thing that the server writes, and only with --edit-tags."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from k8sflow.errors import AccessError, TagError
from k8sflow.storage.objects import ObjectStore
from k8sflow.ui.library import Library
from k8sflow.ui.names import address_of_run, checked

_MOST_FORM_BYTES = 16 << 10
_FORM = "application/x-www-form-urlencoded"


class TagEditor:
    """The forms on the pages of runs.

    Args:
        library: The runs.
        is_on: Whether tags may be changed at all.
    """

    def __init__(self, library: Library, *, is_on: bool) -> None:
        self.is_on = is_on
        self._library = library
        self._token = secrets.token_urlsafe(24)
        self._refused: set[str] = set()  # the stores that have refused a change

    def token_for(self, store: ObjectStore) -> str:
        """The secret of a page's form, without which no change is accepted; empty where tags can't be changed.

        A folder shows whether it may be written; a bucket only when it is tried.

        Args:
            store: The store of the run.
        """
        if not self.is_on or store.url in self._refused:
            return ""
        return self._token if store.folder is None or os.access(store.folder, os.W_OK) else ""

    async def change(self, request: Request) -> Response:
        """Adds or removes a tag, and leads back to the run's page.

        Raises:
            NotFoundError: There is no such run.
            TagError: It can't be a tag, or is one of the system; the form is not this server's; the store may not be
                written.
        """
        fields = await _fields(request)
        if not hmac.compare_digest(fields.get("form", "").encode("utf-8", "replace"), self._token.encode()):
            raise TagError(
                "the tags were not changed.",
                cause="The form was not made by this server, or before it was started again.",
                advice="Load the run's page again.",
            )
        flow, run = checked(request.path_params["flow"]), checked(request.path_params["run"])
        await run_in_threadpool(self._change, flow, run, fields)
        return RedirectResponse(f"{address_of_run(flow, run)}#tags", 303)

    def _change(self, flow: str, run: str, fields: Mapping[str, str]) -> None:
        found = self._library.run(flow, run)
        store = found.run_store.store
        if not self.token_for(store):
            raise _read_only(store)
        removed, added = ([fields[name]] if fields.get(name) else [] for name in ("remove", "add"))
        try:
            found.replace_tags(removed, [tag.strip() for tag in added])
        except (AccessError, PermissionError) as error:
            self._refused.add(store.url)
            raise _read_only(store) from error


async def _fields(request: Request) -> dict[str, str]:
    """The fields of a small form."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise TagError("this is not the form of a run's page.")
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > _MOST_FORM_BYTES:
            raise TagError("the form is too large.", advice="A tag has up to 500 characters.")
    try:
        found = parse_qs(data.decode("ascii"), errors="strict", max_num_fields=8)
    except ValueError as error:
        raise TagError("the form can't be read.") from error
    return {name: values[-1] for name, values in found.items()}


def _read_only(store: ObjectStore) -> TagError:
    return TagError(
        f"the tags were not changed: {store.url} may not be written.",
        cause="The folder or the keys of this server only allow to read.",
        advice="Change them where the store may be written: `k8sflow tag add`, or a server with other keys.",
    )
