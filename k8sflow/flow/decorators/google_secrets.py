"""Google's Secret Manager, as a store of ``@secrets``: ``gcp-secret-manager.projects/12/secrets/db``.

https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access has the request.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from k8sflow import google_credentials
from k8sflow.errors import ConfigurationError, K8sflowError
from k8sflow.flow.decorators.secret_fields import fields_of, variable_name

_SERVER = "https://secretmanager.googleapis.com/"
# By this variable gcloud uses another server, such as that of a private endpoint.
_OTHER_SERVER = "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"
_PROJECT = "GOOGLE_CLOUD_PROJECT"
_FULL = re.compile(r"projects/[\w:.-]+(?:/locations/[\w-]+)?/secrets/([\w-]+)(/versions/[\w-]+)?")
_SHORT = re.compile(r"([\w-]+)(/versions/[\w-]+)?")
_OPTIONS = ("json", "env_var_name", "binary")
_SECONDS = 30


def get(secret_id: str, options: Mapping[str, Any], role: str | None, environment: Mapping[str, str]) -> dict[str, Any]:
    """The variables of a secret, not checked.

    Args:
        secret_id: ``projects/PROJECT/secrets/NAME``, or NAME alone for the project in GOOGLE_CLOUD_PROJECT; either may
            end with ``/versions/VERSION``.
        options: ``json``: True for an object of JSON, each key of which becomes a variable; else ``env_var_name``, by
            default the secret's name, and ``binary``: True for bytes, which are encoded in base64.
        role: Must be None: Google has no roles of this kind.
        environment: The environment.

    Raises:
        ConfigurationError: It can't be read; the message contains no value.
    """
    if unknown := sorted(set(options) - {*_OPTIONS}):
        raise ConfigurationError(
            f"@secrets: a secret of Google's Secret Manager has no option {unknown[0]!r}.",
            advice=f"The options are {', '.join(_OPTIONS)}.",
        )
    if role is not None:
        raise ConfigurationError(
            "@secrets: a secret of Google's Secret Manager is read under no role.",
            advice="Leave role out; give the right to the service account of the step (workload identity).",
        )
    path, name = _path(secret_id, environment)
    data = _data(secret_id, path, environment)
    if options.get("binary"):
        return {variable_name(str(options.get("env_var_name") or name)): base64.b64encode(data).decode()}
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"@secrets: the secret {secret_id!r} is not a text in UTF-8.",
            advice="Add the option binary=True: its variable is encoded in base64.",
        ) from None
    if options.get("json"):
        return fields_of(secret_id, text, "Leave out the option json: the text as a whole is one variable.")
    return {variable_name(str(options.get("env_var_name") or name)): text}


def _path(secret_id: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """The path of a version of a secret in the API, and the secret's name."""
    if full := _FULL.fullmatch(secret_id):
        return secret_id + ("" if full[2] else "/versions/latest"), full[1]
    short = _SHORT.fullmatch(secret_id)
    project = environment.get(_PROJECT)
    if short is None or not project:
        raise ConfigurationError(
            "@secrets: the id of a secret of Google's Secret Manager is incomplete.",  # it may be a pasted secret
            cause="" if short is None else f"It is a name alone, and {_PROJECT} is not set where the step runs.",
            advice=f"Write projects/PROJECT/secrets/NAME, or NAME alone with {_PROJECT}=PROJECT.",
        )
    return f"projects/{project}/secrets/{short[1]}{short[2] or '/versions/latest'}", short[1]


def _data(secret_id: str, path: str, environment: Mapping[str, str]) -> bytes:
    server = environment.get(_OTHER_SERVER) or _SERVER
    url = f"{server.rstrip('/')}/v1/{path}:access"
    try:
        token = google_credentials.find(environment, google_credentials.PLATFORM)()
        headers = {"Authorization": f"Bearer {token.value}"}
        if token.quota_project:
            headers["X-Goog-User-Project"] = token.quota_project
        request = urllib.request.Request(url, headers=headers)  # noqa: S310  https, unless the variable has another
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310  as above
            return base64.b64decode(json.loads(answer.read())["payload"].get("data", ""))
    except K8sflowError as error:
        raise ConfigurationError(f"@secrets: {error.summary}", cause=error.cause, advice=error.advice) from error
    except urllib.error.HTTPError as error:
        error.close()
        raise ConfigurationError(
            f"@secrets: Google's Secret Manager did not give {secret_id!r}: {error.code} {error.reason}.",
            advice="Compare the project, the name and the version, and the rights "
            "(roles/secretmanager.secretAccessor) of the account that the step runs as.",
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"@secrets: Google's Secret Manager could not be asked for {secret_id!r}: {type(error).__name__}.",
            advice=f"Reach {server} from where the step runs.",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):  # the answer is not that of the API; it may hold a value
        raise ConfigurationError(
            f"@secrets: {server} gives no answer of Google's Secret Manager for {secret_id!r}.",
            advice=f"Correct {_OTHER_SERVER}, or a proxy in between.",
        ) from None
