"""Garbage collection: deletes what nothing needs, and nothing else, whatever else happens at the same time."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from k8sflow.errors import RunError
from k8sflow.flow.decorators.pod_options import PodOptions
from k8sflow.flow.graph import Graph
from k8sflow.flow.outcome import Outcome
from k8sflow.storage import artifacts as artifacts_module
from k8sflow.storage import s3
from k8sflow.storage.artifacts import ArtifactStore, blob_key
from k8sflow.storage.clones import put_commits, read_commits
from k8sflow.storage.condemned import condemned_prefix
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.garbage import GarbageCollector, KnownRun
from k8sflow.storage.lease import lease_of
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.records import Commit, KeptRecord, OutcomeRecord, RunRecord
from k8sflow.storage.run_store import MARKS, SPINS, RunStore
from k8sflow.storage.s3 import S3Store
from k8sflow.storage.s3_client import RefusedError
from k8sflow.storage.sizes import size_of
from k8sflow.storage.sweep import Collected
from tests import s3server

DAY = 86400.0
OLD_FILE, NEW_FILE = f".tmp-{'0' * 16}", f".tmp-{'1' * 16}"


class Aged:
    """A store whose objects can be made older than they are.

    Args:
        store: The store.
        files: The folder in which its objects are files.
    """

    def __init__(self, store: ObjectStore, files: Path) -> None:
        self.store = store
        self.artifacts = ArtifactStore(store, "F")
        self._files = files

    def age(self, prefix: str, days: float = 2) -> None:
        then = time.time() - days * DAY
        for key in self.store.list_keys(prefix):
            os.utime(self._files / key, (then, then))

    def run(
        self,
        run: str,
        values: Sequence[bytes] = (),
        origin: str | None = None,
        *,
        created: float = 1e9,
        is_ended: bool = True,
        folder: str = "runs",
    ) -> RunStore:
        """Create a run with one task that saves values."""
        found = RunStore(self.store, "F", run, folder)
        record = RunRecord("F", run, "flow.py", {}, Graph("F"), created=created, user="ada", origin_run_id=origin)
        found.create(record)
        found.hold_origin(record)
        refs = {f"value{number}": self.artifacts.save(value, "value") for number, value in enumerate(values)}
        found.commit("start", "0", Commit(0, (), refs, started=created, finished=created))
        if is_ended:
            found.write_run_outcome(OutcomeRecord(Outcome.SUCCEEDED, created + 1))
        return found

    def collect(self, *runs: str, is_dry_run: bool = False) -> Collected:
        """Delete some runs, named by their ids."""
        return self.collect_by(lambda found: [run for run in found if run.run_store.run in runs], is_dry_run=is_dry_run)

    def collect_by(
        self,
        select: Callable[[Sequence[KnownRun]], Sequence[KnownRun]],
        *,
        is_dry_run: bool = False,
        tags_of: Callable[[RunStore, RunRecord], frozenset[str]] = lambda *_: frozenset(),
    ) -> Collected:
        return GarbageCollector(self.store, "F", select, tags_of, is_dry_run=is_dry_run).collect()

    @property
    def runs(self) -> list[str]:
        return list(self.store.list_folders("F/runs/"))

    def blobs(self) -> list[str]:
        return list(self.store.list_keys("F/blobs/"))


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def aged(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aged]:
    """Open a folder, and a bucket of a server whose files are here."""
    if request.param == "folder":
        yield Aged(FolderStore(str(tmp_path / "store")), tmp_path / "store")
        return
    for name, value in {**s3server.KEYS, **s3server.NO_FILES}.items():
        monkeypatch.setenv(name, value)
    with s3server.s3_server(tmp_path) as server:
        store = S3Store(f"s3://{s3server.BUCKET}", endpoint=server.endpoint, region="us-east-1")
        yield Aged(store, tmp_path / s3server.BUCKET)
        store.close()


def _tags(run: RunStore, _: RunRecord) -> frozenset[str]:
    return frozenset(run.read_tags())


def _large(letter: str) -> bytes:
    return letter.encode() * 5000


def test_a_deleted_run_leaves_nothing_and_others_keep_all(aged: Aged) -> None:
    """Its records, entries in the index, and blobs; a blob that another run has too is kept."""
    aged.run("old", [_large("a"), _large("b")])
    kept = aged.run("new", [_large("b"), _large("c")])
    size = sum(each.size for each in aged.store.list_objects("F/runs/old/"))
    aged.age("F/blobs/")
    planned = aged.collect("old", is_dry_run=True)
    assert (planned.runs, planned.blobs, planned.problem) == ({"F/old": size}, 1, "")
    assert len(aged.blobs()) == 3
    assert aged.collect("old") == planned
    assert aged.runs == ["new"]
    assert not [key for key in aged.store.list_keys("F/") if "/old/" in key]
    refs = kept.read_commit("start", "0").artifacts
    assert sorted(aged.blobs()) == sorted(blob_key("F", ref.blob) for ref in refs.values())
    assert [aged.artifacts.load(ref, name) for name, ref in refs.items()] == [_large("b"), _large("c")]
    assert not list(aged.store.list_keys(condemned_prefix("F")))


def test_compressed_blobs_are_kept_and_deleted_as_others(aged: Aged) -> None:
    """The plain blob of the same value is another object."""
    aged.artifacts = ArtifactStore(aged.store, "F", "zstd")
    aged.run("old", [b"a" * 200_000, b"b" * 200_000])
    kept = aged.run("new", [b"b" * 200_000])
    aged.artifacts = ArtifactStore(aged.store, "F")
    plain = aged.run("plain", [b"a" * 200_000])
    aged.age("F/blobs/")
    assert aged.collect("old").blobs == 1
    for run, encoding, value in ((kept, "pickle5+zstd", b"b"), (plain, "pickle", b"a")):
        commit = run.read_commit("start", "0")
        assert commit is not None
        assert commit.artifacts["value0"].encoding == encoding
        assert aged.artifacts.load(commit.artifacts["value0"], "value0") == value * 200_000


def test_a_run_that_another_one_resumes_is_kept(aged: Aged) -> None:
    """And the one that it resumed itself; with the last of them, all can be deleted."""
    aged.run("a", [_large("a")])
    aged.run("b", origin="a")
    aged.run("c", origin="b")
    aged.run("trial", origin="b", folder=SPINS)
    found = aged.collect("a", "b")
    assert found.runs == {}
    assert set(found.needed) == {"F/a", "F/b"}
    assert aged.runs == ["a", "b", "c"]
    assert not [key for key in aged.store.list_keys("F/") if MARKS in key]
    assert set(aged.collect("a", "b", "c", "trial").runs) == {"F/a", "F/b", "F/c", "F/spins/trial"}
    assert aged.runs == []


def test_a_run_that_is_driven_is_kept(aged: Aged) -> None:
    """Also one that has no end, and was just started; when its driver has died, a run in a folder can be deleted."""
    just = aged.run("just", created=time.time(), is_ended=False)
    driven = aged.run("driven", is_ended=False)
    lease = lease_of(driven)
    assert lease.acquire()
    assert set(aged.collect("just", "driven", is_dry_run=True).needed) == {"F/just", "F/driven"}
    assert set(aged.collect("just", "driven").needed) == {"F/just", "F/driven"}
    lease.release()
    just.write_run_outcome(OutcomeRecord(Outcome.SUCCEEDED, time.time()))
    if aged.store.folder is None:  # a file keeps the name of the process that had the lock, which is this one
        assert set(aged.collect("just", "driven", is_dry_run=True).runs) == {"F/just", "F/driven"}
    assert set(aged.collect("just", "driven").runs) == {"F/just", "F/driven"}
    assert list(aged.store.list_keys("F/")) == []


def test_a_run_with_pods_that_has_no_end_is_kept(aged: Aged) -> None:
    """They outlive its driver; in a folder there are none."""
    if aged.store.folder is not None:
        return
    run_store = RunStore(aged.store, "F", "r")
    run_store.create(RunRecord("F", "r", "flow.py", {}, Graph("F"), created=1e9, pods={"start": PodOptions()}))
    assert "`kubernetes kill`" in aged.collect("r").needed["F/r"]
    assert aged.runs == ["r"]


def test_a_trial_task_without_an_end_is_kept_for_a_week(aged: Aged) -> None:
    """With the run whose inputs it has; nobody holds a lease on it."""
    aged.run("a")
    aged.run("trial", origin="a", folder=SPINS, created=time.time() - 6 * DAY, is_ended=False)
    assert set(aged.collect("a", "trial").needed) == {"F/a", "F/spins/trial"}
    aged.run("old", origin="a", folder=SPINS, created=time.time() - 8 * DAY, is_ended=False)
    assert set(aged.collect("old").runs) == {"F/spins/old"}


def test_young_blobs_stay(aged: Aged) -> None:
    """A task may be about to commit a reference to them."""
    aged.artifacts.save(_large("x"), "x")
    aged.run("old", [_large("a")])
    found = aged.collect("old")
    assert (found.blobs, found.young_blobs) == (0, 2)
    assert found.young_bytes > 10_000
    assert len(aged.blobs()) == 2
    aged.age("F/blobs/")
    assert aged.collect().blobs == 2
    assert aged.blobs() == []


def test_a_value_that_is_saved_again_makes_its_blob_young(aged: Aged) -> None:
    ref = aged.artifacts.save(_large("x"), "x")
    aged.age("F/blobs/")
    assert ArtifactStore(aged.store, "F").save(_large("x"), "x") == ref
    assert (aged.collect().blobs, aged.artifacts.load(ref, "x")) == (0, _large("x"))


def test_all_kinds_of_references_count(aged: Aged) -> None:
    """Parameters, the code package, foreach items, and what a failed attempt has kept."""
    saved = [aged.artifacts.save(_large(letter), letter) for letter in "abc"]
    run_store = RunStore(aged.store, "F", "r")
    record = RunRecord("F", "r", "flow.py", {"p": saved[0]}, Graph("F"), package=saved[1].blob)
    run_store.create(record)
    run_store.write_kept("start", "0", 0, KeptRecord({"k": saved[2]}, 1.0))
    aged.artifacts.save(_large("unused"), "unused")
    aged.age("F/blobs/")
    assert aged.collect().blobs == 1
    assert [aged.artifacts.load(ref, "x") for ref in saved] == [_large(letter) for letter in "abc"]


@pytest.mark.parametrize("content", [b"nonsense", b'{"format":99}'])
def test_what_can_not_be_read_may_need_anything(aged: Aged, content: bytes) -> None:
    """Without the record of a run, nothing is deleted; without a commit, no blob."""
    aged.run("old", [_large("a")])
    aged.run("new", [_large("b")])
    aged.age("F/blobs/")
    good = bytes(aged.store.get("F/runs/new/run.json"))
    aged.store.put("F/runs/new/run.json", [content])
    found = aged.collect("old")
    assert found.problem.startswith("nothing is deleted: F/runs/new/run.json")
    assert (aged.runs, len(aged.blobs())) == (["new", "old"], 2)
    aged.store.put("F/runs/new/run.json", [good])
    aged.store.put("F/runs/new/tasks/start/0/commit.json", [content])
    found = aged.collect("old")
    assert "F/runs/new/tasks/start/0/commit.json" in found.problem
    assert (aged.runs, len(aged.blobs())) == (["new"], 2)


def test_a_run_that_is_being_deleted_can_not_be_resumed(aged: Aged) -> None:
    """The gc that marked it may have died in the middle: then the next one deletes the rest, selected or not."""
    aged.run("old")
    for name in ("other.json", "other.started.json"):
        aged.store.put(f"F/runs/old/{MARKS}{name}", [b"{}"])
    with pytest.raises(RunError, match=r"the run F/old is being deleted"):
        aged.run("new", origin="old")
    assert aged.runs == ["old"]
    assert list(aged.store.list_keys("F/index/new/")) == []
    assert aged.collect().runs == {}
    aged.age(f"F/runs/old/{MARKS}")
    assert set(aged.collect().runs) == {"F/old"}
    with pytest.raises(RunError, match=r"the run F/old is being deleted"):
        aged.run("new", origin="old")


def test_the_mark_of_a_gc_that_died_before_it_deleted_anything_is_taken_back(aged: Aged) -> None:
    """The run is whole: a gc that doesn't select it keeps it, and it can be resumed."""
    aged.run("old")
    aged.store.put(f"F/runs/old/{MARKS}other.json", [b"{}"])
    aged.age(f"F/runs/old/{MARKS}")
    assert aged.collect(is_dry_run=True).runs == {}
    assert aged.collect().runs == {}
    aged.run("new", origin="old")
    assert aged.runs == ["new", "old"]


