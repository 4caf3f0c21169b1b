"""The commands that read runs: from a flow's file and by `k8sflow`, for people and for programs."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from k8sflow.cli.flow import _group
from k8sflow.cli.main import main
from k8sflow.flow.compile import declared
from k8sflow.flow.graph import Graph, Node
from k8sflow.flow.outcome import Outcome
from k8sflow.flow.problems import Location
from k8sflow.flow.spec import FlowSpec
from k8sflow.storage import package
from k8sflow.storage.artifacts import ArtifactStore
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.records import OutcomeRecord, RunRecord
from k8sflow.storage.run_store import RunStore
from k8sflow.user import current_user
from tests.inprocess import run_all, runner_of
from tests.support import environment, load_flow, write_flow

SOURCE = """
    class F(FlowSpec):
        n = Parameter("n", default=2)
        @step
        def start(self):
            self.items = list(range(self.n))
            self.big = "x" * 5000
            self._hidden = 1
            self.handle = {1, 2}
            self.next(self.work, foreach="items")
        @step
        def work(self):
            self.square = self.input ** 2
            self.next(self.join)
        @step
        def join(self, inputs): self.next(self.end)
        @step
        def end(self): pass
"""
if TYPE_CHECKING:
    from k8sflow.storage.s3 import S3Store

OLD, NEW = "20260101-000000-000000", "20260102-000000-000000"
Call = Callable[..., Result]


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FlowSpec]:
    """A flow with two runs, of which the newer one has output and tags."""
    monkeypatch.setenv("K8SFLOW_ROOT", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    found = load_flow(write_flow(tmp_path, SOURCE))
    for run in (OLD, NEW):
        run_all(runner_of(found, tmp_path, run))
    store = _store(tmp_path)
    for task, stream, text in (
        ("0", "stdout", b"zero\n"),
        ("1", "stdout", b"one\n10%\r100%\nno end"),
        ("1", "stderr", b"oh \xff\n"),
    ):
        log = store.open_log("work", task, 0, stream)
        log.write(text, 1e9 + (stream == "stderr") + int(task) / 4)
        log.close()
    store.write_run_outcome(OutcomeRecord(Outcome.SUCCEEDED, 1e9))
    store.change_tags(lambda _: ("good", "very good"))
    return found


def _store(folder: Path, run: str = NEW) -> RunStore:
    return RunStore(FolderStore(str(folder / "store")), "F", run)


@pytest.fixture
def ours(flow: type[FlowSpec]) -> Call:
    """``python flow.py …``, which has to succeed unless a failure is expected."""
    return _caller(_group(declared(flow)))


@pytest.fixture
def everywhere(flow: type[FlowSpec]) -> Call:
    """``k8sflow …``."""
    return _caller(main)


def _caller(command: click.Command) -> Call:
    def call(*arguments: str, code: int = 0) -> Result:
        done = CliRunner().invoke(command, arguments)
        assert done.exit_code == code, done.output
        return done

    return call


def test_places_may_be_short_or_long(ours: Call, everywhere: Call) -> None:
    """The latest run is meant where none is named; the flow's own name may be there."""
    for place in ("work/1", f"{NEW}/work/1", f"F/{NEW}/work/1", f"/F/{NEW}/work/1/", "F/work/1"):
        assert "F/20260102-000000-000000/work/1" in ours("dump", place).stdout
    for place in (f"F/{NEW}/work/1", "F/work/1"):
        assert "F/20260102-000000-000000/work/1" in everywhere("dump", place).stdout
    assert f"F/{OLD}/work/1" in ours("dump", f"{OLD}/work/1").stdout
    assert f"F/{NEW}/start/0" in ours("dump").stdout
    assert "no run was named" in everywhere("dump", code=1).output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("logs", "wrk"),
            "neither a run of F nor a step of its latest run, 20260102-000000-000000.\nDid you mean 'work'",
        ),
        (("logs", "work/7"), "there is no task F/20260102-000000-000000/work/7.\nThe step's tasks are 0, 1."),
        (("logs", f"{OLD}/wrk"), "has no step 'wrk'.\nDid you mean 'work'?"),
        (("logs", "work/1", "--attempt", "3"), "had no attempt 3.\nIts attempts: 0."),
        (("dump", "work/1/squre"), "no artifact 'squre'.\nDid you mean 'square'?"),
        (("dump", "work", "--include", "nope"), "no task of F/20260102-000000-000000/work has an artifact 'nope'"),
        (("dump", "work/1", "--include", "nope"), "no artifact 'nope'"),
        (("dump", "work/1/square/x"), "has too many parts"),
        (("tag", "add", "--run-id", "nope", "x"), f"there is no run F/nope.\nThe runs are {NEW}, {OLD}."),
        (("tag", "add", "--run-id", "work", "x"), "there is no run F/work."),
        (("tag", "list", f"{NEW}/work"), "is not a run, but a part of"),
        (("tag", "add", "a\nb"), "can't be a tag: it has a line break"),
        (("tag", "remove", "never"), "has no tag 'never'.\nIts tags are 'good', 'very good'."),
        (("tag", "remove", f"user:{current_user()}"), "is a system tag"),
        (("package", "list", "--run-id", NEW), "has no code package"),
        (("dump", "work", "--file", "/nowhere/x"), "can't be written to /nowhere/x"),
    ],
)
def test_a_missing_name_is_reported(ours: Call, arguments: tuple[str, ...], words: str) -> None:
    """In a message with what there is, and exit code 1."""
    done = ours(*arguments, code=1)
    assert words in done.stderr
    assert done.stdout == ""


