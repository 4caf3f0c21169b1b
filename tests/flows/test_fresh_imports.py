# ruff: noqa: E501  flows in one string each
"""Tasks see a flow's file as a new interpreter would: they share nothing of the module level."""

from __future__ import annotations

import importlib.util
import json
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from k8sflow.executors.fork_server import snapshot
from tests.support import environment, flow_command, latest, run_flow, running, wait_for, wait_for_death, write_flow

FLOW = """
class F(FlowSpec):
    @step
    def start(self):
        self.items = [0, 1, 2, 3]
        self.next(self.work, foreach="items")
    @step
    def work(self):
        {body}
        self.next(self.join)
    @step
    def join(self, inputs):
        self.all = [i.got for i in inputs]
        self.next(self.end)
    @step
    def end(self):
        {end}
"""


def found(folder: Path, top: str, body: str, *, end: str = "pass", **variables: str) -> list[object]:
    """Return the values that the four tasks of a foreach have set as ``self.got``."""
    done = run_flow(write_flow(folder, f"{top}\n{FLOW.format(body=body, end=end)}"), **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return list(latest(folder).data.all)  # type: ignore[union-attr]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Create a folder that counts as installed packages, so that its modules can be imported."""
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True)
    return folder


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


def test_a_librarys_import_sees_the_environment_that_the_flow_has_set(tmp_path: Path, library: Path) -> None:
    """Only changes before its import statement are visible."""
    (library / "early.py").write_text("import os\nAT = (os.environ.get('A'), os.environ.get('B'))\n")
    (library / "middle.py").write_text("import os\nAT = (os.environ.get('A'), os.environ.get('B'))\n")
    (library / "late.py").write_text("import os\nAT = (os.environ.get('A'), os.environ.get('B'))\n")
    top = (
        "import os, early\nos.environ['A'] = '1'\nimport middle\nos.environ['B'] = '1'\nos.environ['A'] = '2'\nimport late\n"
        "NOW = (os.environ.get('A'), os.environ.get('B'))"
    )
    body = "self.got = [early.AT, middle.AT, late.AT, NOW]"
    expected = [(None, None), ("1", None), ("2", "1"), ("2", "1")]
    assert found(tmp_path, top, body, PYTHONPATH=str(library)) == [expected] * 4


def test_a_change_of_the_environment_by_the_flow_applies_once(tmp_path: Path) -> None:
    """A task starts with the environment of the command."""
    top = "import os; os.environ['WORDS'] = os.environ.get('WORDS', '') + 'x'; os.environ.pop('REMOVED', None)"
    assert (
        found(tmp_path, top, "self.got = (os.environ['WORDS'], 'REMOVED' in os.environ)", WORDS="a", REMOVED="1")
        == [("ax", False)] * 4
    )


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", "it starts threads"),
        ("F = open(__file__); F.readline()", "it opens a file"),
        ("import socket; S = socket.socketpair()", "it opens a connection"),
        ("import subprocess; P = subprocess.Popen(['sleep', '60'], stdout=-3, stderr=-3)", "it starts a process"),
        ("import tempfile; T = tempfile.TemporaryDirectory()", "it makes temporary files"),
        (
            "import atexit, shutil, tempfile; T = tempfile.mkdtemp(); atexit.register(shutil.rmtree, T)",
            "it makes temporary files",
        ),
        ("import signal; signal.signal(signal.SIGUSR1, lambda *_: None)", "it handles signals"),
        ("import uuid; ID = uuid.uuid4()", "it makes a unique id"),
        ("from uuid import uuid4; ID = uuid4()", "it makes a unique id"),
        ("import multiprocessing; L = multiprocessing.Lock()", "it makes memory that processes share"),
        ("import yours", "it imports yours, which is not an installed library"),
    ],
)
def test_a_library_that_a_fork_cannot_use_is_not_preloaded(
    tmp_path: Path, library: Path, source: str, why: str
) -> None:
    """Each task imports it and its importers; this is reported once. (Using the process id excludes them too.)"""
    (library / "heavy.py").write_text(f"import os\n{source}\nPID = -os.getpid()\n")
    (library / "drawing_in.py").write_text("import os, heavy\nPID = -os.getpid()\n")
    (library / "looking.py").write_text(
        "import os, importlib.util\nPID = -os.getpid(), importlib.util.find_spec('heavy')\n"
    )
    (library / "light.py").write_text("import os\nPID = -os.getpid()\n")
    (tmp_path / "yours.py").write_text("")
    top = "import os, heavy, drawing_in, looking, light"
    body = "self.got = tuple(found == -os.getpid() for found in (heavy.PID, drawing_in.PID, looking.PID[0], light.PID))"
    file = write_flow(tmp_path, f"{top}\n{FLOW.format(body=body, end='pass')}")
    done = run_flow(file, PYTHONPATH=str(library))
    assert done.returncode == 0, done.stdout + done.stderr
    assert latest(tmp_path).data.all == [(True, True, False, False)] * 4  # type: ignore[union-attr]
    assert done.stdout.count(f"each task imports heavy by itself: {why}") == 1
    shown = flow_command(file, "show", "--json", PYTHONPATH=str(library))
    assert why in json.loads(shown.stdout)["imported_by_each_task"]["heavy"]


