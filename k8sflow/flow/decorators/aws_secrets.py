"""AWS Secrets Manager, as a store of ``@secrets``: ``@secrets(sources=["aws-secrets-manager.prod/db"])``."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from k8sflow.errors import ConfigurationError
from k8sflow.flow.decorators.secret_fields import fields_of, variable_name

_ARN = re.compile(r"arn:aws[\w-]*:secretsmanager:([^:]+):")
_OPTIONS = ("region", "json", "env_var_name")
_SESSION = "k8sflow"
_NOT_JSON = (
    "For one plain text, add the option json=False: "
    '{"type": "aws-secrets-manager", "id": …, "options": {"json": False}}.'
)


def get(secret_id: str, options: Mapping[str, Any], role: str | None) -> dict[str, Any]:
    """The variables of a secret (``SecretStore``), not checked.

    Args:
        secret_id: Its name or ARN.
        options: ``region``, by default that of the ARN or of AWS's own settings; ``json``: False for a text other than
            an object of JSON, which becomes one variable; ``env_var_name``: its name, by default that of the secret.
        role: The ARN of the role under which it is read.

    Raises:
        ConfigurationError: It can't be read; the message contains no value.
    """
    if unknown := sorted(set(options) - {*_OPTIONS}):
        raise ConfigurationError(
            f"@secrets: a secret of AWS Secrets Manager has no option {unknown[0]!r}.",
            advice=f"The options are {', '.join(_OPTIONS)}.",
        )
    answer = _answer(secret_id, options, role)
    name = str(options.get("env_var_name") or answer["Name"])
    if "SecretBinary" in answer:
        return {variable_name(name): base64.b64encode(answer["SecretBinary"]).decode()}
    text = str(answer["SecretString"])
    if not options.get("json", True):
        return {variable_name(name): text}
    return fields_of(secret_id, text, _NOT_JSON)


def _answer(secret_id: str, options: Mapping[str, Any], role: str | None) -> Mapping[str, Any]:
    import boto3  # noqa: PLC0415  only for such secrets
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    arn = _ARN.match(secret_id)
    region = arn[1] if arn is not None else options.get("region")
    keys = {}
    try:
        if role is not None:
            assumed = boto3.client("sts", region_name=region).assume_role(RoleArn=role, RoleSessionName=_SESSION)
            given = assumed["Credentials"]
            keys = {
                "aws_access_key_id": given["AccessKeyId"],
                "aws_secret_access_key": given["SecretAccessKey"],
                "aws_session_token": given["SessionToken"],
            }
        client = boto3.client("secretsmanager", region_name=region, **keys)
        found: Mapping[str, Any] = client.get_secret_value(SecretId=secret_id)
    except ClientError as error:
        raise ConfigurationError(
            f"@secrets: AWS Secrets Manager did not give {secret_id!r}: {error.response['Error']['Code']}.",
            advice="Compare the name and the region, and the rights of the role (secretsmanager:GetSecretValue).",
        ) from None
    except BotoCoreError as error:
        raise ConfigurationError(
            f"@secrets: AWS Secrets Manager could not be asked for {secret_id!r}: {type(error).__name__}.",
            advice="Set AWS_DEFAULT_REGION (or the option region) and keys for AWS where the step runs.",
        ) from None
    return found
