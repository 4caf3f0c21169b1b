"""From the bytes that a task writes to the lines that a person is shown."""

from __future__ import annotations

import re

import click

# What would move the cursor, clear the screen or set its title in the middle of other lines; colours (SGR) may pass.
_UNSEEN = re.compile(
    r"\x1b\[[0-9;:<=>?]*[ -/]*[@-ln-~]"  # control sequences but m (ECMA-48, 5.4)
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # strings: titles, links
    r"|\x1b[ -/]+[0-~]?"  # character sets
    r"|\x1b[^\[\]PX^_\n]"
    r"|\x1b(?!\[[0-9;:]*m)"  # the beginning of one that has no end
    r"|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]+"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONGEST_LINE = 1 << 16
_LONGEST_BAR = 1 << 12
_RESET = "\x1b[0m"


class OutputLines:
    """Makes whole lines of one stream's output, in whatever pieces it comes.

    What has no end yet is held back, in ``rest``: up to 64 KiB of it, and of a line that is rewritten the last state.
    """

    def __init__(self) -> None:
        self.rest = b""

    def add(self, data: bytes) -> str:
        """The lines that the piece completes, each with its newline; empty where it completes none."""
        head, newline, rest = data.rpartition(b"\n")
        whole = self.rest + head + newline if newline else b""
        rest = rest if newline else self.rest + rest
        if len(rest) > _LONGEST_BAR:
            rest = rest.rpartition(b"\r")[2] or rest[-_LONGEST_BAR:]
        if len(rest) > _LONGEST_LINE:
            whole, rest = whole + rest + b"\n", b""
        self.rest = rest
        return clean(whole) if whole else ""

    def end(self) -> str:
        """The last line, where it has no newline."""
        rest, self.rest = self.rest, b""
        return clean(rest + b"\n") if rest else ""


def clean(lines: bytes) -> str:
    """Whole lines as text that leaves the cursor alone; bytes that are not UTF-8 are shown as such."""
    text = lines.decode("utf-8", "replace")
    if _CONTROL.search(text) is None:
        return text
    if "\r" in text:
        text = "\n".join(map(_last_state, text.split("\n")))
    return _UNSEEN.sub("", text)


def settled(message: str) -> str:
    """A message from elsewhere, such as an exception's, without control sequences."""
    if _CONTROL.search(message) is None:
        return message
    return _UNSEEN.sub("", message.replace("\r\n", "\n").replace("\r", " "))


def brief(message: str) -> str:
    """The first line of a message, for the middle of another line: without its full stop."""
    first, *more = settled(message).strip().splitlines() or [""]
    if more:
        return f"{first} …"
    return first if first.endswith("..") else first.removesuffix(".")


def _last_state(line: str) -> str:
    """The last state of a line that a progress bar has rewritten by carriage returns."""
    return line.rstrip("\r").rpartition("\r")[2]


def prefixed(prefix: str, lines: str, *, coloured: bool) -> str:
    """The lines with a prefix each; colours end with their line."""
    if "\x1b" in lines:
        lines = lines.replace("\n", f"{_RESET}\n") if coloured else click.unstyle(lines)
    body = lines[:-1].replace("\n", f"\n{prefix}")
    return f"{prefix}{body}\n"
