# ruff: noqa: E501  flows in one string each
"""Tasks see a flow's file as a new interpreter would: they share nothing of the module level."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from k8sflow.executors.fork_server import snapshot
from tests.flows.imports import found
from tests.support import environment, latest, run_flow, running, wait_for, write_flow


def test_open_files_have_a_position_of_their_own(tmp_path: Path) -> None:
    """Examples are a text file, a ZIP archive, and a file that was read in part before."""
    (tmp_path / "rows.csv").write_text("row\n" * 50_000)
    top = (
        "import zipfile, os\n"
        "if not os.path.exists('parts.zip'):\n    with zipfile.ZipFile('parts.zip', 'w') as z: z.writestr('a', bytes(range(256)) * 4000)\n"
        "ROWS = open('rows.csv'); ROWS.readline(); PARTS = zipfile.ZipFile('parts.zip')"
    )
    body = "self.got = (sum(1 for _ in ROWS), len(PARTS.read('a')))"
    assert found(tmp_path, top, body) == [(49_999, 1_024_000)] * 4


class _Counting(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.path.encode() * 200
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Don't log."""


def test_connections_are_not_shared_by_tasks(tmp_path: Path) -> None:
    """Every task gets its own answers from a connection that is kept alive from the module level."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    top = (
        f"import http.client\nC = http.client.HTTPConnection('127.0.0.1', {server.server_port})\n"
        "def get(path):\n    C.request('GET', path)\n    return C.getresponse().read()\nget('/first')"
    )
    body = "self.got = all(get(f'/{self.input}-{n}') == f'/{self.input}-{n}'.encode() * 200 for n in range(50))"
    try:
        assert found(tmp_path, top, body) == [True] * 4
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("top", "body", "distinct"),
    [
        ("import random; random.seed(42)", "self.got = random.random()", 1),
        ("import random", "self.got = random.random()", 4),
        ("import random; R = random.Random()", "self.got = R.random()", 4),
        ("import numpy as np; np.random.seed(42)", "self.got = float(np.random.rand())", 1),
        ("import numpy as np", "self.got = float(np.random.rand())", 4),
        ("import numpy as np; R = np.random.default_rng()", "self.got = float(R.random())", 4),
        ("import numpy as np; R = np.random.default_rng(5)", "self.got = float(R.random())", 1),
        ("import uuid; U = uuid.uuid4()", "self.got = str(U)", 4),
        ("import os; PID = os.getpid()", "self.got = PID == os.getpid() or PID", 1),
    ],
)
def test_generators_are_seeded_as_in_a_new_interpreter(tmp_path: Path, top: str, body: str, distinct: int) -> None:
    """The author's seeds are the same in each task, and all other generators differ."""
    assert len(set(found(tmp_path, top, body))) == distinct


def test_temporary_folders_live_as_long_as_their_task(tmp_path: Path) -> None:
    """Each task has its own, and nothing of it remains."""
    (tmp_path / "tmp").mkdir()
    top = "import tempfile, pathlib; T = tempfile.TemporaryDirectory()"
    body = "pathlib.Path(T.name, 'x').write_text('x'); self.got = T.name"
    assert (
        len(set(found(tmp_path, top, body, end="assert pathlib.Path(T.name).is_dir()", TMPDIR=str(tmp_path / "tmp"))))
        == 4
    )
    assert not list((tmp_path / "tmp").iterdir())


def test_exit_hooks_run_once_in_each_process_that_registered_them(tmp_path: Path) -> None:
    """They run in the six tasks and in the command itself, and in no other process."""
    top = "import atexit, os; atexit.register(lambda: open('hooks', 'a').write(f'{os.getpid()}\\n'))"
    found(tmp_path, top, "self.got = os.getpid()")
    hooks = (tmp_path / "hooks").read_text().split()
    assert len(hooks) == len(set(hooks)) == 8


def test_numpys_generators_of_a_library_are_seeded_for_each_task(tmp_path: Path, library: Path) -> None:
    """Generators that the library has seeded itself are excepted, even if another one was created from them."""
    (library / "draws.py").write_text(
        "import numpy as np\nOLD = np.random.RandomState()\nNEW = np.random.default_rng()\n"
        "OTHER = np.random.Generator(np.random.Philox())\nFIXED = np.random.default_rng(7)\nMT = np.random.RandomState(7)\n"
    )
    body = (
        "self.got = (draws.OLD.random_sample(), draws.NEW.random(), draws.OTHER.random(), draws.FIXED.random(), "
        "draws.MT.random_sample(), np.random.rand())"
    )
    columns = zip(*found(tmp_path, "import numpy as np, draws", body, PYTHONPATH=str(library)), strict=True)
    assert [len(set(map(float, column))) for column in columns] == [4, 4, 4, 1, 1, 4]


def test_a_log_handler_is_flushed_when_its_task_ends(tmp_path: Path) -> None:
    """The exit hook of a library that the fork server has imported, logging, does it."""
    top = (
        "import logging, logging.handlers\n"
        "H = logging.handlers.MemoryHandler(1000, target=logging.FileHandler('log'))\n"
        "logging.getLogger('x').addHandler(H)"
    )
    found(tmp_path, top, "logging.getLogger('x').warning('from %s', self.input); self.got = 1")
    assert sorted((tmp_path / "log").read_text().splitlines()) == [f"from {n}" for n in range(4)]


def test_pools_of_threads_at_module_level_work_and_end(tmp_path: Path) -> None:
    """A pool that has run before has threads in each task, which don't delay its end."""
    top = "from concurrent.futures import ThreadPoolExecutor\nPOOL = ThreadPoolExecutor(2)\nassert list(POOL.map(abs, [-1, -2])) == [1, 2]"
    assert found(tmp_path, top, "self.got = sum(POOL.map(abs, [-3, self.input]))") == [3, 4, 5, 6]


