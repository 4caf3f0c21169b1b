"""Signatures with an RSA key (RS256), which the standard library lacks.

Pods get only packages that are pure Python, so the ones for cryptography can't be there. The key that signs is the
process's own, and nobody measures how long it takes.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

# The DER encoding of the algorithm, before the digest (https://www.rfc-editor.org/rfc/rfc8017#section-9.2, note 1).
_SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30
_LONG_FORM = 0x80
_MARK = "-----"


@dataclass(frozen=True)
class RsaKey:
    """A private key.

    Args:
        modulus: The modulus.
        exponent: The private exponent.
    """

    modulus: int
    exponent: int

    @staticmethod
    def of_pem(text: str) -> RsaKey:
        """The key in a PEM text: ``PRIVATE KEY`` (PKCS #8) or ``RSA PRIVATE KEY`` (PKCS #1).

        Raises:
            ValueError: It has none, or one that is encrypted or of another kind.
        """
        _, _, rest = text.partition(f"{_MARK}BEGIN ")
        title, _, rest = rest.partition(_MARK)
        body, end, _ = rest.partition(f"{_MARK}END {title}{_MARK}")
        if title not in {"PRIVATE KEY", "RSA PRIVATE KEY"} or not end:
            raise ValueError("it has no private key in the format PEM")
        fields = _fields(_only(base64.b64decode(body), _SEQUENCE))
        if title == "PRIVATE KEY":  # https://www.rfc-editor.org/rfc/rfc5208#section-5
            fields = _fields(_only(fields[2][1], _SEQUENCE)) if len(fields) > 2 and fields[2][0] == _OCTETS else []  # noqa: PLR2004  the third one
        numbers = [int.from_bytes(content, "big") for tag, content in fields if tag == _INTEGER]
        if len(numbers) < 4:  # noqa: PLR2004  version, modulus, public and private exponent
            raise ValueError("its private key is not one of RSA")
        return RsaKey(numbers[1], numbers[3])

    def signature(self, message: bytes) -> bytes:
        """The signature of a message by RSASSA-PKCS1-v1_5 with SHA-256."""
        size = (self.modulus.bit_length() + 7) // 8
        digest = _SHA256 + hashlib.sha256(message).digest()
        padded = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
        return pow(int.from_bytes(padded, "big"), self.exponent, self.modulus).to_bytes(size, "big")


def _only(data: bytes, tag: int) -> bytes:
    found = _fields(data)
    if len(found) != 1 or found[0][0] != tag:
        raise ValueError("its private key is damaged")
    return found[0][1]


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """The values of a DER encoding, one after another, each with its tag."""
    found = []
    position = 0
    try:
        while position < len(data):
            tag, length = data[position], data[position + 1]
            position += 2
            if length >= _LONG_FORM:
                size = length - _LONG_FORM
                length = int.from_bytes(data[position : position + size], "big")
                position += size
            found.append((tag, data[position : position + length]))
            position += length
    except IndexError as error:
        raise ValueError("its private key is damaged") from error
    return found
