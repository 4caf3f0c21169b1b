"""Compares tests/unit/metaflow_names.txt with the installed Metaflow, or writes it; to be run where Metaflow is.

.venv-bench/bin/python tools/metaflow_names.py [--write]
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

LIST = Path(__file__).parents[1] / "tests" / "unit" / "metaflow_names.txt"
# Modules of the standard library that Metaflow happens to import into its namespace.
NOT_ITS_OWN = {"os", "sys"}


def listed() -> str:
    """The list for the Metaflow that is installed."""
    import metaflow  # noqa: PLC0415  the name of this file's folder is known first

    names = sorted(name for name in dir(metaflow) if not name.startswith("_") and name not in NOT_ITS_OWN)
    head = f"# The public names of Metaflow {version('metaflow')}: those of `dir(metaflow)` without an underscore."
    return "\n".join([head, *names, ""])


def main() -> int:
    """Returns the exit code: 1 if the list is not that of the installed Metaflow."""
    if "--write" in sys.argv[1:]:
        LIST.write_text(listed())
        return 0
    if LIST.read_text() == listed():
        return 0
    print(f"{LIST} is not the list of Metaflow {version('metaflow')}: run `make metaflow-names`.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
