"""CONTRIBUTING.md is true: its paths exist, its packages are all there are, and its snippets run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
PAGE = (CHECKOUT / "CONTRIBUTING.md").read_text()
PREFIXES = ("k8sflow/", "tests/", "tools/", "docs/", "charts/", "benchmarks/", "examples/", "manifests/")


def test_every_path_exists():
    """A module that moves takes its mention along."""
    paths = [text for text in re.findall(r"`([\w./-]+)`", PAGE) if text.startswith(PREFIXES)]
    assert paths
    assert [path for path in paths if not (CHECKOUT / path).exists()] == []


def test_every_module_that_a_page_or_docstring_names_exists():
    """Paths in docs/design.md and in the code are relative to the package."""
    texts = {path: path.read_text() for path in [CHECKOUT / "docs/design.md", *CHECKOUT.glob("k8sflow/**/*.py")]}
    packages = "|".join(init.parent.name for init in CHECKOUT.glob("k8sflow/*/__init__.py"))
    path_of = re.compile(rf"`((?:{packages})/[\w/]+\.py)`")
    named = {(path.name, name) for path, text in texts.items() for name in path_of.findall(text)}
    assert len(named) > 20
    assert {(page, name) for page, name in named if not (CHECKOUT / "k8sflow" / name).exists()} == set()


def test_every_package_is_on_the_map():
    """A newcomer finds each package in the table."""
    packages = {f"`{init.parent.relative_to(CHECKOUT)}/`" for init in CHECKOUT.glob("k8sflow/*/__init__.py")}
    assert {package for package in packages if package not in PAGE} == set()


def test_every_make_target_exists():
    """A command that a contributor is asked to type."""
    makefiles = "".join((CHECKOUT / name).read_text() for name in ("Makefile", "tests/cluster/cluster.mk"))
    targets = set(re.findall(r"^([a-z-]+):", makefiles, re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", PAGE)) <= targets


def test_the_demonstrations_run(tmp_path: Path):
    """Python blocks are files, and the lines of bash blocks are run beside them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("K8SFLOW_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT)}
    for name, text in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(text)
    printed = ""
    for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            done = subprocess.run(
                shlex.split(line), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            printed += done.stdout
    assert "start took 0.0 s" in printed
    assert "end took 0" in printed