def test_k8sflow_needs_the_flows_name(everywhere: Call) -> None:
    """And says which there are."""
    assert "Did you mean 'F'" not in everywhere("logs", "G", code=1).stderr
    assert "The flows there are F." in everywhere("logs", "G", code=1).stderr
    assert "is not a run, but a part of" in everywhere("tag", "list", "F/work", code=1).stderr
    everywhere("logs", code=2)


def test_runs_are_listed_the_newest_first(ours: Call, everywhere: Call, tmp_path: Path) -> None:
    """With what became of them; runs of another user too; one that can't be read hides no other."""
    graph = Graph("F", {"start": Node("start", Location(), Location())})
    others = RunRecord("F", "bobs", "flow.py", {}, graph, created=1e9, user="bob", tags=("x y",))
    _store(tmp_path, "bobs").create(others)
    _store(tmp_path, "bobs").write_run_outcome(OutcomeRecord(Outcome.CANCELLED, 1e9 + 75))
    _store(tmp_path, "newer").store.put("F/runs/newer/run.json", [b'{"format":99}'])
    _store(tmp_path, "torn").store.put("F/runs/torn/run.json", [b""])  # after a power cut
    _store(tmp_path, "torn").store.put("F/runs/torn/tasks/start/0/0/stdout", [b"more\n"])
    lines = ours("runs").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["run", NEW, OLD, "bobs", "newer", "torn"]
    for words in ("cancelled", "2001-09-09 01:46:40", "1 min 15 s", "bob", '"x y"'):
        assert words in lines[3]
    assert "unreadable" in lines[4]
    assert "has the format 99" in lines[4]
    found = json.loads(everywhere("runs", "F", "--json").stdout)
    assert [run["pathspec"] for run in found] == [f"F/{run}" for run in (NEW, OLD, "bobs", "newer", "torn")]
    assert found[0]["tags"] == ["good", "very good"]
    assert found[0]["status"] == "succeeded"
    assert found[2]["duration_seconds"] == 75
    assert len(json.loads(ours("runs", "--limit", "1", "--json").stdout)) == 1
    for options, expected in (
        (("--tag", "good", "--tag", "very good"), [NEW]),
        (("--namespace", "user:bob"), ["bobs"]),
        (("--status", "cancelled"), ["bobs"]),
        (("--tag", "nobody's"), []),
    ):
        assert [run["run"] for run in json.loads(everywhere("runs", *options, "--json").stdout)] == expected
    assert ours("runs", "--tag", "nobody's").stderr == "No run was found.\n"