def test_generators_of_libraries_are_seeded_as_in_a_new_interpreter(tmp_path: Path, library: Path) -> None:
    """Those of other classes are seeded too; one that the library has seeded keeps its state."""
    (library / "names.py").write_text(
        "import random\nclass Mine(random.Random): pass\nA, B, C = random.Random(), Mine(), random.Random(4)\n"
    )
    body = "self.got = (names.A.random(), names.B.random(), names.C.random())"
    all_ = found(tmp_path, "import names", body, PYTHONPATH=str(library))
    assert [len(set(values)) for values in zip(*all_, strict=True)] == [4, 4, 1]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "top",
    [
        "if sys.platform == 'other': os.environ['WORD'] = 'x'",
        "try:\n    import json\nexcept ImportError:\n    os.environ['WORD'] = 'x'",
    ],
)
def test_variables_that_may_be_set_are_not_guessed(tmp_path: Path, library: Path, top: str) -> None:
    (library / "reads.py").write_text("import os\nAT = os.environ.get('WORD')\n")
    top = f"import os, sys\n{top}\nimport reads"
    assert found(tmp_path, top, "self.got = reads.AT", PYTHONPATH=str(library)) == [None] * 4


def test_libraries_are_imported_in_the_folder_that_the_run_was_started_in(tmp_path: Path, library: Path) -> None:
    """The flow may change it; a library may have settings there, and PYTHONPATH may name one."""
    (library / "configured.py").write_text("import os\nFOUND = os.path.exists('settings')\n")
    (tmp_path / "settings").write_text("")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "beside.py").write_text("")
    top = "import os, configured, beside\nos.makedirs('other', exist_ok=True); os.chdir('other')"
    source = f"{top}\n{FLOW.format(body='self.got = configured.FOUND', end='print(self.all)')}"
    done = run_flow(write_flow(tmp_path, source), PYTHONPATH=f"{os.environ.get('PYTHONPATH', '')}:{library}:mine")
    assert "[True, True, True, True]" in done.stdout, done.stdout + done.stderr


def test_libraries_find_the_scripts_name(tmp_path: Path, library: Path) -> None:
    (library / "reads.py").write_text("import sys\nSCRIPT = sys.argv[0]\n")
    assert found(tmp_path, "import reads", "self.got = reads.SCRIPT", PYTHONPATH=str(library))[0].endswith("flow.py")  # type: ignore[attr-defined]


@pytest.mark.parametrize("change", ["add = lambda word=register.WORDS.append('x'): word", "register.ADD << 'x'"])
def test_libraries_see_what_the_flow_has_passed_to_others(tmp_path: Path, library: Path, change: str) -> None:
    (library / "register.py").write_text(
        "WORDS = []\nclass Add:\n    def __lshift__(self, word): WORDS.append(word)\nADD = Add()\n"
    )
    (library / "reads.py").write_text("import register\nFOUND = list(register.WORDS)\n")
    top = f"import register\n{change}\nimport reads"
    assert found(tmp_path, top, "self.got = reads.FOUND", PYTHONPATH=str(library)) == [["x"]] * 4


