"""The guarantees of every object store: whole objects, one winner, ordered listings."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8sflow.errors import ObjectNotFoundError, StorageError
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.objects import ObjectStore
from k8sflow.storage.open_store import open_store
from tests.support import environment, in_python, wait_for

ODD_KEYS = [
    "F/runs/ünïcødé/日本語/🦆",
    "F/a b/c+d&e=f%20g?h#i",
    "F/quote'\"/back\\slash",
    "F/tab\tin/new\nline",
    "F/" + "x" * 200,
    "F/dots.../..hidden/.also",
]


def test_objects_have_sizes_and_ages(store: ObjectStore) -> None:
    """The age is by the store's clock, and that of the last write; an object of another size counts as missing."""
    store.put("a/b/1", [b"xyz"])
    store.put("a/c", [b"x" * 10])
    listed = list(store.list_objects("a/"))
    assert [(each.key, each.size) for each in listed] == [("a/b/1", 3), ("a/c", 10)]
    ages = [each.age for each in listed] + [store.age("a/b/1", 3)]
    assert all(age is not None and -5 < age < 600 for age in ages)
    assert store.age("a/b/1", 4) is None
    assert store.age("a/b", 3) is None
    assert list(store.list_objects("none/")) == []


def test_objects_that_another_process_has_deleted_may_be_deleted(store: ObjectStore) -> None:
    store.put("a/1", [b"x"])
    store.delete(["a/0", "a/1", "a/2"])
    store.delete(["a/1"])
    assert list(store.list_keys("a/")) == []