def test_an_empty_store_has_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For `k8sflow` this is not an error; for a flow the error lists the searched folders."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K8SFLOW_ROOT", str(tmp_path / "nothing"))
    assert _caller(main)("runs").stderr == "No run was found.\n"
    assert json.loads(_caller(main)("runs", "--json").stdout) == []
    flow = load_flow(write_flow(tmp_path, SOURCE))
    assert "there is no run of a flow 'F'" in _caller(_group(declared(flow)))("runs", code=1).stderr


def test_a_tasks_output_is_printed_to_the_byte(ours: Call) -> None:
    """One stream is printed alone; both are printed line by line in the order of their times."""
    assert ours("logs", "work/1", "--stdout").stdout_bytes == b"one\n10%\r100%\nno end"
    assert ours("logs", "work/1", "--stderr").stdout_bytes == b"oh \xff\n"
    assert ours("logs", "work/1").stdout_bytes == b"one\n10%\r100%\nno end\noh \xff\n"


def test_several_tasks_have_their_names_before_each_line(ours: Call) -> None:
    """A line that was rewritten is shown as it was in the end."""
    assert ours("logs", "--stdout").stdout.splitlines() == [
        "[work/0] zero",
        "[work/1] one",
        "[work/1] 100%",
        "[work/1] no end",
    ]
    assert ours("logs", "work", "--stdout", "--attempt", "0", "-t").stdout.splitlines()[:2] == [
        "2001-09-09T01:46:40.000Z [work/0] zero",
        "2001-09-09T01:46:40.250Z [work/1] one",
    ]
    silent = ours("logs", f"{OLD}/work")
    assert silent.stdout == ""
    assert silent.stderr == f"F/{OLD}/work wrote nothing to stdout or stderr.\n"


def test_programs_get_a_json_document_for_each_line(ours: Call) -> None:
    """With the time, the stream and the execution."""
    lines = [json.loads(line) for line in ours("logs", "work/1", "--json").stdout.splitlines()]
    assert lines[0] == {
        "pathspec": f"F/{NEW}/work/1",
        "attempt": 0,
        "stream": "stdout",
        "time": "2001-09-09T01:46:40.250Z",
        "text": "one",
    }
    assert lines[-1]["text"] == "oh \ufffd"


def test_output_is_scrubbed_for_good(ours: Call, everywhere: Call, tmp_path: Path) -> None:
    """A reader sees who scrubbed it; the other stream, other attempts and other tasks stay."""
    again = _store(tmp_path).open_log("work", "1", 1, "stdout")
    again.write(b"again\n")
    again.close()
    assert "work/1, attempt 0: 1 of 1 streams scrubbed." in ours("logs", "scrub", "work/1", "--stdout").stdout
    assert f"[k8sflow] stdout was scrubbed by {current_user()} at 2" in ours("logs", "work/1", "--stdout").stdout
    assert ours("logs", "work/1", "--stderr").stdout_bytes == b"oh \xff\n"
    assert ours("logs", "work/1", "--attempt", "1").stdout == "again\n"
    everywhere("logs", "scrub", "F/work", "--all")
    shown = ours("logs", "show", "work").stdout
    assert shown.count("was scrubbed by") == len(shown.splitlines()) == 3
    assert "was scrubbed" in ours("logs", "work/1", "--attempt", "1").stdout
    assert "nothing to scrub" in ours("logs", "scrub", "start").stdout
    assert "Name a step" in ours("logs", "scrub", NEW, code=1).stderr


def test_output_that_may_still_come_is_not_scrubbed(ours: Call, tmp_path: Path) -> None:
    """Unless the user says that nobody writes it any more."""
    store = _store(tmp_path, "live")
    store.create(replace(_store(tmp_path).read(), run="live"))
    log = store.open_log("start", "0", 0, "stdout")
    log.write(b"secret\n")
    log.close()
    assert "were not scrubbed" in ours("logs", "scrub", "live/start", code=1).stderr
    assert ours("logs", "live/start/0").stdout == "secret\n"
    ours("logs", "scrub", "live/start", "--include-not-done")
    assert "secret" not in ours("logs", "live/start/0").stdout