def test_a_path_that_is_not_a_text_is_skipped(tmp_path: Path) -> None:
    """Python skips it too."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "beside.py").write_text("VALUE = 3")
    top = "import sys, pathlib\nsys.path.insert(0, pathlib.Path('other')); sys.path.insert(0, 'mine')\nimport beside"
    assert found(tmp_path, top, "self.got = beside.VALUE") == [3] * 4


def test_tasks_have_the_limit_of_open_files_that_the_run_was_started_with(tmp_path: Path) -> None:
    """The command itself needs more for many workers."""
    source = FLOW.format(body="import resource; self.got = resource.getrlimit(resource.RLIMIT_NOFILE)[0]", end="pass")
    file = write_flow(tmp_path, source)
    command = ["bash", "-c", f"ulimit -S -n 100; exec {sys.executable} {file} run --max-workers 64"]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True, timeout=120)
    assert latest(tmp_path).data.all == [100] * 4  # type: ignore[union-attr]


def test_sockets_that_a_library_has_changed_to_non_blocking(tmp_path: Path) -> None:
    """gevent and eventlet do this by replacing the socket module's functions."""
    top = """
import os, socket
plain = socket.socketpair
def socketpair(*given):
    ends = plain(*given)
    for end in ends:
        os.set_blocking(end.fileno(), False)
    return ends
socket.socketpair = socketpair
"""
    assert found(tmp_path, top, "self.got = 1") == [1] * 4


def test_a_process_title_written_over_the_environment(tmp_path: Path) -> None:
    """setproctitle does this."""
    top = """
import ctypes, os
with open('/proc/self/stat') as f:
    fields = f.read().rpartition(')')[2].split()
KEPT = dict(os.environ)
if 'run' in __import__('sys').argv:
    start, end = int(fields[47]), int(fields[48])
    for name, value in KEPT.items():
        os.environ[name] = value + ' '
        os.environ[name] = value
    ctypes.memset(start, 0, end - start)
"""
    assert found(tmp_path, top, "self.got = os.environ.get('WORD')", WORD="x") == ["x"] * 4


def test_warnings_that_the_flow_ignores_stay_ignored(tmp_path: Path, library: Path) -> None:
    """A library that enables its own again is imported after that in each task, and so shows them."""
    (library / "loud.py").write_text("import warnings\nwarnings.filterwarnings('always', category=UserWarning)\n")
    top = "import warnings\nwarnings.filterwarnings('ignore')\nimport loud"
    file = write_flow(
        tmp_path, f"{top}\n{FLOW.format(body='warnings.warn(str(self.input)); self.got = 1', end='pass')}"
    )
    done = run_flow(file, PYTHONPATH=str(library))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("UserWarning") == 4


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


def test_an_import_that_takes_long_is_cancelled_at_once(tmp_path: Path, library: Path) -> None:
    """Nothing of it keeps running."""
    (library / "slow.py").write_text(
        "import os, sys, time\n"
        "if sys.orig_argv[1] == '-c':\n    open('server.pid', 'w').write(str(os.getpid()))\n    time.sleep(300)\n"
    )
    file = write_flow(tmp_path, f"import slow\n{FLOW.format(body='self.got = 1', end='pass')}")
    with running(file, PYTHONPATH=str(library)) as process:
        pid = int(wait_for(lambda: (tmp_path / "server.pid").exists() and (tmp_path / "server.pid").read_text()))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert wait_for_death(pid)
    assert latest(tmp_path).run_store.read_run_outcome().outcome == "cancelled"  # type: ignore[union-attr]


def test_a_driver_that_dies_while_libraries_are_imported(tmp_path: Path, library: Path) -> None:
    """Nothing of it keeps running."""
    (library / "slow.py").write_text(
        "import os, sys, time\n"
        "if sys.orig_argv[1] == '-c':\n    open('server.pid', 'w').write(str(os.getpid()))\n    time.sleep(300)\n"
    )
    file = write_flow(tmp_path, f"import slow\n{FLOW.format(body='self.got = 1', end='pass')}")
    with running(file, PYTHONPATH=str(library)) as process:
        pid = int(wait_for(lambda: (tmp_path / "server.pid").exists() and (tmp_path / "server.pid").read_text()))
        process.kill()
        assert wait_for_death(pid)


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


