"""Builds small wheels into a folder that tests use instead of a package index."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

# Steps with two versions of a package, for flows whose head imports pypi; the second one is a foreach.
TWO_VERSIONS = """
    class F(FlowSpec):
        @pypi(packages={"shade": "1.0"})
        @step
        def start(self):
            import shade
            self.first = shade.VERSION
            self.branches = [0, 1]
            self.next(self.work, foreach="branches")
        @pypi(packages={"shade": ">=2"})
        @step
        def work(self):
            import shade, sys
            self.seen = (self.first, shade.VERSION, sys.prefix)
            self.next(self.join)
        @step
        def join(self, inputs):
            self.seen = [branch.seen for branch in inputs]
            self.next(self.end)
        @step
        def end(self):
            import importlib.util
            self.found = importlib.util.find_spec("shade") is not None
"""


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, str],
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
) -> Path:
    """Make a wheel with these files in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    base = f"{name.replace('-', '_')}-{version}"
    info = f"{base}.dist-info"
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    every = {
        **files,
        f"{info}/METADATA": "\n".join(lines) + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{file},sha256={_digest(text)},{len(text.encode())}\n" for file, text in every.items())
    wheel = folder / f"{base}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, text in {**every, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(file, text)
    return wheel


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def shades(folder: Path) -> None:
    """Make two versions of a package, and another one that goes with the first of them only."""
    for version in ("1.0", "2.0"):
        source = f"VERSION = {version!r}\n\nclass Color{version[0]}:\n    name = 'red'\n"
        make_wheel(folder, "shade", version, {"shade.py": source})
    make_wheel(folder, "paint", "1.0", {"paint.py": "import shade\n"}, ["shade<2"])
    make_wheel(folder, "winonly", "1.0", {"winonly.py": ""}, tag="cp311-cp311-win_amd64")


def uv_settings(wheels: Path, cache: Path) -> dict[str, str]:
    """Return the variables with which uv finds packages in a folder alone."""
    file = wheels.parent / "uv-settings.toml"
    file.write_text(f"no-index = true\nfind-links = [{str(wheels)!r}]\n")
    return {"UV_CONFIG_FILE": str(file), "XDG_CACHE_HOME": str(cache)}
