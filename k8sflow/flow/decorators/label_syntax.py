"""The syntax of labels and annotations, which the API server refuses only when a run has started.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_LONGEST_PREFIX = 253
_RULE = "1 to 63 letters, digits, '-', '_' and '.', with a letter or a digit first and last"


def check_key(key: str) -> None:
    """Returns if a text can be the key of a label or an annotation.

    Raises:
        ValueError: It can't.
    """
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= _LONGEST_PREFIX and _PREFIX.fullmatch(prefix)):
        raise ValueError(f"the key {key!r} has the prefix {prefix!r}, which is not a domain such as example.com")
    if not _WORD.fullmatch(name):
        raise ValueError(f"the key {key!r} has to be {_RULE}, after a prefix such as example.com/ if there is one")


def check_value(value: str, of: str = "") -> None:
    """Returns if a text can be the value of a label.

    Args:
        value: The text.
        of: What it is the value of, for the error's message.

    Raises:
        ValueError: It can't.
    """
    if value and not _WORD.fullmatch(value):
        raise ValueError(f"the value {value!r}{of} has to be empty or {_RULE}")
