"""The plans of ``@cache``: whatever a step can reach changes its key, and nothing else does."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from k8sflow.environments.lock import Lock
from k8sflow.storage.cache_plan import PACKAGES, CachePlan
from tests.support import pod_options
from tests.unit.runtime.caching.planning import parts, plans

HELPERS = """
import functools
import json
from dataclasses import dataclass
RATE = 3
TABLE = {"double": lambda x: x * 2, "half": lambda x: x / 2}
UNUSED = 17
def scale(x, by=2):
    # a comment
    return deeper(x) * by * RATE
def deeper(x):
    return x + 1
def unrelated(x):
    return x - 1
def make(n):
    def add(x):
        return x + n
    return add
add = make(5)
@functools.lru_cache(maxsize=None)
def cached(x):
    return x + 100
class Base:
    factor = 4
    def area(self):
        return self.factor
class Square(Base):
    @property
    def size(self):
        return self.area() ** 2
@dataclass
class Options:
    depth: int = 3
    names: tuple = ("a", "b")
OPTIONS = Options()
class Shape:
    def __init__(self, n):
        self.n = n
SHAPE = Shape(8)
"""
FLOW = """
import math
import os
import helpers
from helpers import OPTIONS, SHAPE, TABLE, Square, add, cached
from k8sflow import FlowSpec, Parameter, cache, environment, step

LIMIT = 10

class Mixin:
    def mixed(self):
        return self.first

class F(Mixin, FlowSpec):
    alpha = Parameter("alpha", default=1)
    _private = {"a": 1}

    @property
    def doubled(self):
        return self.first * 2

    def method(self, x, y=7):
        return x + y

    def other_method(self):
        return 1

    @step
    def start(self):
        self.first = 1
        self.next(self.work)

    @cache
    @step
    def work(self):
        found = helpers.scale(self.first) + LIMIT + TABLE["double"](2) + add(1) + Square().size + cached(1)
        self.result = found + OPTIONS.depth + SHAPE.n + self.method(1) + self.doubled + self.mixed()
        self.result += self._private["a"]
        self.result += math.floor(1.5)
        self.variable = os.environ.get("ATTACKED")
        self.next(self.end)

    @step
    def end(self):
        print(self.result)