def test_an_object_is_read_as_it_was_written(store: ObjectStore) -> None:
    """The parts are joined."""
    store.put("F/a", [b"one", bytearray(b"two"), memoryview(b"three")])
    assert bytes(store.get("F/a")) == b"onetwothree"


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 70_000_001], ids=str)
def test_objects_of_every_size_come_back(store: ObjectStore, size: int) -> None:
    """Some sizes are mapped, or read and written in parallel parts."""
    data = bytes(range(256)) * (size // 256 + 1)
    store.put("F/a", [memoryview(data)[: size // 3], memoryview(data)[size // 3 : size]])
    assert memoryview(store.get("F/a")) == memoryview(data)[:size]


def test_changing_read_bytes_does_not_change_the_object(store: ObjectStore) -> None:
    """A task that writes into an array it loaded changes its own memory."""
    store.put("F/a", [bytes(100_000)])
    memoryview(store.get("F/a"))[0] = 7
    assert memoryview(store.get("F/a"))[0] == 0


def test_an_object_is_replaced_as_a_whole(store: ObjectStore) -> None:
    """Nothing remains of the longer object before it."""
    store.put("F/a", [b"x" * 100_000])
    store.put("F/a", [b"short"])
    assert bytes(store.get("F/a")) == b"short"


def test_a_missing_object_has_its_own_error(store: ObjectStore) -> None:
    """Callers often expect it."""
    with pytest.raises(ObjectNotFoundError, match="F/nothing"):
        store.get("F/nothing")
    assert not store.exists("F/nothing")


def test_a_folder_is_not_an_object(store: ObjectStore) -> None:
    """A prefix of keys is not a key."""
    store.put("F/a/b", [b"x"])
    assert not store.exists("F/a")
    with pytest.raises(ObjectNotFoundError):
        store.get("F/a")


def test_deleted_objects_are_missing(store: ObjectStore) -> None:
    """Others stay; what doesn't exist is ignored, and so is an empty list."""
    for key in ("F/a/b/c", "F/a/d", "F/e"):
        store.put(key, [b"x"])
    store.delete(["F/a/b/c", "F/e", "F/nothing", "F/a/d/e"])
    store.delete([])
    assert list(store.list_keys("F/")) == ["F/a/d"]
    store.put("F/a/b/c", [b"again"])
    assert bytes(store.get("F/a/b/c")) == b"again"


def test_put_new_writes_once(store: ObjectStore) -> None:
    """The second writer gets False, and the first one's content stays (I3)."""
    assert store.put_new("F/a", b"first")
    assert not store.put_new("F/a", b"second")
    assert bytes(store.get("F/a")) == b"first"


def test_one_of_twenty_racing_threads_wins(store: ObjectStore) -> None:
    """The object has the winner's content."""
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        won = list(pool.map(lambda i: store.put_new("F/commit", b"%d" % i * 1000), range(20)))
    assert won.count(True) == 1
    assert bytes(store.get("F/commit")) == b"%d" % won.index(True) * 1000


RACER = """
    import sys
    from k8sflow.storage.open_store import open_store
    url, endpoint, me = sys.argv[1:]
    store = open_store(url, endpoint=endpoint or None, region="us-east-1")
    print("ready", flush=True)
    sys.stdin.readline()
    print(store.put_new("F/commit", me.encode() * 1000))
"""


@pytest.mark.slow
def test_one_of_twenty_racing_processes_wins(shared_store: ObjectStore) -> None:
    """Each process has its own store, as racing pods and drivers do."""
    keys = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if name in os.environ}
    endpoint = getattr(shared_store, "endpoint", None) or ""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(RACER), shared_store.url, endpoint, chr(ord("a") + i)],
            env=environment(**keys),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(20)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [racer.communicate()[0].strip() for racer in racers]
    assert sorted(won) == ["False"] * 19 + ["True"]
    assert bytes(shared_store.get("F/commit")) == chr(ord("a") + won.index("True")).encode() * 1000


def test_keys_are_listed_in_the_order_of_their_bytes(store: ObjectStore) -> None:
    """A hyphen sorts before a slash, and upper case before lower case, at any depth."""
    keys = ["F/a/z", "F/a-b/c", "F/a.b", "F/B/x", "F/a/b/c/d", "F/é", "F/aa/1", "G/other"]
    for key in keys:
        store.put(key, [b"x"])
    assert list(store.list_keys("F/")) == sorted(k for k in keys if k.startswith("F/"))
    assert list(store.list_keys("nothing/")) == []


def test_folders_are_the_names_that_have_keys_below_them(store: ObjectStore) -> None:
    """Names of objects are not listed, and each folder is listed once."""
    for key in ("F/runs/1/run.json", "F/runs/1/tasks/a", "F/runs/2/run.json", "F/runs/file", "F/runs-/x"):
        store.put(key, [b"x"])
    assert list(store.list_folders("F/runs/")) == ["1", "2"]
    assert list(store.list_folders("")) == ["F"]
    assert list(store.list_folders("F/none/")) == []


@pytest.mark.parametrize("key", ODD_KEYS, ids=range(len(ODD_KEYS)))
def test_odd_names_work(store: ObjectStore, key: str) -> None:
    """They can be written, read and listed."""
    if "\n" in key and not isinstance(store, FolderStore):
        key = key.replace("\n", "")  # XML 1.0 lets a server list most control characters only in a lossy way
    if "\\" in key and store.url.startswith("az://"):
        with pytest.raises(StorageError, match="Azure takes a backslash in a name for a slash"):
            store.put_new(key, b"x")
        return
    assert store.put_new(key, b"x")
    assert store.exists(key)
    assert bytes(store.get(key)) == b"x"
    assert list(store.list_keys("F/")) == [key]


def test_a_listing_has_all_pages(store: ObjectStore) -> None:
    """S3 returns 1000 keys at a time."""
    keys = [f"F/{i:04}/x" for i in range(1100)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.put(key, [b"x"]), keys))
    assert list(store.list_keys("F/")) == keys
    assert list(store.list_folders("F/")) == [f"{i:04}" for i in range(1100)]


def test_a_log_is_whole_when_it_is_closed(store: ObjectStore) -> None:
    """The pieces are in order; before the first one, there is no object."""
    log = store.open_log("F/log")
    assert not store.exists("F/log")
    for i in range(100):
        log.write(b"line %d\n" % i)
    log.close()
    assert bytes(store.get("F/log")) == b"".join(b"line %d\n" % i for i in range(100))


def test_a_log_without_output_writes_nothing(store: ObjectStore) -> None:
    """Most tasks write nothing to stderr."""
    store.open_log("F/log").close()
    assert not store.exists("F/log")


def test_a_store_can_be_opened_by_its_url(shared_store: ObjectStore) -> None:
    """Pods and other processes get the URL."""
    shared_store.put("F/a", [b"x"])
    again = open_store(shared_store.url, endpoint=getattr(shared_store, "endpoint", None), region="us-east-1")
    assert bytes(again.get("F/a")) == b"x"
    assert bytes(shared_store.after_fork().get("F/a")) == b"x"
    again.close()


# ---------------------------------------------------------------------- a folder on a bad day


def _limited(folder: Path, call: str) -> subprocess.CompletedProcess[str]:
    """Calls a method of a store in a process whose files can't grow beyond 100,000 bytes, as on a full disk."""
    return in_python(
        """
        import resource, signal, sys
        from k8sflow.errors import StorageError
        from k8sflow.storage.folder import FolderStore
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        store = FolderStore(sys.argv[1])
        try:
            eval(sys.argv[2])
        except StorageError as error:
            print("refused:", error)
        """,
        str(folder),
        call,
    )


@pytest.mark.parametrize(
    "call",
    [
        "store.put('F/a', [bytes(150_000)])",
        "store.put('F/a', [bytes(50_000)] * 3)",
        "store.put_new('F/a', bytes(150_000))",
    ],
)
def test_a_full_disk_is_reported_and_leaves_no_partial_object(tmp_path: Path, call: str) -> None:
    """write(2) writes what fits and returns its length; only the next call fails."""
    done = _limited(tmp_path, call)
    assert "refused:" in done.stdout, done.stderr
    assert "can't be written" in done.stdout
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_full_disk_is_reported_by_a_log(tmp_path: Path) -> None:
    """The bytes that fit are kept, and the rest raises an error."""
    assert "refused:" in _limited(tmp_path, "store.open_log('F/log').write(bytes(150_000))").stdout


WRITER = """
    import sys
    from k8sflow.storage.folder import FolderStore
    store = FolderStore(sys.argv[1])
    print("ready", flush=True)
    while True:
        store.put("F/a", [bytes(10_000_000)])
        store.put_new("F/b", bytes(10_000_000))
"""


def test_a_writer_killed_in_the_middle_leaves_whole_objects(tmp_path: Path) -> None:
    """kill -9 leaves at most a file that readers skip."""
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)],
            env=environment(),
            stdout=subprocess.PIPE,
        )
        wait_for(lambda: list(tmp_path.rglob(".tmp-*")))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        store = FolderStore(str(tmp_path))
        assert set(store.list_keys("F/")) <= {"F/a", "F/b"}
        for key in store.list_keys("F/"):
            assert len(store.get(key)) == 10_000_000


