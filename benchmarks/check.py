"""Check measured ratios against ranges.yaml, and fail when one of them leaves its range.

    make bench-check                                     # measure all guarded ratios, about 6 minutes
    python benchmarks/check.py --short                   # those of `make test`, with fewer turns: a minute
    python benchmarks/check.py RESULT.json ...           # measure nothing, check files that benchmarks wrote

A noisy moment of the machine must not fail the check: contenders take turns, each one's minimum counts, ratios outside
their range are measured again, and only one that is outside in every attempt fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
TIMES = 5  # turns in the full form
Comparisons = Mapping[str, Mapping[str, Mapping[str, float]]]  # comparison → contender → unit → figure


@dataclass(frozen=True)
class Guard:
    """One entry of ranges.yaml, whose head explains the fields."""

    script: str
    case: str
    over: str
    range: tuple[float, float]
    of: str = "k8sflow"
    unit: str = "seconds"
    short: int = 0

    @property
    def name(self) -> str:
        unit = "" if self.unit == "seconds" else f", {self.unit.replace('_', ' ')}"
        return f"{self.case}: {self.of} / {self.over}{unit}"

    def ratio(self, results: Comparisons) -> float | None:
        """The measured ratio, or None if one of its two figures is missing."""
        figures = results.get(self.case, {})
        ours, bare = (figures.get(name, {}).get(self.unit) for name in (self.of, self.over))
        return ours / bare if ours and bare else None

    def verdict(self, ratio: float | None) -> str:
        low, high = self.range
        if ratio is None:
            return "NOT MEASURED"
        return "ok" if low <= ratio <= high else "TOO HIGH" if ratio > high else "TOO LOW"


@dataclass
class Checked:
    """A guard and what each attempt measured."""

    guard: Guard
    ratios: list[float | None] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """The verdict on the last attempt: a passing one is never repeated."""
        return self.guard.verdict(self.ratios[-1])


def main() -> int:
    options = _arguments()
    guards = [guard for guard in load(options.ranges) if options.only in guard.name]
    if options.short:
        guards = [guard for guard in guards if guard.short]
    if not guards:
        raise SystemExit(f"{options.ranges} guards no ratio whose name contains {options.only!r}: nothing was checked.")
    if options.results:
        found = merged(json.loads(path.read_text(encoding="utf-8")) for path in options.results)
        checked = check(guards, lambda _: found, attempts=1)
    else:
        checked = check(guards, lambda pending: measure(pending, short=options.short), options.attempts)
    print(table(checked))
    failed = [entry for entry in checked if entry.verdict != "ok"]
    if failed:
        print(explanation(len(failed), len(checked), options.ranges), file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check measured ratios against ranges.yaml.")
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULT", help="JSON files; without any, measure")
    parser.add_argument("--ranges", type=Path, default=HERE / "ranges.yaml", metavar="FILE", help="[%(default)s]")
    parser.add_argument("--short", action="store_true", help="the short form that is part of `make test`")
    parser.add_argument("--only", default="", metavar="TEXT", help="check ratios whose name contains this")
    parser.add_argument("--attempts", type=int, default=3, help="measure a ratio this often at most [%(default)s]")
    return parser.parse_args()


def load(path: Path) -> list[Guard]:
    """The guards of a file of ranges; exits with a message where an entry has a mistake."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    return [_guard(path, number, entry) for number, entry in enumerate(entries, 1)]


def _guard(path: Path, number: int, entry: dict[str, Any]) -> Guard:
    known = {each.name for each in fields(Guard)}
    low_high = entry.get("range")
    if set(entry) - known or not {"script", "case", "over", "range"} <= set(entry):
        problem = f"has the keys {sorted(entry)}"
    elif not (isinstance(low_high, list) and len(low_high) == 2 and 0 <= low_high[0] < low_high[1]):
        problem = f"has the range {low_high}, which is not [lowest, highest]"
    else:
        return Guard(**{**entry, "range": (float(low_high[0]), float(low_high[1]))})
    raise SystemExit(f"{path}: entry {number} {problem}. The head of benchmarks/ranges.yaml explains each key.")


def check(guards: Sequence[Guard], measure: Callable[[Sequence[Guard]], Comparisons], attempts: int) -> list[Checked]:
    """Measure all guards, and those outside their range again, until they pass or the attempts are used up."""
    checked = [Checked(guard) for guard in guards]
    pending = checked
    for _ in range(attempts):
        if pending:
            results = measure([entry.guard for entry in pending])
            for entry in pending:
                entry.ratios.append(entry.guard.ratio(results))
            pending = [entry for entry in pending if entry.verdict != "ok"]
    return checked


def measure(guards: Sequence[Guard], *, short: bool) -> Comparisons:
    """Run the benchmarks of these guards, with the contenders and comparisons that they need."""
    runs: dict[tuple[str, int], list[Guard]] = {}
    for guard in guards:
        runs.setdefault((guard.script, guard.short if short else TIMES), []).append(guard)
    return merged(_run(script, times, chosen) for (script, times), chosen in runs.items())


def _run(script: str, times: int, guards: Sequence[Guard]) -> dict[str, Any]:
    """Run a benchmark, and return the document that it wrote."""
    cases = list(dict.fromkeys(guard.case for guard in guards))
    contenders = dict.fromkeys(name for guard in guards for name in (guard.of, guard.over))
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, str(HERE / script), "--times", str(times), "--json", file.name]
        for option, names in (("--only", cases), ("--contender", contenders)):
            command += [word for name in names for word in (option, name)]
        print(f"Measuring with {script}: {'; '.join(cases)} ...", file=sys.stderr, flush=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{script} failed with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return json.loads(file.read())


def merged(documents: Iterable[dict[str, Any]]) -> Comparisons:
    """The comparisons of several result files; of a comparison in two of them, the last one."""
    return {name: figures for document in documents for name, figures in document["comparisons"].items()}


def table(checked: Sequence[Checked]) -> str:
    """Name, ratio of each attempt, range and verdict, in columns."""
    rows = [("ratio of the least of n", "measured", "range", "verdict")]
    for entry in checked:
        measured = ", ".join("-" if ratio is None else f"{ratio:.2f}" for ratio in entry.ratios)
        low, high = entry.guard.range
        rows.append((entry.guard.name, measured, f"{low:g} to {high:g}", entry.verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def explanation(failed: int, total: int, ranges: Path) -> str:
    return (
        f"\n{failed} of {total} guarded ratios are outside their range in {ranges}.\n"
        f"Likely causes: a change made k8sflow slower, a benchmark broke, or other programs keep this machine busy "
        f"(load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores).\n"
        "Run it again on a quiet machine, and on the commit before yours (`git stash`). If the new cost is intended, "
        "change the range in the same commit and say why.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
