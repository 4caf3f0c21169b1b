# ruff: noqa: E501  flows and commands in one line each
"""The command line and its mistakes: one clear message, an exit code, and nothing left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import environment, flow_command, latest, run_flow, run_in, running, write_flow

FLOW = '''
class F(FlowSpec):
    """Does little."""
    n = Parameter("n", default=3, help="How many.")
    rate = Parameter("learning-rate", default=0.5)
    name = Parameter("name", type=str)
    fast = Parameter("fast", default=False)
    Upper = Parameter("Upper", default="x")
    @step
    def start(self):
        """Begins."""
        self.got = (self.n, self.rate, self.name, self.fast, self.Upper)
        self.items = range(self.n)
        self.next(self.work, foreach="items")
    @step
    def work(self):
        self.next(self.join)
    @step
    def join(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)
    @step
    def end(self):
        print("n is", self.n)
'''


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    """Write a flow file with parameters of all types."""
    return write_flow(tmp_path, FLOW)


STARTS = {
    "script": ("flow.py", "python flow.py", "class F(FlowSpec):"),
    "folder": ("ein Ordner/日本's.py", 'python "ein Ordner/日本\'s.py"', "class F(FlowSpec):"),
    "module": ("pkg/flow.py", "python -m pkg.flow", "from . import __name__ as pkg\nclass F(FlowSpec):"),
    "package": ("pkg/__main__.py", "python -m pkg", "from . import __name__ as pkg\nclass F(FlowSpec):"),
    "import": ("flow.py", "python main.py", "class F(FlowSpec):"),
    "absolute": ("flow.py", f"{sys.executable} $PWD/flow.py", "class F(FlowSpec):"),
}


@pytest.mark.slow
@pytest.mark.parametrize("start_from", STARTS)
def test_the_commands_that_a_failed_run_names_can_be_pasted(tmp_path: Path, start_from: str) -> None:
    """They work in the same shell, however the flow was started, with the decorators and the project's branch of the run."""
    file, start, head = STARTS[start_from]
    head = head.replace("class F", "from k8sflow import project\n@project(name='p')\nclass F")
    source = f"""
{head}
    @step
    def start(self):
        import os, pathlib
        from k8sflow import current
        print("says", os.environ["SAID"], current.branch_name, current.is_production)
        assert pathlib.Path("fixed").exists(), "not yet"
        self.next(self.end)
    @step
    def end(self): pass
"""
    write_flow(tmp_path, source, file)
    (tmp_path / "pkg").mkdir(exist_ok=True)
    (tmp_path / "pkg/__init__.py").touch()
    (tmp_path / "main.py").write_text("from flow import F\nif __name__ == '__main__':\n    F()\n")

    def shell(line: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            line, shell=True, cwd=tmp_path, env=environment(PATH=path), capture_output=True, text=True, check=False
        )

    options = '--with \'environment:vars={"SAID": "it\'"\'"\'s"}\' --branch b --production'
    failed = shell(f"{start} run {options}")
    assert failed.returncode == 1, failed.stderr
    commands = dict(re.findall(r"^ +(its output|to resume): +(.*)$", failed.stdout, re.MULTILINE))
    assert re.match(r"python3? ", commands["its output"])
    said = "says it's prod.b True"
    assert said in shell(commands["its output"]).stdout
    (tmp_path / "fixed").touch()
    resumed = shell(commands["to resume"])
    assert resumed.returncode == 0, commands["to resume"] + resumed.stdout + resumed.stderr
    assert said in resumed.stdout


def _clean(folder: Path) -> bool:
    """Report if no run has started."""
    return not list(folder.rglob("run.json"))


def test_parameters_come_from_the_command_line(flow: Path) -> None:
    """Every spelling works; the others have their defaults."""
    assert run_flow(flow).returncode == 0
    assert latest(flow.parent)["start"].task.data.got == (3, 0.5, None, False, "x")
    done = run_flow(
        flow,
        "--n",
        "-0",
        "--learning-rate=1e-2",
        "--name",
        "日本 語",
        "--fast",
        "yes",
        "--Upper",
        "",
        "--tag",
        "a",
        "--tag",
        "b",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = latest(flow.parent)
    assert run["start"].task.data.got == (0, 0.01, "日本 語", True, "")
    assert run["end"].task.data.name == "日本 語"
    assert run.user_tags == {"a", "b"}


def test_the_last_line_says_how_to_read_the_results(flow: Path) -> None:
    """The code in it works."""
    done = run_flow(flow)
    *_, ended, last = done.stdout.splitlines()
    assert re.match(r"F/\S+ succeeded in [\d.]+ s \(6 tasks\)\.$", ended)
    assert last.startswith("Results: k8sflow.Flow")
    code = f"import k8sflow; print({last.partition('Results: ')[2]}.got)"
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=flow.parent, env=environment(), capture_output=True, text=True, check=False
    )
    assert shown.stdout == "(3, 0.5, None, False, 'x')\n", shown.stderr