def test_installed_packages_are_told_apart_from_the_users_code() -> None:
    """A package beside the flow is the user's, whatever its name; numpy is not."""
    from k8sflow.executors.fork_server.preload_plan import is_library_file

    assert is_library_file(os.path.join(sysconfig.get_path("purelib"), "numpy", "__init__.py"))
    assert is_library_file(json.__file__)
    assert not is_library_file("/home/ann/project/numpy.py")


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("os._exit(4)", "ended with exit code 4"),
        ("os.closerange(3, 200); import time; time.sleep(300)", "closed its connection"),
    ],
)
def test_a_server_that_dies_while_it_imports_libraries_fails_no_step(
    tmp_path: Path, library: Path, end: str, how: str
) -> None:
    """Each task then imports the libraries by itself, and the run reports why."""
    (library / "deadly.py").write_text(f"import os, sys\nPID = os.getpid()\nif sys.orig_argv[1] == '-c': {end}\n")
    file = write_flow(
        tmp_path, f"import os, deadly\n{FLOW.format(body='self.got = deadly.PID == os.getpid()', end='pass')}"
    )
    done = run_flow(file, PYTHONPATH=str(library))
    assert done.returncode == 0, done.stdout + done.stderr
    assert latest(tmp_path).data.all == [True] * 4  # type: ignore[union-attr]
    reason = f"the process that imports libraries ahead of all tasks {how} while it did so"
    assert done.stdout.count(f"each task imports all libraries by itself: {reason}") == 1
    shown = json.loads(flow_command(file, "show", "--json", PYTHONPATH=str(library)).stdout)
    assert how in shown["imported_by_each_task"]["deadly"]


@pytest.mark.parametrize(
    ("register", "change"),
    [
        ("WORDS = []", "L = register.WORDS; L += ['x']"),
        ("WORDS = []", "from register import WORDS as L\nL += ['x']"),
        (
            "WORDS = []\nclass Base:\n    def __init_subclass__(cls): WORDS.append('x')",
            "class Mine(register.Base): pass",
        ),
        (
            "WORDS = []\nclass Meta(type):\n    def __init__(cls, name, *_):\n        if name == 'Mine': WORDS.append('x')",
            "class Mine(metaclass=register.Meta): pass",
        ),
    ],
)
def test_libraries_find_what_the_flow_has_registered(tmp_path: Path, library: Path, register: str, change: str) -> None:
    """A later library may read it at its import."""
    (library / "register.py").write_text(f"{register}\n")
    (library / "reads.py").write_text("import register\nFOUND = list(register.WORDS)\n")
    top = f"import register\n{change}\nimport reads"
    assert found(tmp_path, top, "self.got = reads.FOUND", PYTHONPATH=str(library)) == [["x"]] * 4


def test_a_process_id_that_a_library_keeps_is_the_tasks(tmp_path: Path, library: Path) -> None:
    """It may be in a variable, an object, or a text, or come from another name; a mere call doesn't prevent preloading."""
    (library / "keeps.py").write_text("from os import getpid\nPID = getpid()\n")
    (library / "in_object.py").write_text("import os\nclass C: pass\nONE = C(); ONE.pid = os.getpid()\n")
    (library / "in_text.py").write_text("import os\nNAME = f'host-{os.getpid()}'\n")
    (library / "asks.py").write_text("import os\nOS = os.getpid() > 0\nSERVER = [os.getpid() + 1]\n")
    top = "import os, keeps, in_object, in_text, asks"
    body = (
        "self.got = [keeps.PID - os.getpid(), in_object.ONE.pid - os.getpid(), in_text.NAME == f'host-{os.getpid()}', "
        "asks.SERVER[0] - 1 == os.getpid()]"
    )
    assert found(tmp_path, top, body, PYTHONPATH=str(library)) == [[0, 0, True, False]] * 4


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
