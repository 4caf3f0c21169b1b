"""Variables from the JSON object that is a secret of a cloud's store."""

from __future__ import annotations

import json
import re
from typing import Any

from k8sflow.errors import ConfigurationError


def fields_of(secret_id: str, text: str, advice: str) -> dict[str, Any]:
    """The values of an object of JSON, by the variables' names.

    Args:
        secret_id: The secret's id, for the error.
        text: The secret.
        advice: For a secret that is not such an object.

    Raises:
        ConfigurationError: It is another text, or two keys are the same variable; the message contains no value.
    """
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ConfigurationError(f"@secrets: the secret {secret_id!r} is not an object of JSON.", advice=advice)
    found: dict[str, Any] = {}
    for key, value in document.items():
        if variable_name(key) in found:
            raise ConfigurationError(
                f"@secrets: two keys of the secret {secret_id!r} are the variable {variable_name(key)}.",
                advice="Rename one of them: -, . and / become _ in a variable.",
            )
        found[variable_name(key)] = value
    return found


def variable_name(key: str) -> str:
    """A key as the name of an environment variable, as Metaflow derives it."""
    return re.sub(r"[-./]", "_", key)