MISTYPED = {
    ("run", "--m", "5"): (2, "No such option"),
    ("runn",): (2, "No such command"),
    ("run", "extra"): (2, "unexpected extra argument"),
    ("run", "--n", "many"): (2, "the value 'many' is not of type int"),
    ("run", "--n"): (2, "requires an argument"),
    ("run", "--fast", "perhaps"): (2, "not of type bool"),
    ("run", "--max-workers", "0"): (2, "0 is not in the range"),
    ("run", "--max-workers", "all"): (2, "not a valid integer"),
    ("run", "--max-num-splits", "0"): (2, "0 is not in the range"),
    ("run", "--with", "slurm"): (1, "there is no decorator 'slurm'"),
    ("run", "--with", "kubernetes:imagge=x"): (1, "image"),
    ("run", "--with", "kubernetes:image"): (1, "option=value"),
    ("run", "--with", "resources:cpu=no"): (1, "cpu"),
    ("run", "--with", "kubernetes"): (1, "needs a bucket"),
    ("run", "--run-id", "../up"): (1, "can't be a run's id"),
    ("run", "--run-id", ""): (1, "can't be a run's id"),
    ("run", "--run-id", "Ü"): (1, "can't be a run's id"),
    ("run", "--run-id", "a" * 64): (1, "can't be a run's id"),
    ("run", "--run-id-file", "/nowhere/id"): (1, "/nowhere/id"),
    ("run", "--run-id-file", "/"): (2, "is a directory"),
    ("run", "--detach"): (1, "--detach"),
}