def test_a_gc_whose_mark_was_taken_back_deletes_nothing(aged: Aged, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped for an hour: meanwhile the run may have been resumed."""
    run_store = aged.run("old", [_large("x")])
    aged.age("F/blobs/")
    delete_runs = GarbageCollector._delete_runs
    stops = [True]

    def stopped(self: GarbageCollector, runs: Sequence[RunStore]) -> set[str]:
        if stops and stops.pop():
            aged.age(f"F/runs/old/{MARKS}")
            aged.collect()
            aged.run("new", origin="old")
        return delete_runs(self, runs)

    monkeypatch.setattr(GarbageCollector, "_delete_runs", stopped)
    found = aged.collect("old")
    assert found.runs == {}
    assert "interrupted" in found.needed["F/old"]
    assert aged.runs == ["new", "old"]
    assert list(aged.store.list_keys(f"F/runs/old/{MARKS}")) == []
    commit = run_store.read_commit("start", "0")
    assert commit is not None
    assert aged.artifacts.load(commit.artifacts["value0"], "x") == _large("x")


FOREIGN = (
    "F/runs/2024/model.bin",
    "F/runs/2024/trace/events",
    "F/runs/2024/tasks/load/report.json",
    "F/blobs/ab/thing.txt",
    "F/blobs/ab/" + "cd" * 32,
    "F/index/x/a",
    "F/condemned/z/q",
    "F/data/1/words",
    "F/spins/x",
)


def test_objects_of_other_programs_stay(aged: Aged) -> None:
    """A bucket may have them below the folders that a flow has, too; ``du`` counts only those that are a flow's."""
    for key in FOREIGN:
        aged.store.put(key, [b"precious"])
    aged.age("F/")
    assert aged.collect() == Collected("F")
    assert not GarbageCollector(aged.store, "F", lambda _: [], lambda *_: frozenset()).is_flow
    assert size_of(aged.store, "F").is_empty
    aged.run("old", [_large("x")])
    aged.age("F/")
    assert (aged.collect("old").blobs, size_of(aged.store, "F").total) == (1, 0)
    assert sorted(aged.store.list_keys("F/")) == sorted(FOREIGN)
    aged.store.put("F/data/20260102-000000-000000/x", [b"words"])
    assert size_of(aged.store, "F").data == len(b"preciouswords")


def test_a_record_under_an_unknown_key_protects_what_it_refers_to(aged: Aged) -> None:
    """A later version may write other keys below a run."""
    run = aged.run("new", [_large("x")])
    commit = run.task_key("start", "0", "commit.json")
    aged.store.put(f"{run.prefix}/elsewhere/commit.json", [bytes(aged.store.get(commit))])
    aged.store.delete([commit])
    aged.age("F/")
    assert aged.collect().blobs == 0
    assert len(aged.blobs()) == 1


def test_a_folder_around_the_store_stays(tmp_path: Path) -> None:
    """Even if it is empty, once the last run was deleted: it may be the folder of another user, or a mount point."""
    aged = Aged(FolderStore(str(tmp_path / "disk" / "store")), tmp_path / "disk" / "store")
    aged.run("old")
    assert set(aged.collect("old").runs) == {"F/old"}
    assert list((tmp_path / "disk").iterdir()) == [tmp_path / "disk" / "store"]
    assert list((tmp_path / "disk" / "store").iterdir()) == []


@pytest.mark.parametrize("name", ["outcome.json", "tags/00000001.json"])
def test_a_run_whose_end_or_tags_can_not_be_read_is_kept(aged: Aged, name: str) -> None:
    """It is not known whether the options select it."""
    aged.run("old", [_large("a")])
    aged.store.put(f"F/runs/old/{name}", [b"nonsense"])
    found = aged.collect_by(list, tags_of=_tags)
    assert found.problem.startswith(f"nothing is deleted: F/runs/old/{name}")
    assert aged.runs == ["old"]


def test_a_gc_that_was_slow_deletes_no_blob(aged: Aged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers have stopped waiting for it."""
    aged.run("old", [_large("x")])
    aged.age("F/blobs/")
    with monkeypatch.context() as slow:
        slow.setattr("k8sflow.storage.sweep._MOST_SECONDS_TO_DELETE", -1.0)
        assert aged.collect("old").blobs == 0
    assert len(aged.blobs()) == 1
    assert list(aged.store.list_keys("F/condemned/")) == []
    assert aged.collect().blobs == 1


def test_remains_are_deleted(aged: Aged) -> None:
    """Objects of runs without a record, once they are a day old, and announcements of a gc that has died."""
    aged.run("good")
    aged.store.put("F/runs/lost/tasks/start/0/0/stdout", [b"x"])
    aged.store.put("F/runs/young/outcome.json", [b"x"])
    aged.store.put(f"F/condemned/{'ab' * 32}/dead", [b"x"])
    aged.age("F/runs/lost/")
    aged.age("F/condemned/")
    if aged.store.folder is not None:
        for name in (OLD_FILE, NEW_FILE):
            (aged.store.folder / "F" / "blobs" / "ab").mkdir(parents=True, exist_ok=True)
            (aged.store.folder / "F" / "blobs" / "ab" / name).write_bytes(b"half")
        os.utime(aged.store.folder / "F" / "blobs" / "ab" / OLD_FILE, (1e9, 1e9))
    assert aged.collect().leftovers == (3 if aged.store.folder else 2)
    assert not aged.store.folder or [path.name for path in aged.store.folder.rglob(".tmp-*")] == [NEW_FILE]
    assert aged.runs == ["good", "young"]
    assert list(aged.store.list_keys("F/condemned/")) == []


def test_parts_of_uploads_to_google_whose_writers_died_are_deleted(aged: Aged) -> None:
    """Once they are a day old."""
    aged.run("good", [_large("a")])
    [blob] = aged.blobs()
    old, young = (f"{blob}.part-{number * 32}-00001" for number in "01")
    aged.store.put(old, [b"x"])
    aged.age("F/blobs/")
    aged.store.put(young, [b"x"])
    assert aged.collect(is_dry_run=True).leftovers == 1
    assert aged.collect().leftovers == 1
    assert aged.blobs() == [blob, young]


def test_sizes_are_those_of_all_objects(aged: Aged) -> None:
    run_store = aged.run("r", [_large("a"), _large("b")])
    log = run_store.open_log("start", "0", 0, "stdout")
    log.write(b"x" * 1000)
    log.close()
    aged.store.put(run_store.task_key("start", "0", "checkpoint/w/chunk"), [b"y" * 700])
    aged.store.put("F/data/r/words", [b"z" * 300])
    found = size_of(aged.store, "F")
    assert (found.runs, found.blobs, found.checkpoints, found.data) == (1, 2, 700, 300)
    assert 1000 < found.output < 1100
    assert found.blob_bytes > 10_000
    assert found.total == sum(each.size for each in aged.store.list_objects("F/"))


def _write_run(aged: Aged, name: str, chance: random.Random) -> bool:
    """Write a run as a driver and its tasks do, and check before its end that all that it refers to is there.

    Its values are often those of earlier runs, and it may resume one of them. Returns False if that one was deleted.
    """
    store, artifacts = aged.store, ArtifactStore(aged.store, "F")
    known = [run for run in aged.runs if run[0] == "w"]
    origin = chance.choice(known) if known and chance.random() < 0.5 else None
    run_store = RunStore(store, "F", name)
    before = RunStore(store, "F", str(origin))
    commits = list(read_commits(before, [("start", "0")])) if origin else []
    parameters = {"p": artifacts.save(_large(chance.choice("abcdefgh")), "p")}
    record = RunRecord("F", name, "flow.py", parameters, Graph("F"), created=time.time(), origin_run_id=origin)
    run_store.create(record)
    lease = lease_of(run_store)
    try:
        run_store.hold_origin(record)
    except RunError:
        return False
    assert lease.acquire()
    try:
        if origin:
            assert store.exists(f"{before.prefix}/run.json")
            put_commits(run_store, [("start", "0", found.clone(before.pathspec, ())) for found in commits if found])
        refs = {letter: artifacts.save(_large(letter), letter) for letter in chance.sample("abcdefgh", 3)}
        run_store.commit("work", "0", Commit(0, (), refs))
        for step in ("start", "work"):
            commit = run_store.read_commit(step, "0")
            for ref in {} if commit is None else {**commit.artifacts, **parameters}.values():
                ArtifactStore(store, "F").load(ref, "value")
        run_store.write_run_outcome(OutcomeRecord(Outcome.SUCCEEDED, time.time()))
    finally:
        lease.release()
    return True


def _all_but_two(runs: Sequence[KnownRun]) -> list[KnownRun]:
    return sorted(runs, key=lambda run: run.record.created)[:-2]


def _race(aged: Aged, rounds: int) -> int:
    """Let writers and two collectors race; return how many runs were written."""
    written = 0
    for number in range(rounds):
        aged.age("F/blobs/")
        names = [f"w{number}-{writer}" for writer in range(4)]
        is_over = threading.Event()

        def collect(is_over: threading.Event = is_over) -> None:
            while not is_over.is_set():
                found = aged.collect_by(_all_but_two, tags_of=_tags)
                assert not found.problem

        with ThreadPoolExecutor(6) as pool:
            collectors = [pool.submit(collect) for _ in range(2)]
            writers = [pool.submit(_write_run, aged, name, random.Random(name)) for name in names]
            try:
                written += sum(writer.result() for writer in writers)
            finally:
                is_over.set()
            for collector in collectors:
                collector.result()
        for run in aged.runs:
            for step in ("start", "work"):
                commit = RunStore(aged.store, "F", run).read_commit(step, "0")
                for ref in {} if commit is None else commit.artifacts.values():
                    ArtifactStore(aged.store, "F").load(ref, "value")
    return written


def test_runs_that_are_written_meanwhile_lose_nothing(aged: Aged) -> None:
    """Two collectors at once, while runs are written, of the same values as those that are deleted, and resumed."""
    assert _race(aged, 20 if aged.store.folder else 6) > 0
    aged.age("F/")
    aged.collect_by(lambda runs: runs)
    assert list(aged.store.list_keys("F/")) == []


@pytest.mark.parametrize("trusts", [True, False])
def test_a_writer_that_trusts_an_old_blob_would_lose_its_value(
    aged: Aged, monkeypatch: pytest.MonkeyPatch, *, trusts: bool
) -> None:
    """A gc comes between its save and its commit; writers that write an old blob again lose nothing."""
    if trusts:
        monkeypatch.setattr(artifacts_module, "REUSED_SECONDS", float("inf"))
    aged.run("old", [_large("x")])
    aged.age("F/blobs/")
    ref = aged.artifacts.save(_large("x"), "value")
    assert set(aged.collect("old").runs) == {"F/old"}
    aged.run("new").commit("work", "0", Commit(0, (), {"value": ref}, started=1e9, finished=1e9))
    assert aged.store.exists(blob_key("F", ref.blob)) is not trusts


@pytest.fixture(params=["plain", "boto3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aged]:
    """Open a bucket of a server whose files are here, by each client."""
    for name, value in {**s3server.KEYS, **s3server.NO_FILES}.items():
        monkeypatch.setenv(name, value)
    if request.param == "boto3":
        monkeypatch.setattr(s3, "plain_client", lambda *_: None)
    with s3server.s3_server(tmp_path) as server:
        store = S3Store(f"s3://{s3server.BUCKET}/p", endpoint=server.endpoint, region="us-east-1")
        yield Aged(store, tmp_path / s3server.BUCKET)
        store.close()


@pytest.mark.s3
def test_uploads_whose_writers_died_are_deleted(bucket: Aged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of k8sflow's objects that are a day old; not those of other programs, and of writers that may be alive."""
    run = bucket.run("r", [_large("a")])
    client = bucket.store._client  # type: ignore[attr-defined]
    blobs = [f"p/{blob_key('F', letter * 64)}" for letter in "abc"]
    others = ["p/F/data/r/users", "p/G/blobs/aa/x"]
    started = {key: client.begin_upload(key) for key in [*blobs, *others]}
    for key, upload in started.items():
        client.upload_part(key, upload, 1, [bytes(6 << 20)])
        client.upload_part(key, upload, 2, [b"xyz"])
    assert (bucket.collect().uploads, bucket.collect().upload_bytes) == (0, 0)
    listed = type(client).uploads

    def older(self: object, prefix: str, token: str = "") -> object:
        found, following = listed(client, prefix, token)
        return [replace(each, age=each.age + (2 * DAY if each.key != blobs[2] else 0)) for each in found], following

    monkeypatch.setattr(type(client), "uploads", older)
    planned = bucket.collect(is_dry_run=True)
    assert (planned.uploads, planned.upload_bytes) == (2, 2 * ((6 << 20) + 3))
    assert bucket.collect() == planned
    assert bucket.collect().uploads == 0
    left, token = listed(client, "p/", "")
    assert (sorted(each.key for each in left), token) == (sorted([blobs[2], *others]), None)
    assert all(-1 <= each.age < 3600 for each in left)  # the server's Date is in whole seconds
    assert run.read_commit("start", "0") is not None


@pytest.mark.s3
def test_a_policy_may_forbid_to_list_uploads(bucket: Aged, monkeypatch: pytest.MonkeyPatch) -> None:
    """All else is deleted nevertheless, and the gc says what it didn't look at."""
    bucket.run("old", [_large("a")])

    def denied(*_: object) -> object:
        raise RefusedError("AccessDenied", 403, "")

    monkeypatch.setattr(type(bucket.store._client), "uploads", denied)  # type: ignore[attr-defined]
    found = bucket.collect("old")
    assert list(found.runs) == ["F/old"]
    assert "s3:ListBucketMultipartUploads" in found.needed["unfinished uploads"]


@pytest.mark.s3
@pytest.mark.parametrize(("code", "status"), [("MethodNotAllowed", 405), ("NotImplemented", 501)])
def test_a_server_may_not_list_uploads(bucket: Aged, monkeypatch: pytest.MonkeyPatch, code: str, status: int) -> None:
    bucket.run("old", [_large("a")])

    def unknown(*_: object) -> object:
        raise RefusedError(code, status, "")

    monkeypatch.setattr(type(bucket.store._client), "uploads", unknown)  # type: ignore[attr-defined]
    found = bucket.collect("old")
    assert list(found.runs) == ["F/old"]
    assert found.needed["unfinished uploads"].startswith("the server doesn't list them")


@pytest.mark.s3
def test_uploads_are_listed_in_pages(bucket: Aged, monkeypatch: pytest.MonkeyPatch) -> None:
    client = bucket.store._client  # type: ignore[attr-defined]
    keys = [f"p/{blob_key('F', f'{number:064x}')}" for number in range(1003)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(client.begin_upload, keys))
    first, token = client.uploads("p/F/")
    assert token is not None
    second, end = client.uploads("p/F/", token)
    assert end is None
    assert sorted(each.key for each in (*first, *second)) == sorted(keys)
