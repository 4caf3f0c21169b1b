"""benchmarks/check.py: guarded ratios, and the failure when one of them leaves its range."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
GUARD = {"script": "local_run.py", "case": "three steps", "over": "bare", "range": [3, 20]}


@pytest.fixture
def ranges(tmp_path: Path) -> Path:
    """A file of ranges with one entry."""
    return _write_ranges(tmp_path, GUARD)


def _write_ranges(folder: Path, *entries: dict[str, object]) -> Path:
    path = folder / "ranges.yaml"
    path.write_text(yaml.safe_dump(list(entries)))
    return path


def _write_figures(folder: Path, **seconds: float) -> Path:
    path = folder / "figures.json"
    figures = {name: {"seconds": value} for name, value in seconds.items()}
    path.write_text(json.dumps({"machine": {}, "comparisons": {"three steps": figures}}))
    return path


def _check(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "check.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_ratio_within_its_range_passes(tmp_path: Path, ranges: Path) -> None:
    """The table has the name, the ratio, the range and the verdict."""
    done = _check("--ranges", ranges, _write_figures(tmp_path, k8sflow=0.3, bare=0.03))

    assert done.returncode == 0
    cells = re.split(r" {2,}", done.stdout.splitlines()[1])
    assert cells == ["three steps: k8sflow / bare", "10.00", "3 to 20", "ok"]
    assert done.stderr == ""


def test_a_guard_may_be_of_cpu_seconds(tmp_path: Path) -> None:
    """The unit is part of the ratio's name; a figure without that unit is not measured."""
    ranges = _write_ranges(tmp_path, {**GUARD, "unit": "cpu_seconds"})

    done = _check("--ranges", ranges, _write_figures(tmp_path, k8sflow=0.3, bare=0.03))

    assert done.returncode == 1
    cells = re.split(r" {2,}", done.stdout.splitlines()[1])
    assert cells == ["three steps: k8sflow / bare, cpu seconds", "-", "3 to 20", "NOT MEASURED"]


@pytest.mark.parametrize(("seconds", "verdict"), [(0.63, "TOO HIGH"), (0.03, "TOO LOW")])
def test_a_ratio_outside_its_range_fails(tmp_path: Path, ranges: Path, seconds: float, verdict: str) -> None:
    """Too slow fails, and so does too fast, which is a benchmark that measures nothing."""
    done = _check("--ranges", ranges, _write_figures(tmp_path, k8sflow=seconds, bare=0.03))

    assert done.returncode == 1
    assert done.stdout.splitlines()[1].endswith(verdict)
    assert "1 of 1 guarded ratios are outside their range" in done.stderr
    assert "Likely causes" in done.stderr
    assert "change the range in the same commit" in done.stderr


def test_a_missing_figure_fails(tmp_path: Path, ranges: Path) -> None:
    """A renamed comparison must not pass unnoticed."""
    done = _check("--ranges", ranges, _write_figures(tmp_path, k8sflow=0.3))

    assert done.returncode == 1
    assert done.stdout.splitlines()[1].endswith("NOT MEASURED")


def test_a_measured_ratio_outside_its_range_fails_after_all_attempts(tmp_path: Path) -> None:
    """Importing k8sflow takes longer than a tenth of starting Python, on the noisiest machine too."""
    impossible = {**GUARD, "case": "import of the package", "range": [0, 0.1], "short": 1}

    done = _check("--short", "--attempts", 2, "--ranges", _write_ranges(tmp_path, impossible))

    assert done.returncode == 1
    row = done.stdout.splitlines()[1]
    assert row.endswith("TOO HIGH")
    assert row.count(",") == 1  # two attempts
    assert done.stderr.count("Measuring with local_run.py") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"range": [4, 1]}, "entry 1 has the range [4, 1], which is not [lowest, highest]"),
        ({"rnage": [1, 4]}, "entry 1 has the keys"),
    ],
)
def test_a_mistake_in_the_ranges_is_an_error(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """It names the file and the entry."""
    path = _write_ranges(tmp_path, {**GUARD, **change})

    done = _check("--ranges", path, _write_figures(tmp_path, k8sflow=0.3, bare=0.03))

    assert done.returncode == 1
    assert f"{path}: {message}" in done.stderr


def test_checking_nothing_is_an_error(ranges: Path) -> None:
    """A misspelt --only must not look like a pass."""
    done = _check("--only", "four steps", "--ranges", ranges)

    assert done.returncode == 1
    assert "guards no ratio whose name contains 'four steps': nothing was checked." in done.stderr


def test_the_ranges_name_contenders_of_their_scripts() -> None:
    """A contender's name is a text of the script or of the modules that it imports."""
    texts = {path.name: _texts(path) for path in BENCHMARKS.glob("*.py")}
    shared = texts["parallel_cases.py"] | texts["parallel_contenders.py"] | texts["parallel_report.py"]

    for entry in yaml.safe_load((BENCHMARKS / "ranges.yaml").read_text()):
        known = texts[entry["script"]] | (shared if entry["script"] == "parallel_map.py" else set())
        assert {entry["over"], entry.get("of", "k8sflow")} <= known, entry


def _texts(path: Path) -> set[str]:
    return {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
