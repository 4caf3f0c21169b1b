"""Ways in which a cached result could be wrong although the code of the step itself is the same."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import flow_command, write_flow

HEAD = """
import os, sys
import helpers
from k8sflow import Config, FlowMutator, FlowSpec, IncludeFile, Parameter, cache, catch, current, step
from k8sflow import user_step_decorator
"""
END = """
    @step
    def end(self):
        print("RESULT", self.result)
"""

# The flow, the file to change and how, and the results before and after.
CHANGES = {
    "the step of a base": (
        """
class B(FlowSpec):
    @step
    def start(self):
        self.result = 11
class F(B):
    @cache
    @step
    def start(self):
        super().start()
        self.next(self.end)
""",
        ("flow.py", "11", "22"),
    ),
    "the step of a base by its class": (
        """
class B(FlowSpec):
    @step
    def start(self):
        self.result = 11
class F(B):
    @cache
    @step
    def start(self):
        B.start(self)
        self.next(self.end)
""",
        ("flow.py", "11", "22"),
    ),
    "a constant by the class": (
        """
class F(FlowSpec):
    RATE = 11
    @cache
    @step
    def start(self):
        self.result = F.RATE
        self.next(self.end)
""",
        ("flow.py", "11", "22"),
    ),
    "a constant of a base that a class hides": (
        """
class B(FlowSpec):
    RATE = 11
class F(B):
    RATE = 3
    @cache
    @step
    def start(self):
        self.result = super().RATE
        self.next(self.end)
""",
        ("flow.py", "11", "22"),
    ),
    "an artifact that a descriptor reads": (
        """
class D:
    def __get__(self, flow, kind=None):
        return flow.x if flow is not None else self
class F(FlowSpec):
    d = D()
    @step
    def start(self):
        self.x = 11
        self.next(self.work)
    @cache
    @step
    def work(self):
        self.result = self.d
        self.next(self.end)
""",
        ("flow.py", "11", "22"),
    ),
    "a module that a lambda in an artifact uses": (
        """
class F(FlowSpec):
    @step
    def start(self):
        self.f = lambda: helpers.RATE
        self.next(self.work)
    @cache
    @step
    def work(self):
        self.result = self.f()
        self.next(self.end)
""",
        ("helpers.py", "11", "22"),
    ),
    "what @catch of an earlier step has set": (
        """
class F(FlowSpec):
    @catch(var='failed')
    @step
    def start(self):
        x = 11
        if x == 22:
            raise ValueError
        self.next(self.work)
    @cache
    @catch(var='failed')
    @step
    def work(self):
        self.next(self.last)
    @step
    def last(self):
        self.result = 11 if self.failed is None else 'wrong'
        self.next(self.end)
""",
        ("flow.py", "x = 11", "x = 22"),
    ),
    "one list at two positions of an item": (
        """
class F(FlowSpec):
    @step
    def start(self):
        a = [1]
        self.items = [[a, [1]]]
        self.next(self.work, foreach='items')
    @cache
    @step
    def work(self):
        self.input[0].append(2)
        self.r = 11 * len(self.input[1])
        self.next(self.join)
    @step
    def join(self, inputs):
        self.result = inputs[0].r
        self.next(self.end)
""",
        ("flow.py", "[[a, [1]]]", "[[a, a]]"),
    ),
    "an artifact that a join leaves out of its key and passes on": (
        """
class F(FlowSpec):
    @step
    def start(self):
        self.result = 11
        self.next(self.a, self.b)
    @step
    def a(self):
        self.next(self.join)
    @step
    def b(self):
        self.next(self.join)
    @cache(ignore='result')
    @step
    def join(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)
""",
        ("flow.py", "11", "22"),
    ),
    "a file of which the code has the name": (
        """
class F(FlowSpec):
    @cache
    @step
    def start(self):
        self.result = open('@FOLDER@/data').read()
        self.next(self.end)
""",
        ("../data", "11", "22"),
    ),
    "a hidden file of the folder": (
        """
class F(FlowSpec):
    @cache
    @step
    def start(self):
        self.result = open(os.path.join(os.path.dirname(__file__), '.data')).read()
        self.next(self.end)
""",
        (".data", "11", "22"),
    ),
    "a class in a pickle": (
        """
import pickle
class F(FlowSpec):
    @cache
    @step
    def start(self):
        self.result = pickle.loads(b'chelpers\\nM\\n.')().f()
        self.next(self.end)
""",
        ("helpers.py", "return 11", "return 22"),
    ),
    "a list that is another one": (
        """
class F(FlowSpec):
    @cache
    @step
    def start(self):
        helpers.G[0].append(1)
        self.result = 11 * len(helpers.G[1])
        self.next(self.end)
""",
        ("helpers.py", "[[1], [1]]", "[[1]] * 2"),
    ),
    "1 that becomes True": (
        """
class F(FlowSpec):
    @step
    def start(self):
        self.x = 1
        self.next(self.work)
    @cache
    @step
    def work(self):
        self.result = 22 if self.x is True else 11
        self.next(self.end)
