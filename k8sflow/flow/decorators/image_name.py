"""The syntax of an image's name, which the API server doesn't check: a wrong one shows only when a pod pulls it.

Grammar: https://pkg.go.dev/github.com/distribution/reference
"""

from __future__ import annotations

import re

_DOMAIN = r"(?:\[[0-9a-fA-F:]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?)(?::\d+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_NAME = re.compile(rf"(?:{_DOMAIN}/)?{_PATH}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_LONGEST_NAME = 255


def mistake(image: str) -> str:
    """The mistake in an image's name, or an empty text if it could exist."""
    rest, has_digest, digest = image.partition("@")
    if has_digest and not _DIGEST.fullmatch(digest):
        return f"its digest {digest!r} is not sha256: and 64 hexadecimal digits"
    if "://" in image:
        return "it begins with a URL's scheme"
    folder, slash, last = rest.rpartition("/")
    last, has_tag, tag = last.partition(":")
    if has_tag and not _TAG.fullmatch(tag):
        return f"its tag {tag!r} is not 1 to 128 letters, digits, '_', '.' and '-'"
    return _mistake_in_name(f"{folder}{slash}{last}")


def _mistake_in_name(name: str) -> str:
    if len(name) > _LONGEST_NAME:
        return f"its name has more than {_LONGEST_NAME} characters"
    if _NAME.fullmatch(name):
        return ""
    path = name.partition("/")[2] or name
    if path != path.lower():
        return f"{path!r} has upper-case letters, which only a registry's host name may have"
    return "it is not written as registry/name:tag or registry/name@digest"
