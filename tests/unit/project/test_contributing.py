"""CONTRIBUTING.md is true: its paths exist, its packages are all there are, and its snippets run."""

import os
import re
import shlex
import shutil
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


def test_every_module_that_is_named_without_its_folder_exists():
    """``pod_parsers.py``, beside another module."""
    demonstrations = set(re.findall(r"^# (\w+\.py)$", PAGE, re.MULTILINE))
    modules = {path.name for path in CHECKOUT.glob("k8sflow/**/*.py")}
    named = {name.rpartition("/")[2] for name in re.findall(r"`([\w/]+\.py)`", PAGE) if not name.startswith(PREFIXES)}
    assert named
    assert named - modules - demonstrations == set()


def test_every_name_is_defined_in_its_module():
    """```merge` in `k8sflow/flow/decorators/pod_options.py```, and `a` and `b` in a module."""
    pairs = re.findall(r"`(\w+)`(?: and `(\w+)`)? in `(k8sflow/[\w/]+\.py)`", PAGE)
    assert len(pairs) > 5
    defined = r"^ *(?:def |class |async def )?%s\b[^=\n]*[:=(]"
    missing = [
        (name, module)
        for *names, module in pairs
        for name in filter(None, names)
        if not re.search(defined % name, (CHECKOUT / module).read_text(), re.MULTILINE)
    ]
    assert missing == []


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
    for name, text in blocks().items():
        (tmp_path / name).write_text(text)
    printed = "".join(
        run(line, tmp_path, CHECKOUT)
        for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    )
    assert "start took 0.0 s" in printed
    assert "end took 0" in printed


def test_the_demonstrated_decorator_becomes_a_part_of_k8sflow_by_its_module_and_four_lines(tmp_path: Path):
    """Each line is added after that of ``@catch`` in the same list."""
    shutil.copytree(CHECKOUT / "k8sflow", tmp_path / "k8sflow", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "k8sflow/flow/decorators/measured.py").write_text(blocks()["measured.py"])
    (diff,) = re.findall(r"^```diff\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    added = 0
    for line in diff.splitlines():
        if not line.startswith("+"):
            file = tmp_path / line
            continue
        before = line[1:].replace("measured", "catch")
        lines = file.read_text().splitlines()
        lines.insert(lines.index(before) + 1, line[1:])
        file.write_text("\n".join(lines))
        added += 1
    assert added == 4
    flow = tmp_path / "flows/train.py"
    flow.parent.mkdir()
    source = blocks()["train.py"].replace("from measured import measured\n\n", "")
    flow.write_text(source.replace("import FlowSpec, step", "import FlowSpec, measured, step"))
    assert "start took 0.0 s" in run("python train.py run --with measured:digits=2", flow.parent, tmp_path)


def blocks() -> dict[str, str]:
    """The files that the page shows, by name."""
    return dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def run(line: str, folder: Path, checkout: Path) -> str:
    """The output of a command, with the k8sflow of a checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("K8SFLOW_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(checkout)}
    done = subprocess.run(shlex.split(line), cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout
