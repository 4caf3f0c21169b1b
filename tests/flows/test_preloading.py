# ruff: noqa: E501  flows in one string each
"""Libraries that the fork server imports ahead of a flow: tasks find them as after an import of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.flows.imports import FLOW, found
from tests.support import environment, flow_command, latest, run_flow, running, wait_for, wait_for_death, write_flow


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
