"""The changelog's fragments."""

import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
NAME = re.compile(r"\+[a-z0-9-]+\.(added|changed|fixed)\.md")
GENERAL = {"README.md", "template.md.jinja"}


def fragments() -> list[Path]:
    return sorted(path for path in (CHECKOUT / "changelog.d").iterdir() if path.name not in GENERAL)


def test_every_fragment_has_a_name_that_says_its_kind():
    """A misspelt kind would silently keep a change out of the changelog."""
    assert [path.name for path in fragments() if not NAME.fullmatch(path.name)] == []


def test_the_next_section_has_the_text_of_every_fragment():
    """towncrier accepts its configuration, and writes each fragment below one of the three headings."""
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "9.9.9", "--date", "2030-01-02"]
    section = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout

    assert section.startswith("## 9.9.9 (2030-01-02)")
    assert set(re.findall(r"^### (.*)$", section, re.MULTILINE)) <= {"Added", "Changed", "Fixed"}
    for path in fragments():
        for line in path.read_text().splitlines():
            assert line.strip().removeprefix("- ") in section
