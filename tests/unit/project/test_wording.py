"""tools/wording.py, the word list of `make lint`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import wording

CHECKOUT = Path(__file__).parents[3]


RULES = wording.load_rules()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with nothing in it."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.bad)
def test_each_rule_finds_its_bad_example_and_passes_its_good_one(rule):
    """A rule is neither dead nor too wide."""
    assert list(wording.findings(rule.bad, [rule]))
    assert not list(wording.findings(rule.good, [rule]))


@pytest.mark.parametrize(
    "text",
    [
        "Use a left join; the operand on the left stays in place.",
        "There is no cluster, and there\nis no bucket any more.",
        "The driver tells the executor what to start, which takes place at once.",
        "A placeholder of two decimal places; the placement says which node.",
        "The list is made up of words; begin at the beginning.",
        "Amend the commit. `k8s` stands for Kubernetes.",
    ],
)
def test_ordinary_english_passes(text: str):
    """Words that the list has in one sense only are free in the other."""
    assert list(wording.findings(text, RULES)) == []


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("code.py", "x = 1\ndef _told(x): ...\n", 2),
        ("code.py", "# the driver then goes\n# on with the run\n", 1),
        ("code.py", 'raise Error("its driver is gone")\n', 1),
        ("test_code.py", "\n\ndef test_whoever_comes_second(): ...\n", 3),
        ("page.md", "# Title\n\nIt is read anew.\n", 3),
    ],
)
def test_a_finding_names_file_and_line(checkout: Path, name: str, text: str, line: int):
    """Identifiers, comments, messages, test names and Markdown are all read."""
    (checkout / name).write_text(text)
    assert any(wrong.startswith(f"{name}:{line}: ") for wrong in wording.check(checkout, RULES))


def test_the_command_fails_with_its_findings(checkout: Path):
    """`make lint` stops at a finding."""
    for name in ("wording.py", "wording.toml"):
        (checkout / "tools").mkdir(exist_ok=True)
        (checkout / "tools" / name).write_bytes((CHECKOUT / "tools" / name).read_bytes())
    (checkout / "page.md").write_text("Whoever reads this.\n")

    done = subprocess.run(
        [sys.executable, "-m", "tools.wording"], cwd=checkout, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stdout == "page.md:1: 'whoever': write the process that, anyone who\n"
