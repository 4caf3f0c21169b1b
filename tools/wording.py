"""Find phrasings that don't belong in plain English: `python -m tools.wording`, part of `make lint`.

The rules are in wording.toml, each with an example that has to be found and one that must pass.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
CHECKED = (".py", ".md", ".toml", ".yaml", ".yml", ".tpl", ".mk", "Makefile", "Dockerfile")
SELF = ("tools/wording.toml", "tests/unit/project/test_wording.py", "LICENSE", "manifests/install.yaml")


@dataclass(frozen=True)
class Rule:
    """One phrasing to avoid.

    Attributes:
        pattern: What to find, in the text's words or, if raw, in the text itself.
        raw: True to search the text as it is written.
        instead: Suggested wording.
        unless: Found in the line as written, it makes a match acceptable.
        bad: An example that has to be found.
        good: An example that must pass.
    """

    pattern: re.Pattern[str]
    raw: bool
    instead: str
    unless: re.Pattern[str] | None
    bad: str
    good: str


@dataclass(frozen=True)
class Finding:
    """A phrasing to avoid, in a file."""

    path: str
    line: int
    text: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r}: write {self.instead}"


def load_rules(file: Path = HERE / "wording.toml") -> list[Rule]:
    """Read the rules."""
    return [_rule(**entry) for entry in tomllib.loads(file.read_text())["rule"]]


def _rule(pattern: str, instead: str, bad: str, good: str, unless: str = "", *, raw: bool = False) -> Rule:
    words = pattern if raw else rf"\b(?:{pattern})\b".replace(" ", r"\s")
    compiled = re.compile(words, re.MULTILINE)
    return Rule(compiled, raw, instead, re.compile(unless) if unless else None, bad, good)


def words_of(text: str) -> str:
    """Lower-case words with one blank or line feed between, on the lines that they have in the text."""
    return re.sub(r" *\n *", "\n", re.sub(r"[^a-z'\n]+", " ", text.lower()))


def findings(text: str, rules: Sequence[Rule], path: str = "") -> Iterator[Finding]:
    """Yield every match of the rules in a text."""
    words = words_of(text)
    lines = text.split("\n")
    for rule in rules:
        searched = text if rule.raw else words
        for found in rule.pattern.finditer(searched):
            number = searched.count("\n", 0, found.start() + 1) + 1
            if rule.unless is None or not rule.unless.search(lines[number - 1]):
                yield Finding(path, number, " ".join(found[0].split()), rule.instead)


def checked_files(root: Path) -> list[str]:
    """List the files of the checkout that have prose in them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return sorted(
        path for path in set(listed.splitlines())
        if path.endswith(CHECKED) and path not in SELF and (root / path).is_file()
    )  # fmt: skip


def check(root: Path, rules: Sequence[Rule], under: tuple[str, ...] = ("",)) -> list[str]:
    """Return the findings in the checkout's files below the paths."""
    chosen = (path for path in checked_files(root) if path.startswith(under))
    return [str(one) for path in chosen for one in findings((root / path).read_text(), rules, path)]


def main() -> int:
    """Check the checkout, or the paths that are given."""
    wrong = check(HERE.parent, load_rules(), tuple(sys.argv[1:]) or ("",))
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