@pytest.mark.parametrize("arguments", MISTYPED, ids=" ".join)
def test_a_mistyped_command_is_reported(flow: Path, arguments: tuple[str, ...]) -> None:
    """There is one message, without a traceback, before anything is written."""
    code, words = MISTYPED[arguments]
    done = flow_command(flow, *arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert _clean(flow.parent)


def test_a_missing_required_parameter_is_reported(tmp_path: Path) -> None:
    """The message has its name."""
    flow = write_flow(tmp_path, FLOW.replace('"name", type=str', '"name", required=True'))
    done = run_flow(flow)
    assert done.returncode == 2
    assert "--name" in done.stderr
    assert _clean(tmp_path)
    assert run_flow(flow, "--name", "x").returncode == 0


def test_help_shows_the_parameters(flow: Path) -> None:
    """The help of the flow and of run has types, defaults and texts."""
    assert "Does little." in flow_command(flow, "--help").stdout
    shown = flow_command(flow, "run", "--help").stdout
    for words in (
        "--n INT",
        "How many. [default: 3]",
        "--learning-rate FLOAT",
        "--fast BOOL",
        "--with",
        "--max-workers",
        "--max-num-splits INTEGER RANGE",
    ):
        assert words in shown


def test_check_and_show_describe_the_flow(flow: Path) -> None:
    """The flow isn't run."""
    assert flow_command(flow, "check").stdout == "F: 4 steps, no mistakes.\n"
    shown = flow_command(flow, "show").stdout
    assert "Begins." in shown
    assert "-> work, for each of self.items" in shown
    assert "joins start" in shown
    assert _clean(flow.parent)


@pytest.mark.slow
def test_a_chosen_run_id_is_used_once(flow: Path) -> None:
    """A second run with it is refused, and the first stays unchanged."""
    assert run_flow(flow, "--run-id", "my-run.1").returncode == 0
    before = sorted(flow.parent.rglob("*"))
    done = run_flow(flow, "--run-id", "my-run.1", "--run-id-file", "id")
    assert done.returncode == 1
    assert "F/my-run.1 exists already" in done.stderr
    assert sorted(flow.parent.rglob("*")) == before


def test_the_run_id_is_written_to_a_file(flow: Path) -> None:
    """Scripts read it, even if the run fails."""
    assert run_flow(flow, "--run-id-file", "id").returncode == 0
    assert (flow.parent / "id").read_text() == f"{latest(flow.parent).id}\n"


BROKEN = {
    "syntax": ("class F(FlowSpec:\n", "SyntaxError"),
    "import": ("import nothing_like_this\nclass F(FlowSpec): pass", "No module named 'nothing_like_this'"),
    "error": ("1/0\nclass F(FlowSpec): pass", "ZeroDivisionError"),
    "parameter": (
        "class F(FlowSpec):\n    n = Parameter('n', type=int, default='x')",
        "the default 'x' is not of type int",
    ),
    "decorator": ("class F(FlowSpec):\n    @resources(cpu=-1)\n    @step\n    def start(self): pass", "cpu"),
    "no steps": ("class F(FlowSpec): pass", "F has no step 'start'"),
    "graph": (
        "class F(FlowSpec):\n    @step\n    def start(self): self.next(self.a)\n    @step\n    def end(self): pass",
        "flow.py:4: step start leads to 'a'",
    ),
    "parameter named as an option": (
        "class F(FlowSpec):\n    n = Parameter('tag')\n    @step\n    def start(self): self.next(self.end)\n    @step\n    def end(self): pass",
        "the command line has an option tag already",
    ),
    "two parameters": (
        "class F(FlowSpec):\n    a = Parameter('n')\n    b = Parameter('n')",
        "two parameters with the name 'n'",
    ),
    "constant": (
        "import threading\nclass F(FlowSpec):\n    lock = threading.Lock()\n    @step\n    def start(self): self.next(self.end)\n    @step\n    def end(self): pass",
        "'lock'",
    ),
}


@pytest.mark.parametrize(
    ("kind", "command"),
    # Only a run reads the value of a constant.
    [(kind, command) for kind in BROKEN for command in ("run", "check") if (kind, command) != ("constant", "check")],
)
def test_a_broken_flow_file_is_reported(tmp_path: Path, kind: str, command: str) -> None:
    """The exit code is 1, the message has the mistake and its line; nothing is written."""
    source, words = BROKEN[kind]
    done = flow_command(write_flow(tmp_path, source), command)
    assert done.returncode == 1
    assert words in done.stderr
    assert "flow.py" in done.stderr or kind in {"parameter named as an option", "two parameters", "constant"}
    assert _clean(tmp_path)


def test_a_file_without_a_flow_is_an_ordinary_program(tmp_path: Path) -> None:
    """k8sflow prints nothing."""
    done = flow_command(write_flow(tmp_path, "print('hello')", tail=""), "run")
    assert (done.returncode, done.stdout) == (0, "hello\n")


@pytest.mark.slow
def test_two_flows_of_one_file_can_be_told_apart(tmp_path: Path) -> None:
    """The one instantiated under __main__ runs; each has its own runs."""
    two = FLOW + FLOW.replace("class F", "class G")
    flow = write_flow(
        tmp_path, two, tail="\nif __name__ == '__main__':\n    import sys\n    {'f': F, 'g': G}[sys.argv.pop(1)]()\n"
    )
    for letter in "fg":
        assert flow_command(flow, letter, "run").returncode == 0
        assert latest(tmp_path, letter.upper()).successful


@pytest.mark.parametrize(
    "name",
    [
        "my flow.py",
        "flöw 日本.py",
        'it\'s "quoted".py',
        "$HOME;ls.py",
        "-dash.py",
        "flow",
        "new\nline.py",
        "{brace}.py",
        "%s.py",
    ],
)
def test_a_flow_file_may_be_called_anything(tmp_path: Path, name: str) -> None:
    """Its folder may be called anything too."""
    file = write_flow(tmp_path / f"folder of {name}", FLOW, name)
    done = run_flow(file, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert latest(tmp_path).successful
    if not name.startswith("-"):
        assert flow_command(Path(name), "--help", cwd=file.parent).returncode == 0


@pytest.mark.slow
def test_a_flow_runs_from_any_folder(tmp_path: Path) -> None:
    """The run's state is there, and its steps run there."""
    file = write_flow(tmp_path / "flows", FLOW.replace('print("n is"', 'import os; print("in", os.getcwd(), "n is"'))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (file, Path("../flows/flow.py")):
        done = run_flow(path, cwd=elsewhere)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"in {elsewhere}" in done.stdout
    assert [path.name for path in elsewhere.iterdir()] == [".k8sflow"]
    assert not (file.parent / ".k8sflow").exists()
    (elsewhere / "link.py").symlink_to(file)
    assert run_flow(elsewhere / "link.py").returncode == 0


@pytest.mark.slow
def test_a_flow_in_a_package_runs(tmp_path: Path) -> None:
    """It runs by `python -m`, and from a file that only imports it."""
    write_flow(
        tmp_path / "pack", FLOW.replace('"""Begins."""', "from pack.util import seven; assert seven == 7"), "flow.py"
    )
    (tmp_path / "pack/__init__.py").touch()
    (tmp_path / "pack/util.py").write_text("seven = 7\n")
    (tmp_path / "main.py").write_text("from pack.flow import F\nif __name__ == '__main__':\n    F()\n")
    for command in (["-m", "pack.flow"], ["main.py"]):
        done = run_in(tmp_path, sys.executable, *command, "run")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_two_runs_at_once_in_one_folder_are_two_runs(tmp_path: Path) -> None:
    """They share only blobs."""
    source = FLOW.replace('"""Begins."""', "self.big = bytes(1_000_000)")
    file = write_flow(tmp_path, source)
    with running(file, "--n", "5") as one, running(file, "--n", "6") as two:
        for process in (one, two):
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 0, output.decode()
    runs = [path.name for path in (tmp_path / ".k8sflow/F/runs").iterdir()]
    assert len(runs) == 2
    assert not list(tmp_path.rglob(".tmp-*"))


def test_the_root_may_be_elsewhere(flow: Path, tmp_path: Path) -> None:
    """A setting moves it; a folder that can't be written is reported, and nothing else happens."""
    assert run_flow(flow, K8SFLOW_ROOT=str(tmp_path / "state")).returncode == 0
    assert (tmp_path / "state/F/runs").is_dir()
    assert not (tmp_path / ".k8sflow").exists()
    (tmp_path / "file").touch()
    done = run_flow(flow, K8SFLOW_ROOT=str(tmp_path / "file"))
    assert done.returncode == 1
    assert "can't be written: Not a directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_settings_file_is_reported(flow: Path) -> None:
    """The report comes when a run starts."""
    (flow.parent / "k8sflow.toml").write_text('bukcet = "x"')
    done = run_flow(flow)
    assert done.returncode == 1
    assert "unknown setting 'bukcet'" in done.stderr
    assert _clean(flow.parent)


@pytest.mark.parametrize(
    "options", [[], ["-O"], ["-OO"], ["-X", "utf8=0"], ["-W", "error"], ["-u"], ["-B"], ["-I"]], ids=" ".join
)
def test_pythons_own_options_are_supported(flow: Path, options: list[str]) -> None:
    """Asserts may be off, and warnings may be errors."""
    if options == ["-I"]:
        flow.write_text(f"import sys; sys.path.insert(0, {environment()['PYTHONPATH']!r})\n" + flow.read_text())
    done = run_in(flow.parent, sys.executable, *options, str(flow), "run")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_k8sflow_command_knows_its_settings(tmp_path: Path) -> None:
    """Version and settings need no flow."""
    (tmp_path / "k8sflow.toml").write_text('bucket = "b"')
    command = [sys.executable, "-c", "from k8sflow.cli.main import main; main()"]
    shown = subprocess.run(
        [*command, "config"],
        cwd=tmp_path,
        env=environment(K8SFLOW_REGION="r"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.search(r"^K8SFLOW_BUCKET +b  \(.*k8sflow.toml\)$", shown, re.MULTILINE)
    assert re.search(r"^K8SFLOW_REGION +r  \(.*\)$", shown, re.MULTILINE)
    assert subprocess.run(
        [*command, "version"], env=environment(), capture_output=True, text=True, check=True
    ).stdout.startswith("k8sflow 0")


def test_a_run_without_stdin_or_terminal_works(flow: Path) -> None:
    """The standard streams may be closed altogether, as under cron."""
    done = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" flow.py run <&- >&- 2>&-'],
        cwd=flow.parent,
        env=environment(),
        check=False,
    )
    assert latest(flow.parent).successful
    assert done.returncode == 0


def test_a_full_disk_is_reported(flow: Path) -> None:
    """A limit on the size of files simulates it."""
    flow.write_text(flow.read_text().replace('"""Begins."""', "self.big = __import__('os').urandom(3_000_000)"))
    done = run_in(flow.parent, "sh", "-c", f'trap "" XFSZ; ulimit -f 2000; exec "{sys.executable}" flow.py run')
    assert done.returncode == 1, done.stdout
    assert "start/0 failed (storage error)" in done.stdout
    assert "can't be written: File too large" in done.stdout
    assert not list(flow.parent.rglob("commit.json"))
    assert not list(flow.parent.rglob(".tmp-*"))


def test_a_read_only_folder_is_reported(flow: Path) -> None:
    """The message has the setting that chooses another one."""
    if os.getuid() == 0:
        (flow.parent / ".k8sflow").symlink_to("/proc/1")
    else:
        flow.parent.chmod(0o555)
    done = run_flow(flow)
    assert done.returncode == 1
    assert "can't be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "show", "graph", "runs", "logs", "dump", "run --help"])
def test_output_that_can_not_be_written_is_reported(flow: Path, command: str) -> None:
    """The message about a full disk has no traceback of k8sflow; a closed standard output can't show any."""
    run_flow(flow, "--name", "x")
    for target, code in ((">/dev/full", 1), (">&-", 0)):
        done = subprocess.run(
            ["sh", "-c", f'exec "$0" "$1" {command} {target}', sys.executable, str(flow)],
            cwd=flow.parent,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert ("cannot write to stdout: No space left on device." in done.stderr) == bool(code)
