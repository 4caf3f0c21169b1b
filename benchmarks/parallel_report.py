"""Reports of the parallel_map benchmark: a table of each case, the targets, a plot."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

COLD, MANY, UNEVEN = "200 no-ops, cold", "100,000 no-ops", "64 uneven items of pure Python"
SUMS = ("sum of 2 GB, 8 blocks", "sum of 4 GB, 8 blocks")
BIG, SMALL = "return 2 x 0.5 GiB", "return 1,000 x 1 MiB"
WAIT = "wait for two workers"
Figures = dict[str, tuple[float, float, float]]  # contender → least seconds, least CPU seconds, most MiB
_PROCESSES = ("Pool", "ProcessPoolExecutor", "joblib/loky", "mpire", "Metaflow")


def table(name: str, figures: Figures, bare: str | None) -> str:
    lines = [
        f"### {name}",
        "",
        f"| | seconds | x k8sflow | x {bare or '-'} | parent's CPU s | parent's memory MiB |",
        "|---|---|---|---|---|---|",
    ]
    own = figures["k8sflow"][0]
    for contender, (seconds, cpu, mib) in sorted(figures.items(), key=lambda entry: entry[1][0]):
        ratio = f"{seconds / figures[bare][0]:.2f}" if bare else ""
        title = f"**{contender}**" if contender == "k8sflow" else contender
        lines.append(f"| {title} | {seconds:.4f} | {seconds / own:.2f} | {ratio} | {cpu:.3f} | {mib:.0f} |")
    return "\n".join(lines) + "\n"


Row = tuple[str, str, bool]  # target, measurement, whether the target is reached


def targets(results: dict[str, Figures], waited: tuple[float, float] | None) -> str:
    """The targets, each with its measurement, and with the machine's limit where that may be the cause."""
    judges = {COLD: cold, MANY: many, SUMS[0]: matrix_sum, SUMS[1]: matrix_sum, UNEVEN: uneven, BIG: big, SMALL: small}
    rows = [(case, *row) for case, figures in results.items() for row in judges[case](figures)]
    if waited:
        seconds, cpu = waited
        rows.append((WAIT, "parent's CPU ~ 0", f"{cpu * 1e3:.1f} ms in {seconds:.1f} s", cpu < 0.001 * seconds))
    lines = ["| case | to reach | measured | |", "|---|---|---|---|"]
    for case, goal, measured, reached in rows:
        lines.append(f"| {case} | {goal} | {measured} | {'reached' if reached else 'not reached'} |")
    return "\n".join(lines) + "\n"


def cold(figures: Figures) -> list[Row]:
    own, forks, pipes = (figures[name][0] for name in ("k8sflow", "two forks and waits", "two forks with a pipe each"))
    allowed = 1.5 * forks + 0.001
    measured = f"{own * 1e3:.1f} ms; allowed {allowed * 1e3:.1f} ms; two forks with a pipe each: {pipes * 1e3:.1f} ms"
    return [
        ("< 15 ms", f"{own * 1e3:.1f} ms", own < 0.015),
        ("<= 1.5 x two forks and waits + 1 ms", measured, own <= allowed),
    ]


def many(figures: Figures) -> list[Row]:
    each = (figures["k8sflow"][0] - figures["plain loop"][0]) / 100_000
    return [("< 3 us per item over the plain loop", f"{each * 1e6:.2f} us", each < 3e-6)]


def matrix_sum(figures: Figures) -> list[Row]:
    bare = min(figures["plain sum"][0], figures["threads"][0])
    ratio, limit = figures["k8sflow"][0] / bare, figures["two forks, shared by hand"][0] / bare
    goal = "<= 1.15 x the better of plain sum and two threads"
    return [(goal, f"{ratio:.2f} x; two forks shared by hand: {limit:.2f} x", ratio <= 1.15)]


def uneven(figures: Figures) -> list[Row]:
    one = figures["one core"][0]
    speedup, known, unknown = (
        one / figures[name][0] for name in ("k8sflow", "two forks, shared by hand", "two forks, next item when free")
    )
    limits = f"two forks that take the next item when free: {unknown:.2f} x; that know each item's time: {known:.2f} x"
    return [(">= 1.93 x one core", f"{speedup:.2f} x; {limits}", speedup >= 1.93)]


def big(figures: Figures) -> list[Row]:
    own = figures["k8sflow"][0]
    copies = own / figures["memcpy of 1 GiB"][0]
    peers = _best(figures, _PROCESSES) / own
    return [
        ("<= 2.5 x memcpy", f"{copies:.2f} x", copies <= 2.5),
        ("<= half of the best process-based peer", f"1/{peers:.1f}", peers >= 2),
    ]


def small(figures: Figures) -> list[Row]:
    faster = figures["Pool"][0] / figures["k8sflow"][0]
    memory = figures["k8sflow"][2]
    return [
        (">= 4 x faster than Pool", f"{faster:.1f} x", faster >= 4),
        ("parent's memory < results + 3 in flight", f"{memory:.0f} MiB; allowed 1003 MiB", memory < 1003),
    ]


def _best(figures: Figures, names: Iterable[str]) -> float:
    return min(figures[name][0] for name in names)


def plot(results: dict[str, Figures], bare: dict[str, set[str]], path: Path) -> None:
    """Draw the bars of each case; ``bare`` names the bare operations among its contenders."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullFormatter

    rows = (len(results) + 1) // 2
    figure, axes = plt.subplots(rows, 2, figsize=(11, 2.6 * rows), squeeze=False)
    for axis in axes.flat[len(results) :]:
        axis.set_visible(False)
    for (case, figures), axis in zip(results.items(), axes.flat, strict=False):
        entries = sorted(figures.items(), key=lambda entry: -entry[1][0])
        colours = [
            "#1f77b4" if name == "k8sflow" else "#9aa0a6" if name in bare[case] else "#e0a458" for name, _ in entries
        ]
        seconds = [least for _, (least, _, _) in entries]
        axis.barh([name for name, _ in entries], seconds, color=colours)
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())  # within one decade the labels of 2, 3, 4 … would overlap
        axis.set_xlim(min(seconds) / 2, max(seconds) * 6)
        axis.set_title(case, fontsize=10, loc="left")
        axis.tick_params(labelsize=8)
        for position, value in enumerate(seconds):
            axis.text(
                value, position, f" {value * 1e3:,.1f} ms" if value < 1 else f" {value:,.2f} s", va="center", fontsize=7
            )
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Seconds with two workers, minimum of n; grey: the bare operation", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