def test_the_output_of_a_failed_task_ends_with_why(ours: Call, tmp_path: Path) -> None:
    """Beside the output, so that this stays what the task wrote; not for programs."""
    store = _store(tmp_path, "bad")
    store.create(replace(_store(tmp_path).read(), run="bad"))
    log = store.open_log("start", "0", 0, "stdout")
    log.write(b"hello\n")
    log.close()
    store.write_outcome(
        "start",
        "0",
        0,
        OutcomeRecord(
            Outcome.USER_ERROR, 1e9, "ValueError: no", "Traceback\nValueError: no", error_type="builtins.ValueError"
        ),
    )
    done = ours("logs", "bad/start/0")
    assert done.stdout == "hello\n"
    assert done.stderr == "F/bad/start/0 failed: ValueError: no\nTraceback\nValueError: no\n"
    assert "Traceback" not in ours("logs", "bad/start/0", "--json").output


def test_a_follower_of_a_run_that_is_over_prints_all_and_ends(ours: Call, everywhere: Call) -> None:
    """Whatever is followed."""
    assert ours("logs", "-f", "--stdout").stdout.splitlines() == [
        "[work/0] zero",
        "[work/1] one",
        "[work/1] 100%",
        "[work/1] no end",
    ]
    assert everywhere("logs", "F/work/0", "--follow").stdout == "zero\n"


def test_artifacts_are_shown_with_type_and_size(ours: Call) -> None:
    """And with the value where it is small; private ones only when asked for."""
    shown = ours("dump", "start").stdout
    assert "items   [list, " in shown
    assert "[0, 1]" in shown
    assert "big     [str, 5.0 kB]\n" in shown
    assert "_hidden" not in shown
    assert "_hidden" in ours("dump", "start", "--private").stdout
    assert "xxxx" in ours("dump", "start/0/big", "--max-value-size", "100000").stdout
    assert "items" not in ours("dump", "start", "--include", "n, big").stdout
    assert ours("dump", NEW, "--include", "square").stdout.count("  square  ") == 2  # of those that have it


def test_artifacts_are_given_to_programs(ours: Call, tmp_path: Path) -> None:
    """As JSON where they can be; as a pickle of all."""
    shown = json.loads(ours("dump", "start", "--json").stdout)[f"F/{NEW}/start/0"]
    assert shown["items"]["value"] == [0, 1]
    assert shown["handle"]["repr"] == "{1, 2}"
    assert set(shown["big"]) == {"type", "size", "sha256"}
    assert ours("dump", "work", "--file", "x").stdout == "10 artifacts of 2 tasks written to x.\n"
    values = pickle.loads((tmp_path / "x").read_bytes())
    assert [values[f"F/{NEW}/work/{i}"]["square"] for i in (0, 1)] == [0, 1]
    assert values[f"F/{NEW}/work/1"]["big"] == "x" * 5000


def test_tags_are_changed_and_listed(ours: Call, everywhere: Call) -> None:
    """By the flow's file of its latest run or another, and by `k8sflow`."""
    ours("tag", "add", "日本", "a \"b\" 'c'", "--run-id", OLD)
    assert ours("tag", "list", "--run-id", OLD).stdout.splitlines()[:2] == ["a \"b\" 'c'", "日本"]
    everywhere("tag", "replace", f"F/{NEW}", "good", "best")
    everywhere("tag", "remove", "F", "very good")
    assert json.loads(ours("tag", "list", "--json").stdout) == {
        "run": f"F/{NEW}",
        "tags": ["best"],
        "system_tags": ["date:1970-01-01", "runtime:dev", f"user:{current_user()}"],
    }
    ours("tag", "replace", "--run-id", OLD, "--remove", "日本", "--add", "x", "--add", "best")
    assert ours("tag", "list", OLD, "--hide-system-tags").stdout.splitlines() == ["a \"b\" 'c'", "best", "x"]
    ours("tag", "replace", "a \"b\" 'c'", "y", "--run-id", OLD, "--remove", "x")
    assert ours("tag", "list", OLD, "--hide-system-tags").stdout.splitlines() == ["best", "y"]