"""
FILES = {"flow.py": FLOW, "helpers.py": HELPERS, "data.csv": "1,2\n", "other.py": "def nothing(): return 1\n"}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("flow.py", "+ LIMIT", "- LIMIT", id="the step"),
        pytest.param("flow.py", "LIMIT = 10", "LIMIT = 11", id="a constant"),
        pytest.param("flow.py", "y=7", "y=8", id="a default argument of a method"),
        pytest.param("flow.py", "self.first * 2", "self.first * 3", id="a property"),
        pytest.param("flow.py", "return self.first\n", "return self.first + 1\n", id="a mixin"),
        pytest.param("flow.py", '{"a": 1}', '{"a": 2}', id="a private attribute of the class"),
        pytest.param("helpers.py", "by=2", "by=3", id="a default argument"),
        pytest.param("helpers.py", "RATE = 3", "RATE = 4", id="a constant of another module"),
        pytest.param("helpers.py", "return x + 1\n", "return x + 2\n", id="a function that a helper calls"),
        pytest.param("helpers.py", "x * 2", "x * 3", id="a lambda in a dict"),
        pytest.param("helpers.py", "make(5)", "make(6)", id="the variable of a closure"),
        pytest.param("helpers.py", "return x + n", "return x - n", id="the function of a closure"),
        pytest.param("helpers.py", "return x + 100", "return x + 101", id="a function behind functools.cache"),
        pytest.param("helpers.py", "factor = 4", "factor = 5", id="an attribute of a base class"),
        pytest.param("helpers.py", "return self.factor", "return -self.factor", id="a method of a base class"),
        pytest.param("helpers.py", "** 2", "** 3", id="a property of a class"),
        pytest.param("helpers.py", "depth: int = 3", "depth: int = 4", id="the default of a dataclass"),
        pytest.param("helpers.py", "Shape(8)", "Shape(9)", id="the state of an object"),
        pytest.param("data.csv", "1,2", "1,3", id="a file"),
        pytest.param("helpers.py", "RATE = 3", "RATE = 3\njson.loads('{}')", id="a statement of a module"),
    ],
)
def test_a_change_of_what_the_step_can_reach_changes_its_key(folder: Path, file: str, old: str, new: str) -> None:
    """Each change by itself, wherever it is."""
    before = parts(folder, FILES)
    assert before == parts(folder, FILES)
    assert old in FILES[file]
    assert parts(folder, {**FILES, file: FILES[file].replace(old, new)}) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("helpers.py", "    # a comment\n", "\n\n    # another\n", id="a comment"),
        pytest.param("helpers.py", "deeper(x) * by", "(deeper(\n        x) * by)", id="the layout"),
        pytest.param("helpers.py", "return x - 1", "return x - 2", id="a function that it doesn't call"),
        pytest.param("helpers.py", "UNUSED = 17", "UNUSED = 18", id="a constant that it doesn't read"),
        pytest.param("flow.py", "print(self.result)", "print(-self.result)", id="another step"),
        pytest.param("flow.py", "self.first = 1", "self.first = 2", id="the step before it"),
        pytest.param("flow.py", "return 1\n", "return 2\n", id="a method that it doesn't call"),
        pytest.param("other.py", "return 1", "return 2", id="a module that it doesn't import"),
    ],
)
def test_other_changes_leave_the_key_alone(folder: Path, file: str, old: str, new: str) -> None:
    """Otherwise nobody would gain by the cache."""
    before = parts(folder, FILES)
    assert old in FILES[file]
    assert parts(folder, {**FILES, file: FILES[file].replace(old, new)}) == before


def test_an_environment_variable_that_the_step_names_is_a_part_of_the_key(folder: Path) -> None:
    """Set, changed and missing are three different keys; variables that it doesn't name don't matter."""
    found = [parts(folder, FILES, variables) for variables in ({}, {"ATTACKED": "1"}, {"ATTACKED": "2"})]
    assert found[0] != found[1] != found[2] != found[0]
    assert parts(folder, FILES, {"ATTACKED": "1", "ANOTHER": "1"}) == found[1]


def test_variables_whose_names_are_unknown_make_all_of_them_count(folder: Path) -> None:
    """The step may read any of them."""
    files = {**FILES, "flow.py": FLOW.replace('os.environ.get("ATTACKED")', "dict(os.environ)")}
    assert parts(folder, files, {"A": "1"}) != parts(folder, files, {"A": "2"})


@pytest.mark.parametrize(
    "line",
    [
        'getattr(helpers, "unre" + "lated")(1)',
        'eval("helpers.unrelated(1)")',
        "vars(helpers)['unrelated'](1)",
        "[f for f in [helpers]][0].unrelated(1)",
        "__import__('other')",
        "helpers.json and __import__('importlib').import_module('other')",
    ],
)
def test_code_that_can_reach_anything_has_all_code_in_its_key(folder: Path, line: str) -> None:
    """A change of what such a line calls by a name that nobody can see is a miss."""
    files = {
        **FILES,
        "flow.py": FLOW.replace("        self.result += math", f"        {line}\n        self.result += math"),
    }
    found = plans(folder, files)["work"]
    assert "all code of the folder" in found.parts
    assert found.notes
    assert found.reads is None
    changed = {**files, "helpers.py": HELPERS.replace("return x - 1", "return x - 2")}
    assert parts(folder, changed) != found.parts


def test_a_module_that_is_imported_when_the_step_runs_counts(folder: Path) -> None:
    """It isn't loaded yet, so that all code counts."""
    files = {
        **FILES,
        "flow.py": FLOW.replace("        self.result += math", "        import other\n        self.result += math"),
    }
    before = parts(folder, files)
    assert parts(folder, {**files, "other.py": "def nothing(): return 2\n"}) != before


def test_a_step_that_calls_another_step_has_its_code_in_the_key(folder: Path) -> None:
    """The name in ``self.next(…)`` is not a call."""
    files = {
        **FILES,
        "flow.py": FLOW.replace("        self.result += math", "        self.end()\n        self.result += math"),
    }
    before = parts(folder, files)
    changed = {**files, "flow.py": files["flow.py"].replace("print(self.result)", "self.result = 0")}
    assert parts(folder, changed) != before


