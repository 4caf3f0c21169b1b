"""Steps with packages of their own: what an environment adds to a start, here and in a pod.

make bench-environments

The rows of pods are measured where the environment names the test cluster, as after `make cluster`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from side_by_side import Comparison, Contender, command, options, run_all

PACKAGES = ("pandas", "scikit-learn")
FLOWS = Path(__file__).resolve().parent / "flows"
FIRST = "the first line"
SOURCE = f"""
from k8sflow import FlowSpec, pypi, step
class F(FlowSpec):
    @pypi(packages={dict.fromkeys(PACKAGES, "")})
    @step
    def start(self):
        print({FIRST!r})
        self.next(self.end)
    @step
    def end(self): pass
if __name__ == "__main__":
    F()
"""
POD_WITH = "kubernetes:cpu=1,memory=1000"


def main() -> None:
    """Measure starts on this machine, and in pods where there is a cluster."""
    parser = options("What an environment adds to the start of a step.", times=10)
    parser.add_argument("--width", type=int, default=20, help="pods at a time in the last row [%(default)s]")
    chosen = parser.parse_args()
    # Beside uv's cache: links across file systems would be copies.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="k8sflow-bench-", dir=cache) as name:
        folder = Path(name)
        (folder / "flow.py").write_text(SOURCE)
        (folder / "plain.py").write_text(SOURCE.replace("    @pypi", "    # @pypi"))
        os.environ["UV_CACHE_DIR"] = os.environ.get("UV_CACHE_DIR") or str(cache / "uv")
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        until_first_line(folder, "flow.py")  # so that all wheels are in uv's cache
        run_all([unchanged(folder, chosen.times), new(folder, min(chosen.times, 3))], chosen)
        if os.environ.get("K8SFLOW_KUBERNETES_RUNTIME_IMAGE"):
            in_pods(folder, chosen.width)


def unchanged(folder: Path, times: int) -> Comparison:
    """From the command to the first line of a step whose environment exists."""
    contenders = (
        Contender("@pypi", lambda: until_first_line(folder, "flow.py"), times),
        Contender("bare", lambda: until_first_line(folder, "plain.py"), times),
    )
    return Comparison("unchanged lock, to the step's first line", "the same flow without @pypi", contenders)


def new(folder: Path, times: int) -> Comparison:
    """From the command to the first line of a step whose packages were never resolved here, from cached wheels."""

    def ours() -> None:
        for name in ("locks", "environments"):
            shutil.rmtree(folder / "cache/k8sflow" / name, ignore_errors=True)
        until_first_line(folder, "flow.py")

    def bare() -> None:
        shutil.rmtree(folder / "bare", ignore_errors=True)
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        command(uv, "venv", "--quiet", "bare", cwd=str(folder))()
        command(uv, "pip", "install", "--quiet", "--python=bare/bin/python", *PACKAGES, cwd=str(folder))()

    contenders = (Contender("@pypi", ours, times), Contender("bare", bare, times))
    return Comparison("new lock, wheels cached", "uv venv and uv pip install of the same packages", contenders)


def until_first_line(folder: Path, file: str) -> None:
    """Run a flow until its first step prints, and end it then."""
    with subprocess.Popen(
        [sys.executable, file, "run"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if FIRST in line:
                process.kill()  # the fork servers end with it
                return
    raise SystemExit(f"{file} has printed no first line:\n{''.join(said)[-2000:]}")


def in_pods(folder: Path, width: int) -> None:
    """Print how long the installation in a pod took, beside a bare unzip in the same pod, and of several at once."""
    shutil.copy(FLOWS / "packages.py", folder)
    alone = [_pod_run(folder, 1) for _ in range(3)]
    installed = min(float(found) for said in alone for found in re.findall(r"installed .* in ([\d.]+) s", said))
    unzipped = min(float(found) for said in alone for found in re.findall(r"bare unzip: ([\d.]+) s", said))
    print(
        f"\nin a pod of one core: installed in {installed:.1f} s, bare unzip {unzipped:.1f} s, "
        f"{installed / unzipped:.2f} × bare"
    )
    said = _pod_run(folder, width)
    every = sorted(float(found) for found in re.findall(r"installed .* in ([\d.]+) s", said))
    print(f"{width} pods at once: installed {len(every)} times, in {every[0]:.1f} to {every[-1]:.1f} s")


def _pod_run(folder: Path, width: int) -> str:
    """Run the flow in pods, and return what it prints."""
    words = [sys.executable, "packages.py", "run", "--with", POD_WITH, "--width", str(width)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words} failed with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
