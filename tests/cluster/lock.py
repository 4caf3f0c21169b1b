"""``python -m tests.cluster.lock``: writes requirements.lock, the versions in the k8sflow image, by pip's resolver."""

from __future__ import annotations

import json
import re
import sys

from tests.cluster.places import CHECKOUT
from tests.cluster.process import run

LOCK = CHECKOUT / "requirements.lock"
HEADER = """\
# The versions in the k8sflow image: every dependency of k8sflow[controller,ui] and of its build, resolved at once.
# Update it with `make lock`.
"""


def main() -> None:
    report = run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"),
            *("--report", "-", f"{CHECKOUT}[controller,ui]", "hatchling"),
        ],
        doing="resolve the dependencies",
        advice="See that pip reaches PyPI.",
    )
    found = [package["metadata"] for package in json.loads(report)["install"]]
    pins = sorted(f"{normal(one['name'])}=={one['version']}" for one in found if one["name"] != "k8sflow")
    LOCK.write_text(HEADER + "\n".join(pins) + "\n")


def normal(name: str) -> str:
    """Return a package's name in the form that all spellings share (PEP 503)."""
    return re.sub("[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