def test_a_run_without_a_finished_object_is_not_listed(tmp_path: Path) -> None:
    """A crash before the first object was complete leaves folders and an unfinished file."""
    store = FolderStore(str(tmp_path))
    (tmp_path / "F/runs/dead/deeper").mkdir(parents=True)
    (tmp_path / "F/runs/dead/.tmp-00").write_bytes(b"half")
    store.put("F/runs/alive/run.json", [b"{}"])
    assert list(store.list_folders("F/runs/")) == ["alive"]


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody but root can change; root's tests run as another user."""
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "file").write_bytes(b"x")
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


def test_an_unwritable_folder_is_reported(unwritable: Path) -> None:
    """The error names the setting for another folder."""
    done = in_python(
        """
        import os, sys
        from k8sflow.errors import StorageError
        from k8sflow.storage.folder import FolderStore
        if os.getuid() == 0:
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try:
            FolderStore(sys.argv[1]).put("F/a", [b"x"])
        except StorageError as error:
            print(error.summary, error.advice)
        """,
        str(_reachable(unwritable)),
    )
    assert "Permission denied" in done.stdout, done.stderr
    assert "K8SFLOW_ROOT" in done.stdout


def _reachable(path: Path) -> Path:
    """The path, after other users were allowed to enter every folder above it."""
    for folder in path.parents:
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o001)
    return path


def test_an_unreadable_folder_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    """Unreadable commits must not be taken for missing ones (I5)."""
    store = FolderStore(str(tmp_path / "store"))
    store.put("F/runs/1/commit.json", [b"x"])
    locked = tmp_path / "store/F/runs/1"
    locked.chmod(0)
    done = in_python(
        """
        import os, sys
        from k8sflow.errors import StorageError
        from k8sflow.storage.folder import FolderStore
        if os.getuid() == 0:
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
        store = FolderStore(sys.argv[1])
        for call in (lambda: list(store.list_keys("F/")), lambda: store.exists("F/runs/1/commit.json")):
            try:
                print("found", call())
            except StorageError as error:
                print("refused", error.summary)
        """,
        str(_reachable(tmp_path / "store")),
    )
    locked.chmod(0o755)
    assert done.stdout.count("refused") == 2, done.stdout + done.stderr


def test_a_file_instead_of_a_folder_is_reported(tmp_path: Path) -> None:
    """K8SFLOW_ROOT may point anywhere."""
    (tmp_path / "file").write_text("x")
    store = FolderStore(str(tmp_path / "file"))
    with pytest.raises(StorageError, match="Not a directory"):
        store.put("F/a", [b"x"])
    assert not store.exists("F/a")
    assert list(store.list_folders("F/runs/")) == []


def test_an_empty_file_after_a_power_cut_is_not_an_object(folder_store: FolderStore) -> None:
    """Its name reached the disk before its content, so it counts as missing and may be written again."""
    for key in ("F/runs/r/tasks/a/0/commit.json", "F/blobs/ab/abc"):
        path = folder_store.root / key
        path.parent.mkdir(parents=True)
        path.touch()
        with pytest.raises(ObjectNotFoundError):
            folder_store.get(key)
        assert not folder_store.exists(key)
    assert list(folder_store.list_keys("F/")) == []
    assert list(folder_store.list_folders("F/runs/")) == []
    assert folder_store.put_new("F/runs/r/tasks/a/0/commit.json", b"new")
    assert not folder_store.put_new("F/runs/r/tasks/a/0/commit.json", b"newer")
    assert bytes(folder_store.get("F/runs/r/tasks/a/0/commit.json")) == b"new"


def test_exists_compares_the_size(store: ObjectStore) -> None:
    """A power cut may have truncated a file."""
    store.put("F/x", [b"12345"])
    assert store.exists("F/x")
    assert store.exists("F/x", 5)
    assert not store.exists("F/x", 4)
