"""The plan of a fork server's imports is read from the flow's code; it has nothing that could change its behavior."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from k8sflow.executors.fork_server.preload_plan import Ignore, Import, PlanStep, PreloadPlan, SetVariable, plan


def _library(name: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = f"/usr/lib/python3/site-packages/{name}/__init__.py"
    return module


LIBRARIES = {name: _library(name) for name in ("one", "two", "three", "four")}


def planned(folder: Path, source: str, **modules: str) -> PreloadPlan:
    """The plan of a flow's file, with modules of the user's beside it."""
    file = folder / "flow.py"
    file.write_text(textwrap.dedent(source))
    loaded = dict(LIBRARIES)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
        loaded[name] = ModuleType(name)
        loaded[name].__file__ = str(folder / f"{name}.py")
    return plan(file, "", {**sys.modules, **loaded})


def names(steps: tuple[PlanStep, ...]) -> list[str]:
    return [step.module for step in steps if isinstance(step, Import)]


@pytest.mark.parametrize(
    "between",
    [
        "",
        "'a text'",
        "X = 1\nY: int = 2\nZ = [X, Y]",
        "import logging\nlog = logging.getLogger(__name__)",
        "from pathlib import Path\nHERE = Path(__file__).resolve().parent",
        "import os\nLEVEL = os.environ.get('LEVEL', 'x').upper()",
        "import sys\nsys.path.insert(0, 'vendor')",
        "def helper(x=1):\n    raise SystemExit",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 1",
        "if TYPE_CHECKING:\n    import nothing",
        "try:\n    import nothing\nexcept ImportError:\n    nothing = None",
        "import matplotlib\nmatplotlib.use('Agg')",
        "n = 1\nn += 1\nALL = [n]\nALL += ['x']",
        "import enum, typing\nclass A(enum.Enum):\n    X = 1\nclass B(typing.NamedTuple):\n    x: int",
        "from typing import Generic, TypeVar\nT = TypeVar('T')\nclass A(Generic[T]): pass\nclass B(A[int]): pass",
        "from k8sflow import FlowSpec, step\nclass A(Exception): pass",
        "def f():\n    one.WORDS += [1]",
    ],
)
def test_what_no_library_can_notice_holds_nothing_up(tmp_path: Path, between: str) -> None:
    """Imports behind it are planned as well."""
    found = planned(tmp_path, f"import one\n{between}\nimport two\n")
    assert names(found.steps)[0] == "one"
    assert names(found.steps)[-1] == "two"
    assert found.late == ()


@pytest.mark.parametrize(
    "between",
    [
        "setup()",
        "x = one.start()",
        "one.option = 5",
        "one.options['a'] = 5",
        "del one.option",
        "with one.lock:\n    pass",
        "for x in one.things:\n    pass",
        "if one.check():\n    pass",
        "@one.register\ndef f(): pass",
        "class A(metaclass=one.make()): pass",
        "import os\nos.environ['A'] = one.value()",
        "import os\nos.environ.update(A='1')",
        "import os\ndel os.environ['A']",
        "import warnings\nwarnings.simplefilter('error')",
        "x = [one.f() for _ in (1,)]",
        "assert one.f()",
        "x = f'{one.f()}'",
    ],
)
def test_what_a_library_might_notice_ends_the_plan(tmp_path: Path, between: str) -> None:
    """Later imports are made by each task; the plan knows their lines."""
    found = planned(tmp_path, f"import one\n{between}\nimport two\nimport one\n")
    assert names(found.steps)[0] == "one"
    assert "two" not in names(found.steps)
    line = 3 + between.count("\n")
    assert found.late == (("two", f"{tmp_path}/flow.py:{line}"),)


def test_variables_are_set_in_the_order_of_the_source(tmp_path: Path) -> None:
    """Each import comes when those before it are set; a second value of one ends the plan."""
    source = """
        import one, os
        os.environ["A"] = "1"
        import two
        os.environ.setdefault("B", "2")
        import three
        os.environ.update({"C": "3", "A": "4"})
        import four
    """
    found = planned(tmp_path, source)
    kept = [step for step in found.steps if not (isinstance(step, Import) and step.module == "os")]
    files = {name: str(module.__file__) for name, module in LIBRARIES.items()}
    assert kept == [
        Import("one", files["one"]),
        SetVariable("A", "1"),
        Import("two", files["two"]),
        SetVariable("B", "2", is_default=True),
        Import("three", files["three"]),
    ]
    assert [name for name, _ in found.late] == ["four"]


def test_the_users_modules_are_read_where_they_are_imported(tmp_path: Path) -> None:
    """Their statements count in their place, and once."""
    found = planned(
        tmp_path, "import one\nimport first\nimport first\nimport four", first="import two\nsetup()\nimport three"
    )
    assert names(found.steps) == ["one", "two"]
    assert [name for name, _ in found.late] == ["three", "four"]


def test_ignored_warnings_are_noted(tmp_path: Path) -> None:
    """They end nothing."""
    found = planned(tmp_path, "import warnings\nwarnings.filterwarnings('ignore', category=FutureWarning)\nimport one")
    assert [type(step) for step in found.steps] == [Import, Ignore, Import]


def test_what_cannot_be_read_plans_nothing_behind_it(tmp_path: Path) -> None:
    """A module that is native code, and one whose source doesn't parse."""
    loaded = ModuleType("native")
    loaded.__file__ = str(tmp_path / "native.so")
    file = tmp_path / "flow.py"
    file.write_text("import one\nimport native\nimport two")
    assert names(plan(file, "", {**LIBRARIES, "native": loaded}).steps) == ["one"]
    assert names(planned(tmp_path, "import one\nimport broken\nimport two", broken="def :").steps) == ["one"]