def test_code_that_values_may_bring_has_a_hash_of_its_own(folder: Path) -> None:
    """The code of every function and class has it, that of the steps hasn't."""
    before = plans(folder, FILES)["work"].carried
    assert (
        plans(folder, {**FILES, "flow.py": FLOW.replace("self.first = 1", "self.first = 2")})["work"].carried == before
    )
    assert plans(folder, {**FILES, "other.py": "def nothing(): return 2\n"})["work"].carried != before


def test_the_names_that_the_step_may_read_are_known(folder: Path) -> None:
    """Unless ``self`` goes where nobody looks."""
    reads = plans(folder, FILES)["work"].reads
    assert reads is not None
    assert {"first", "result", "doubled"} <= set(reads)
    assert "alpha" not in reads
    files = {
        **FILES,
        "flow.py": FLOW.replace("        self.result += math", "        print(self)\n        self.result += math"),
    }
    assert plans(folder, files)["work"].reads is None


@pytest.mark.parametrize(
    "read",
    [
        'os.environ["MODEL_" + n]',
        'os.environ[f"MODEL_{n}"]',
        'os.getenv("MODEL_" + n)',
        'os.environ.get("MODEL_%s" % n)',
        'os.environ["MODEL_{}".format(n)]',
        'os.environ.get("MODEL_" + n, "default")',
    ],
)
def test_a_variable_whose_name_is_put_together_counts(folder: Path, read: str) -> None:
    """Its name is not in the code, so all variables are in the key."""
    files = {**FILES, "flow.py": FLOW.replace('os.environ.get("ATTACKED")', f'[n for n in "A" if {read}]')}
    assert parts(folder, files, {"MODEL_A": "1"}) != parts(folder, files, {"MODEL_A": "2"})


@pytest.mark.parametrize(
    "read", ['os.environ["M_A"]', 'os.environ.get("M_A")', 'os.environ.get("M_A", "d")', 'os.getenv("M_A", "d")']
)
def test_other_variables_do_not_count_where_names_are_written(folder: Path, read: str) -> None:
    files = {**FILES, "flow.py": FLOW.replace('os.environ.get("ATTACKED")', read)}
    assert parts(folder, files, {"M_A": "1", "X": "1"}) == parts(folder, files, {"M_A": "1", "X": "2"})
    assert parts(folder, files, {"M_A": "1"}) != parts(folder, files, {"M_A": "2"})


