"""The timeline as text, and as a trace of Chrome."""

from __future__ import annotations

import json

import click
import pytest

from k8sflow.cli.timeline import chrome_trace
from k8sflow.cli.timeline_text import draw, percentile, seconds
from k8sflow.client.timeline import Timeline, build
from k8sflow.storage.trace import DriverMoment, ExecutionTrace, RunTrace


def timeline(width: int, ahead: float = 0.0) -> Timeline:
    """A run of a foreach in pods, whose branches start one after the other."""
    moments, own = [], []
    for step, begin, count in (("start", 0.0, 1), ("work", 5.0, width), ("end", 60.0, 1)):
        for index in range(count):
            at = begin + index * 50 / width
            times = {"submitted": begin, "created": at, "scheduled": at + 0.1, "started": at + 1.2, "seen": at + 5.0}
            details = {"scheduled": "n1", "seen": "user_error" if index == 3 else "succeeded"}
            moments += [DriverMoment(step, str(index), 0, name, t, details.get(name, "")) for name, t in times.items()]
            inside = {"process": 1.0, "agent": 1.2, "fetched": 1.4, "began": 2.0, "ended": 4.5, "committed": 4.8}
            shifted = {name: at + offset + ahead for name, offset in inside.items()}
            own.append(ExecutionTrace(step, str(index), 0, shifted, "n1", f"pod-{index}"))
    return build(RunTrace(["d"], moments, own), 0.0, 65.5)


def lines(columns: int, width: int, **options: bool) -> list[str]:
    return [click.unstyle(line) for line in draw("Fan/r1: failed", timeline(width), columns, **options)]


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("width", [3, 400])
def test_every_line_fits_the_terminal(columns: int, width: int):
    """Also those of a wide step."""
    rows = lines(columns, width)
    assert any("█" in row for row in rows)
    assert all(len(row) <= columns for row in rows)


def test_few_tasks_have_a_row_each():
    rows = lines(80, 4)
    assert [row.split(" ")[0] for row in rows[2:8]] == ["start", "work/0", "work/1", "work/2", "work/3", "end"]
    assert rows[6].endswith("user_error")


def test_a_wide_step_is_summarised():
    """With percentiles, its slowest task, the failures, and how many ran at once."""
    rows = lines(100, 400)
    assert rows[3].startswith("work (400 tasks)")
    assert "max 54.9 s (work/399)" in rows[4]
    assert "1 failed" in rows[5]
    assert "at most 20 at once" in rows[5] or "at most 21 at once" in rows[5]


def test_the_table_has_each_phase_with_its_share():
    text = "\n".join(lines(100, 400))
    for phase in ("queued", "scheduling", "container", "python", "fetching", "loading", "user code", "storing"):
        assert phase in text
    assert "The duration is made of" in text
    assert "n1: agrees" in text


def test_ascii_is_enough():
    assert all(line.replace("·", "").replace("→", "").isascii() for line in lines(80, 4, is_ascii=True)[2:8])


def test_a_node_whose_clock_differs_is_named():
    text = "\n".join(draw("Fan/r1", timeline(4, ahead=3600.0), 80))
    assert " ahead (or up to" in text
    assert "its times are shifted" in text


def test_a_chrome_trace_has_the_fields_of_its_format():
    """A complete event (X) for each phase, with microseconds; metadata (M) names processes and threads."""
    found = json.loads(json.dumps(chrome_trace("Fan/r1", timeline(4))))
    kinds = {"X": [], "M": []}
    for event in found["traceEvents"]:
        kinds[event["ph"]].append(event)
    assert len(kinds["X"]) == 6 * 9
    for event in kinds["X"]:
        assert {"name", "cat", "ph", "pid", "tid", "ts", "dur"} <= event.keys()
        assert all(isinstance(event[key], int) for key in ("pid", "tid", "ts", "dur"))
        assert event["ts"] >= 0
        assert event["dur"] >= 0
    assert {event["args"]["name"] for event in kinds["M"]} >= {"start", "work", "work/3", "end"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 ms"),
        (0.0124, "12 ms"),
        (0.9996, "1.00 s"),
        (12.34, "12.3 s"),
        (125, "2m05s"),
        (11_400, "3h10m"),
        (-1, "-1.00 s"),
    ],
)
def test_durations(value: float, text: str):
    assert seconds(value) == text


def test_percentiles_are_values_that_occurred():
    assert [percentile([1.0, 2.0, 3.0, 4.0], share) for share in (0.5, 0.9, 1.0)] == [2.0, 4.0, 4.0]
    assert percentile([], 0.5) == 0.0
