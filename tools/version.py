"""Set the version of k8sflow: `python -m tools.version 0.2.0`, part of `make release`.

k8sflow/version.py is the source: the package's metadata, `k8sflow.__version__` and the default image read it. Files
that can't read it repeat it; they are listed here, and tests/unit/project/test_version.py checks each of them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCE = ("k8sflow/version.py", r'(?<=^VERSION = ")[^"]+')
COPIES = (
    ("charts/k8sflow/Chart.yaml", r"(?<=^version: ).+"),
    ("charts/k8sflow/Chart.yaml", r"(?<=^appVersion: ).+"),
    ("manifests/install.yaml", r'(?<=app\.kubernetes\.io/version: ")[^"]+'),
    ("manifests/install.yaml", r'(?<=image: "k8sflow:)[^"]+'),
    ("manifests/install.yaml", r"(?<=--image=k8sflow:).+"),
    ("docs/operators.md", r"(?<=image\.tag=)\d[^ ]*"),
    ("docs/kubernetes.md", r"(?<=`k8sflow:)\d[^`]*"),
    ("docs/reading.md", r"(?<=`k8sflow_version:)\d[^`]*"),
)
VALID = re.compile(r"\d+\.\d+\.\d+")  # what both PEP 440 and the SemVer of charts accept


def current(checkout: Path = CHECKOUT) -> str:
    """Return the version in k8sflow/version.py."""
    [version] = found(SOURCE, checkout)
    return version


def found(location: tuple[str, str], checkout: Path = CHECKOUT) -> list[str]:
    """Return the versions that one location has."""
    name, pattern = location
    return re.findall(
        f"({pattern})", (checkout / name).read_text(), re.MULTILINE
    )  # a group for a pattern of lookbehinds


def put(version: str, checkout: Path = CHECKOUT) -> None:
    """Write a version to the source and to every copy."""
    for name, pattern in (SOURCE, *COPIES):
        file = checkout / name
        file.write_text(re.sub(pattern, version, file.read_text(), flags=re.MULTILINE))


def main() -> int:
    """Set the version that the command line names, or print the current one."""
    match sys.argv[1:]:
        case []:
            print(current())
        case [version] if VALID.fullmatch(version):
            put(version)
        case _:
            print("usage: python -m tools.version [MAJOR.MINOR.PATCH]", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