def test_a_file_in_the_home_folder_counts(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    files = {
        **FILES,
        "flow.py": FLOW.replace('os.environ.get("ATTACKED")', 'open(os.path.expanduser("~/p.txt")).read()'),
    }
    found = []
    for text in ("one", "two"):
        (home / "p.txt").write_text(text)
        found.append(parts(folder, files))
    assert found[0] != found[1]


def test_version_and_environment_are_parts_of_the_key(folder: Path) -> None:
    """As are options of ``@environment``."""
    before = parts(folder, FILES)
    decorated = FLOW.replace("    @cache\n", '    @environment(vars={"X": "1"})\n    @cache(version="2")\n')
    after = parts(folder, {**FILES, "flow.py": decorated})
    assert after.keys() - before.keys() == {"version", "@environment"}


def test_options_of_the_decorator_are_kept(folder: Path) -> None:
    decorated = FLOW.replace("    @cache\n", '    @cache(ignore=["first"], max_age="2h")\n')
    found = plans(folder, {**FILES, "flow.py": decorated})["work"]
    assert found.ignore == ("first",)
    assert found.max_age == 7200
    assert CachePlan.from_document(found.to_document()) == found


def test_files_that_change_while_the_flow_is_loaded_make_the_key_unique(folder: Path) -> None:
    """Nobody knows which of the versions was loaded."""
    plans(folder, FILES)
    ahead = time.time() + 3600
    os.utime(folder / "helpers.py", (ahead, ahead))
    first, second = parts(folder, FILES), parts(folder, FILES)
    assert first != second


def test_a_file_that_was_written_changes_the_signature(folder: Path) -> None:
    """Also with the same content, and if its time was set back."""
    before = plans(folder, FILES)["work"].signature
    assert plans(folder, FILES)["work"].signature == before
    status = (folder / "data.csv").stat()
    (folder / "data.csv").write_text("1,2\n")
    os.utime(folder / "data.csv", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert plans(folder, FILES)["work"].signature != before


@pytest.mark.parametrize(
    ("line", "counts"), [("current.step_name", False), ("current.username", True), ("[current]", True)]
)
def test_the_user_counts_where_the_step_may_read_it(folder: Path, line: str, counts: bool) -> None:
    """Otherwise colleagues could not take each other's results."""
    source = FLOW.replace("        self.result += math", f"        {line}\n        self.result += math")
    files = {**FILES, "flow.py": source.replace("import FlowSpec,", "import FlowSpec, current,")}
    ada, bob = (plans(folder, files, user=user)["work"].parts for user in ("ada", "bob"))
    assert (ada != bob) is counts


@pytest.mark.parametrize(
    ("uses", "part"),
    [
        ("self.c.a", ""),
        ("self.p", ""),
        ("self.D[0]", ""),
        ("os.environ['XX']", "@environment"),
    ],
)
def test_a_config_counts_where_its_value_is_used(folder: Path, uses: str, part: str) -> None:
    """As itself, as the default of a parameter, in a constant, and in a decorator."""
    source = (
        "import os\nfrom k8sflow import Config, FlowSpec, Parameter, cache, config_expr, environment, step\n"
        "class F(FlowSpec):\n    c = Config('c', default='c.json')\n    p = Parameter('p', default=c.a)\n"
        "    D = config_expr('[c.a]')\n"
        "    @environment(vars={'XX': config_expr('str(c.a)')})\n    @cache\n    @step\n    def start(self):\n"
        f"        self.x = {uses}\n        self.next(self.end)\n    @step\n    def end(self):\n        pass\n"
    )
    found = []
    for value in (1, 1, 2):
        (folder.parent / "c.json").write_text(f'{{"a": {value}}}')
        flow = source.replace("'c.json'", repr(str(folder.parent / "c.json")))
        if part == "":
            flow = flow.replace("    @environment(vars={'XX': config_expr('str(c.a)')})\n", "")
        found.append(plans(folder, {"flow.py": flow})["start"])
    assert found[0].parts == found[1].parts
    assert not found[0].refused
    name = uses.split(".")[1].partition("[")[0] if part == "" else ""
    assert found[0].may_read(name) if name else found[0].parts[part] != found[2].parts[part]


def test_the_lock_of_a_step_is_a_part_of_its_key(folder: Path) -> None:
    """It stands for what the step imports and this process doesn't have, wherever the step runs."""
    files = {
        **FILES,
        "flow.py": FLOW.replace("        self.result += math", "        import shade\n        self.result += math"),
    }
    locks = [Lock(("shade",), "3.12", "linux", f"# {version}\n") for version in (1, 2)]
    without = plans(folder, files)["work"]
    assert without.refused
    found = [plans(folder, files, environments={"work": lock})["work"] for lock in locks]
    assert not found[0].refused
    assert "all code of the folder" not in found[0].parts
    assert found[0].is_locked
    assert not without.is_locked
    assert {name for name in found[0].parts if found[0].parts[name] != found[1].parts[name]} == {PACKAGES}
    pods = {"pods": {"work": pod_options(image="python:3.12")}}
    in_pods = [plans(folder, files, environments={"work": lock}, **pods)["work"].parts for lock in locks]
    assert {name for name in in_pods[0] if in_pods[0][name] != in_pods[1][name]} == {PACKAGES}


def test_a_locked_package_counts_and_not_the_version_of_this_process(folder: Path) -> None:
    """The step doesn't see that one."""
    files = {
        **FILES,
        "flow.py": FLOW.replace("        self.result += math", "        import click\n        self.result += math"),
    }
    lock = Lock(("click",), "3.12", "linux", '[[packages]]\nname = "click"\nversion = "8.1.8"\n')
    assert "package click" in plans(folder, files)["work"].parts
    assert "package click" not in plans(folder, files, environments={"work": lock})["work"].parts


def test_a_module_of_the_folder_is_none_of_the_locked_ones(folder: Path) -> None:
    """All code counts, as without a lock: the folder comes first."""
    files = {
        **FILES,
        "flow.py": FLOW.replace("        self.result += math", "        import other\n        self.result += math"),
    }
    lock = Lock(("other",), "3.12", "linux", '[[packages]]\nname = "other"\nversion = "1"\n')
    assert "all code of the folder" in plans(folder, files, environments={"work": lock})["work"].parts