""",
        ("flow.py", "self.x = 1\n", "self.x = True\n"),
    ),
    "zero that becomes negative": (
        """
import math
class F(FlowSpec):
    @step
    def start(self):
        self.items = [0.0]
        self.next(self.work, foreach='items')
    @cache
    @step
    def work(self):
        self.r = 22 if math.copysign(1, self.input) < 0 else 11
        self.next(self.join)
    @step
    def join(self, inputs):
        self.result = inputs[0].r
        self.next(self.end)
""",
        ("flow.py", "[0.0]", "[-0.0]"),
    ),
    "the order of the keys of a dictionary": (
        """
class F(FlowSpec):
    @step
    def start(self):
        self.d = {11: 'a', 22: 'b'}
        self.next(self.work)
    @cache
    @step
    def work(self):
        self.result = next(iter(self.d))
        self.next(self.end)
""",
        ("flow.py", "{11: 'a', 22: 'b'}", "{22: 'b', 11: 'a'}"),
    ),
    "the file of a config": (
        """
class F(FlowSpec):
    c = Config("c", default="@FOLDER@/data", parser=lambda text: {"a": int(text)})
    @cache
    @step
    def start(self):
        self.result = self.c.a
        self.next(self.end)
""",
        ("../data", "11", "22"),
    ),
    "the content of an IncludeFile": (
        """
class F(FlowSpec):
    c = IncludeFile("c", default="@FOLDER@/data")
    @cache
    @step
    def start(self):
        self.result = self.c
        self.next(self.end)
""",
        ("../data", "11", "22"),
    ),
    "a decorator that a mutator adds": (
        """
@user_step_decorator
def given(name, flow, inputs=None, attributes=None):
    yield
    flow.result = 11
class everywhere(FlowMutator):
    def mutate(self, mutable_flow):
        for name, each in mutable_flow.steps:
            if name == "start":
                each.add_decorator(given)
@everywhere
class F(FlowSpec):
    @cache
    @step
    def start(self):
        self.result = 0
        self.next(self.end)
""",
        ("flow.py", "= 11", "= 22"),
    ),
    "a step that comes back to itself": (
        """
class F(FlowSpec):
    @cache
    @step
    def start(self):
        self.result = 0
        self.next(self.again)
    @cache
    @step
    def again(self):
        self.result += 1
        self.more = self.result < 11
        self.next({True: self.again, False: self.end}, condition="more")
""",
        ("flow.py", "< 11", "< 22"),
    ),
    "the form of a letter": (
        """
class F(FlowSpec):
    @step
    def start(self):
        self.x = '\\u00e9'
        self.next(self.work)
    @cache
    @step
    def work(self):
        self.result = 11 * len(self.x)
        self.next(self.end)