def test_tags_of_all_runs_are_listed(ours: Call, everywhere: Call) -> None:
    """Each once, or with its runs, or those of each run; of everybody, or of the namespace."""
    ours("tag", "add", "good", "日本", "--run-id", OLD)
    mine = ["date:1970-01-01", "good", "runtime:dev", f"user:{current_user()}", "very good", "日本"]
    assert ours("tag", "list", "--all").stdout.splitlines() == mine
    assert json.loads(everywhere("tag", "list", "F", "--my-runs", "--json").stdout) == mine
    assert ours("tag", "list", "--group-by-run", "--hide-system-tags").stdout.splitlines() == [
        f"F/{NEW}: good, very good",
        f"F/{OLD}: good, 日本",
    ]
    by_tag = json.loads(everywhere("tag", "list", "F", "--group-by-tag", "--json", "--hide-system-tags").stdout)
    assert by_tag == {"good": [f"F/{NEW}", f"F/{OLD}"], "very good": [f"F/{NEW}"], "日本": [f"F/{OLD}"]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("replace", "old"), "Give the old tag and the new one"),
        (("replace",), "Give the old tag and the new one"),
        (("list", OLD, "--run-id", NEW), "Name the run once"),
        (("list", OLD, "--all"), f"{OLD} is one run, and all are asked for"),
        (("list", "--all", "--run-id", OLD), "--run-id is for the tags of one run"),
        (("list", "--group-by-run", "--group-by-tag"), "grouped by run or by tag"),
    ],
)
def test_a_wrong_call_of_tag_is_reported(ours: Call, arguments: tuple[str, ...], words: str) -> None:
    """With exit code 2."""
    assert words in ours("tag", *arguments, code=2).stderr


def test_a_package_is_listed_and_saved(ours: Call, everywhere: Call, tmp_path: Path) -> None:
    """The package of a run, and the one that a new run would have."""
    assert "flow.py" in {entry["name"] for entry in json.loads(ours("package", "list", "--json").stdout)}
    code = package.build(tmp_path)
    ArtifactStore(_store(tmp_path).store, "F").save_blob(code.sha256, [code.archive])
    path = tmp_path / "store/F/runs" / NEW / "run.json"
    path.write_text(path.read_text().replace('"package":null', f'"package":"{code.sha256}"'))
    assert "flow.py" in everywhere("package", "list", f"F/{NEW}").stdout
    everywhere("package", "save", f"F/{NEW}", "code.tgz")
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "code.tgz").read_bytes())) as tar:
        assert "flow.py" in tar.getnames()
    assert "is there already" in ours("package", "save", "--run-id", NEW, "code.tgz", code=1).stderr