@pytest.mark.slow
def test_native_threads_of_the_module_level_run_in_each_task(tmp_path: Path) -> None:
    """Those of polars and of OpenMP, which have worked in the fork server before, don't hang."""
    top = (
        "import polars as pl\nfrom sklearn.ensemble import HistGradientBoostingRegressor\nfrom sklearn.datasets import make_regression\n"
        "X, y = make_regression(300, 4, random_state=0)\nBASE = HistGradientBoostingRegressor(max_iter=3).fit(X, y)\n"
        "LOOKUP = pl.DataFrame({'k': [1, 2, 1], 'v': [1, 2, 3]}).group_by('k').agg(pl.col('v').sum())"
    )
    body = (
        "again = HistGradientBoostingRegressor(max_iter=3).fit(X, y); assert (again.predict(X) == BASE.predict(X)).all(); "
        "self.got = LOOKUP.join(pl.DataFrame({'k': [1]}), on='k')['v'].to_list()"
    )
    assert found(tmp_path, top, body) == [[4]] * 4


def test_environment_is_set_when_the_flow_is_imported(tmp_path: Path, library: Path) -> None:
    """The flow's file and libraries see it; other steps don't."""
    (library / "reads.py").write_text("import os\nAT = os.environ.get('WORD')\n")
    source = """
import os, reads
from k8sflow import environment
AT = os.environ.get('WORD')
class F(FlowSpec):
    @step
    def start(self):
        self.a = (AT, reads.AT)
        self.next(self.middle)
    @environment(vars={"WORD": "4"})
    @step
    def middle(self):
        self.b = (AT, reads.AT)
        self.next(self.end)
    @step
    def end(self):
        self.c = (AT, reads.AT)
"""
    done = run_flow(write_flow(tmp_path, source), PYTHONPATH=str(library))
    assert done.returncode == 0, done.stdout + done.stderr
    data = latest(tmp_path).data
    assert data is not None
    assert (data.a, data.b, data.c) == ((None, None), ("4", "4"), (None, None))


def test_a_runs_code_is_that_of_its_start(tmp_path: Path) -> None:
    """The file and the modules beside it may be edited or deleted meanwhile; tracebacks show the original code."""
    (tmp_path / "beside.py").write_text("VALUE = 'old'\n")
    (tmp_path / "later.py").write_text("VALUE = 'old'\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "below.py").write_text("VALUE = 'old'\n")
    source = """
import os, sys, time
from tests.waiting import wait_for
sys.path.insert(0, "mine")
import below, beside
class F(FlowSpec):
    @step
    def start(self):
        open("started", "w").close()
        wait_for(lambda: os.path.exists("edited"))
        self.next(self.end)
    @step
    def end(self):
        import later
        print("found", below.VALUE, beside.VALUE, later.VALUE)
        raise ValueError("of the old code")  # this line
"""
    file = write_flow(tmp_path, source)
    with running(file) as process:
        wait_for((tmp_path / "started").exists)
        file.write_text("raise SystemExit('new code')\n" * 30)
        (tmp_path / "beside.py").write_text("raise ImportError('new code')\n")
        (tmp_path / "mine" / "below.py").write_text("raise ImportError('new code')\n")
        (tmp_path / "later.py").unlink()
        (tmp_path / "edited").touch()
        assert process.stdout is not None
        output = process.stdout.read().decode()
    assert "found old old old" in output
    assert 'raise ValueError("of the old code")  # this line' in output
    assert "new code" not in output


def test_modules_come_from_pythons_cache_while_they_are_unchanged(tmp_path: Path) -> None:
    """Otherwise each task would compile a project of hundreds of modules."""
    file = tmp_path / "beside.py"
    file.write_text("VALUE = 'source'\n")
    (tmp_path / "cached.py").write_text("VALUE = 'cached'\n")
    py_compile.compile(str(tmp_path / "cached.py"), importlib.util.cache_from_source(str(file)))
    shutil.copystat(tmp_path / "cached.py", file)
    finder = snapshot.SnapshotFinder({str(file): file.read_bytes()})

    def value() -> str:
        spec = finder.find_spec("beside", [str(tmp_path)])
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return str(module.VALUE)

    assert value() == "cached"
    file.write_text("VALUE = 'edited'\n")
    assert value() == "source"


def test_a_runs_code_is_that_of_its_start_in_an_editable_install(tmp_path: Path) -> None:
    """setuptools installs packages outside of a folder src with a finder of its own; modules may be loaded late."""
    package = tmp_path / "elsewhere" / "mine"
    package.mkdir(parents=True)
    files = [package / "__init__.py", package / "late.py"]
    for each in files:
        each.write_text("VALUE = 'old'\n")
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(
        "import importlib.util, sys\nclass Finder:\n    @staticmethod\n    def find_spec(name, path=None, target=None):\n"
        f"        if name == 'mine': return importlib.util.spec_from_file_location(name, {str(files[0])!r})\n"
        "sys.meta_path.append(Finder)\n"
    )
    source = f"""
import mine
class F(FlowSpec):
    @step
    def start(self):
        for file in {list(map(str, files))!r}:
            open(file, "w").write("VALUE = 'new'")
        self.next(self.end)
    @step
    def end(self):
        import mine.late
        print("found", mine.VALUE, mine.late.VALUE)
"""
    paths = f"{environment()['PYTHONPATH']}{os.pathsep}{tmp_path / 'start'}"
    done = run_flow(write_flow(tmp_path / "flow", source), PYTHONPATH=paths)
    assert "found old old" in done.stdout, done.stdout + done.stderr
