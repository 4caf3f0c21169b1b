"""The public API as type checkers see it: a user's flow passes ``mypy --strict``, and wrong options don't."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TYPED, MISTAKES = ROOT / "typing_tests" / "flow.py", ROOT / "typing_tests" / "mistakes.py"


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The output of mypy for the typing tests, without the settings of this project."""
    cache = tmp_path_factory.mktemp("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", TYPED, MISTAKES]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()


@pytest.mark.slow
def test_a_flow_with_every_decorator_is_typed(lines: list[str]) -> None:
    """Without an untyped decorator; the types are what a user expects."""
    assert not [line for line in lines if "flow.py" in line and " error: " in line]
    revealed = [line.partition('Revealed type is "')[2].rstrip('"') for line in lines if "Revealed type" in line]
    assert revealed[:2] == ["int", "str | None"]
    assert revealed[2].endswith("(_Target) -> _Target")
    assert "times: int | str =" in revealed[3]
    assert revealed[4].startswith("def (self: ")
    assert revealed[5].endswith("Typed")
    assert "volume: int =" in revealed[6]


@pytest.mark.slow
def test_each_mistake_is_found_by_the_type_checker(lines: list[str]) -> None:
    """In its line, and in no other."""
    written = MISTAKES.read_text().splitlines()
    expected = {number for number, line in enumerate(written, 1) if line.endswith("# error")}
    found = {int(line.split(":")[1]) for line in lines if MISTAKES.name in line and " error: " in line}
    assert found == expected