def test_a_reader_that_closes_the_pipe_is_not_an_error(flow: type[FlowSpec], tmp_path: Path) -> None:
    """As `| head`."""
    log = _store(tmp_path).open_log("end", "0", 0, "stdout")
    log.write(b"line\n" * 200_000)
    log.close()
    for command in ("logs F/end/0", "logs F/end", "runs --json"):
        program = f"{sys.executable} -c 'from k8sflow.cli.main import main; main()'"
        done = subprocess.run(
            ["sh", "-c", f"{program} {command} | head -1"],
            cwd=tmp_path,
            env=environment(K8SFLOW_ROOT=str(tmp_path / "store")),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() in {"line", "[end/0] line", "["}
        assert done.stderr == ""


def test_a_store_that_can_not_be_written_is_reported(ours: Call, tmp_path: Path) -> None:
    """Only a change of tags writes."""
    (tmp_path / "store/F/runs" / OLD / "tags").touch()  # no folder can be made there, for root neither
    assert "can't be written" in ours("tag", "add", "--run-id", OLD, "x", code=1).stderr


def test_a_terminal_that_can_not_show_a_character_gets_its_number(flow: type[FlowSpec], tmp_path: Path) -> None:
    """And no traceback."""
    _store(tmp_path).change_tags(lambda _: ("日本",))
    for command in (["runs"], ["tag", "list", "F"]):
        done = subprocess.run(
            [sys.executable, "-c", "from k8sflow.cli.main import main; main()", *command],
            cwd=tmp_path,
            env=environment(K8SFLOW_ROOT=str(tmp_path / "store"), PYTHONIOENCODING="latin-1"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert "\\u65e5\\u672c" in done.stdout, done.stderr


@pytest.mark.s3
def test_a_bucket_is_read_like_a_folder(
    everywhere: Call, tmp_path: Path, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs, output and tags; many runs are read at a time."""
    local = _store(tmp_path).store
    for key in local.list_keys("F/"):
        s3_store.put(key, [local.get(key)])
    record = _store(tmp_path).read()
    for i in range(40):
        RunStore(s3_store, "F", f"old-{i:02}").create(replace(record, run=f"old-{i:02}", created=float(i)))
    monkeypatch.setenv("K8SFLOW_ROOT", str(tmp_path / "nothing"))
    monkeypatch.setenv("K8SFLOW_BUCKET", s3_store.url.removeprefix("s3://"))
    monkeypatch.setenv("K8SFLOW_ENDPOINT", str(s3_store.endpoint))
    found = json.loads(everywhere("runs", "--json", "--limit", "100").stdout)
    assert [run["run"] for run in found] == [NEW, OLD, *(f"old-{i:02}" for i in reversed(range(40)))]
    assert everywhere("logs", "F/work/1", "--stdout", "--follow").stdout == "one\n10%\r100%\nno end\n"
    everywhere("tag", "add", "F", "seen")
    assert "seen" in everywhere("tag", "list", f"F/{NEW}").stdout


def test_gc_deletes_the_runs_that_meet_all_options(ours: Call, everywhere: Call, tmp_path: Path) -> None:
    """With ``--dry-run`` it only says so; without options it deletes no run."""
    for run in (OLD, NEW):
        _store(tmp_path, run).write_run_outcome(OutcomeRecord(Outcome.SUCCEEDED, 1e9))
    assert "1 run would be deleted" in ours("gc", "--keep", "1", "--dry-run").stdout
    assert "0 runs deleted" in everywhere("gc").stdout
    assert "0 runs would be deleted" in ours("gc", "--older-than", "99999d", "--dry-run").stdout
    (planned,) = json.loads(ours("gc", "--older-than", "1h", "--tag", "good", "--dry-run", "--json").stdout)
    assert list(planned["runs"]) == [f"F/{NEW}"]
    assert "is not an age: write 30d" in ours("gc", "--older-than", "soon", code=2).output
    (before,) = json.loads(everywhere("du", "F", "--json").stdout)
    assert f"F/{OLD}" in ours("gc", "--keep", "1").stdout
    assert [run["run"] for run in json.loads(ours("runs", "--json").stdout)] == [NEW]
    (after,) = json.loads(ours("du", "--json").stdout)
    assert (before["runs"], after["runs"]) == (2, 1)
    assert after["total"] < before["total"]
    assert "artifacts" in everywhere("du").stdout
    assert "there is no run of a flow 'Other'" in everywhere("gc", "Other", code=1).output
    for command in ("gc", "du"):  # as of a variable that is not set
        assert "it is empty. Without it, all flows are meant." in everywhere(command, "", code=2).output
    assert "F/" in ours("gc", "--keep", "0").stdout
    assert "0 runs deleted" in ours("gc").stdout  # there may be blobs, which are deleted a day later


def test_gc_fails_if_it_can_not_delete_what_it_should(ours: Call, everywhere: Call, tmp_path: Path) -> None:
    """So that a scheduled one is noticed; folders that are not a flow's are not shown."""
    (tmp_path / "store" / "notes" / "runs" / "1").mkdir(parents=True)
    (tmp_path / "store" / "notes" / "runs" / "1" / "x").write_text("mine")
    assert "notes" not in everywhere("gc").stdout
    assert "notes" not in everywhere("du").stdout
    _store(tmp_path, OLD).store.put(f"F/runs/{OLD}/run.json", [b"nonsense"])
    assert f"nothing is deleted: F/runs/{OLD}/run.json" in ours("gc", "--keep", "0", code=1).output
    assert "nothing is deleted" in ours("gc", "--keep", "0", "--json", code=1).stdout