""",
        ("flow.py", "'\\u00e9'", "'e\\u0301'"),
    ),
}
HELPERS = "RATE = 11\nG = [[1], [1]]\nclass M:\n    def f(self): return 11\n"


def _run(file: Path, *arguments: str, **variables: str) -> str:
    done = flow_command(file, "run", *arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _result(output: str) -> str:
    return next(line.rpartition("RESULT")[2] for line in output.splitlines() if "RESULT" in line)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").write_text("11")
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / ".data").write_text("11")
    (tmp_path / "flow" / "helpers.py").write_text(HELPERS)
    return tmp_path / "flow"


@pytest.mark.parametrize("name", CHANGES)
def test_no_result_is_stale(folder: Path, name: str) -> None:
    """After the change, a run shows what the same run without the cache shows."""
    source, (changed, old, new) = CHANGES[name]
    file = write_flow(folder, source.replace("@FOLDER@", str(folder.parent)) + END, head=HEAD)
    assert "RESULT 11" in _run(file)
    assert "RESULT 11" in _run(file)
    path = folder / changed
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    cached, expected = _run(file), _run(file, "--no-cache")
    assert _result(cached) == _result(expected)


VARYING = {
    "current.run_id": "current.run_id",
    "current.pathspec": "current.pathspec",
    "current on its way": "str(current)",
    "the time": "__import__('datetime').datetime.now().isoformat()",
    "a module from elsewhere": "helpers.load()",
    "results of earlier calls": "helpers.cached()",
}


@pytest.mark.parametrize("name", VARYING)
def test_what_each_run_has_of_its_own_is_not_taken(folder: Path, name: str) -> None:
    """The output of the step says why."""
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "later.py").write_text("X = 1\n")
    (folder / "helpers.py").write_text(
        "import datetime, functools, sys\n"
        f"def load():\n    sys.path.append({str(folder.parent / 'elsewhere')!r})\n"
        "    import later\n    return later.X\n"
        "@functools.cache\ndef cached():\n    return 1\ncached()\n"
    )
    source = (
        "class F(FlowSpec):\n    @cache\n    @step\n    def start(self):\n        import datetime\n"
        f"        self.result = {VARYING[name]}\n        self.next(self.end)\n"
    )
    file = write_flow(folder, source + END, head=HEAD)
    for _ in range(2):
        output = _run(file)
        assert "@cache doesn't keep this result: " in output
        assert "cached from" not in output


@pytest.mark.parametrize("way", ["from k8sflow import current", "import k8sflow"])
def test_the_user_counts_however_the_step_gets_at_it(folder: Path, way: str) -> None:
    name = "current" if "from" in way else "k8sflow.current"
    source = (
        f"class F(FlowSpec):\n    @cache\n    @step\n    def start(self):\n        {way}\n"
        f"        self.result = {name}.username\n        self.next(self.end)\n"
    )
    file = write_flow(folder, source + END, head=HEAD)
    for user in ("ada", "bob"):
        assert f"RESULT {user}" in _run(file, USER=user, K8SFLOW_USER=user, METAFLOW_USER=user)


def test_an_item_that_has_itself_in_it(folder: Path) -> None:
    source = (
        "class F(FlowSpec):\n    @step\n    def start(self):\n        a = [1]\n        a.append(a)\n"
        "        self.items = [a]\n"
        "        self.next(self.work, foreach='items')\n    @cache\n    @step\n    def work(self):\n"
        "        self.r = len(self.input)\n        self.next(self.join)\n"
        "    @step\n    def join(self, inputs):\n        self.result = inputs[0].r\n        self.next(self.end)\n"
    )
    file = write_flow(folder, source + END, head=HEAD)
    assert "RESULT 2" in _run(file)
    assert "1 cached" in _run(file)


def test_results_of_a_store_that_only_others_can_write_are_not_harmful(folder: Path) -> None:
    """A damaged entry, an entry of a newer version, and a folder in place of one are misses."""
    source = (
        "class F(FlowSpec):\n    @cache\n    @step\n    def start(self):\n        self.result = 11\n"
        "        self.next(self.end)\n"
    )
    file = write_flow(folder, source + END, head=HEAD)
    for damage in ("", "{", '{"format": 99}', '{"format": 1}', "null", "folder"):
        _run(file, "--no-cache")
        for entry in (folder / ".k8sflow").glob("F/cache/start/*/*/0"):
            if entry.is_file():
                entry.unlink()
            else:
                shutil.rmtree(entry)
            if damage == "folder":
                entry.mkdir()
            else:
                entry.write_text(damage)
        output = _run(file)
        assert "RESULT 11" in output
        assert "cached from" not in output


PLAIN = (
    "class F(FlowSpec):\n    @cache\n    @step\n    def start(self):\n        self.result = 11\n"
    "        self.next(self.end)\n"
)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_task_that_is_killed_while_it_keeps_its_result(folder: Path, moment: str) -> None:
    """It has a commit, so the run succeeds; a later run takes the result, or runs the step if it was not kept yet."""
    file = write_flow(folder, PLAIN + END, head=HEAD)
    patches = folder.parent / "patches"
    patches.mkdir()
    # Loaded by each interpreter of each run, since it is a part of the key; it kills while the file is there.
    (patches / "sitecustomize.py").write_text(
        "import os, signal, k8sflow.storage.folder as folder\n"
        "put, die = folder.FolderStore.put, lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        "def patched(self, key, *arguments):\n"
        "    file = os.path.join(os.path.dirname(__file__), 'kill')\n"
        "    if '/cache/' not in key or not os.path.exists(file):\n        return put(self, key, *arguments)\n"
        + ("    die()\n" if moment == "before" else "    put(self, key, *arguments)\n    die()\n")
        + "folder.FolderStore.put = patched\n"
    )
    (patches / "kill").touch()
    assert "RESULT 11" in _run(file, PYTHONPATH=str(patches))
    (patches / "kill").unlink()
    for is_cached in (moment == "after", True):
        output = _run(file, PYTHONPATH=str(patches))
        assert "RESULT 11" in output
        assert ("[start/0] cached from" in output) is is_cached


def test_two_runs_at_once_with_one_key(folder: Path) -> None:
    """Each has its own result, and those that follow take one of them."""
    file = write_flow(folder, PLAIN.replace("= 11", "= os.getppid() * 0 + 11") + END, head=HEAD)
    with ThreadPoolExecutor(3) as pool:
        for output in pool.map(lambda _: _run(file), range(3)):
            assert "RESULT 11" in output
    assert "[start/0] cached from" in _run(file)


def test_a_store_that_takes_no_results(folder: Path) -> None:
    """As where the entries are those of another user: the run succeeds, and the output of the step says why."""
    file = write_flow(folder, PLAIN + END, head=HEAD)
    (folder / ".k8sflow" / "F").mkdir(parents=True)
    (folder / ".k8sflow" / "F" / "cache").write_text("")
    for _ in range(2):
        output = _run(file)
        assert "RESULT 11" in output
        assert "@cache doesn't keep this result: " in output
