"""The temporary files of an ``S3``: as long as its block, and not longer than its process."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from k8sflow import S3, parallel_map
from k8sflow.errors import S3ClosedError, S3Error
from k8sflow.s3 import folder, urls
from tests.support import in_python

pytestmark = pytest.mark.s3


def _folders(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.name.startswith("k8sflow-s3-")]


def test_files_are_deleted_at_the_end_of_the_block(root: str, tmp_path: Path) -> None:
    with S3(s3root=root, tmproot=tmp_path) as s3:
        assert _folders(tmp_path) == []
        s3.put("x", "X")
        assert s3.list_paths()[0].exists
        assert _folders(tmp_path) == []
        found = s3.get("x")
        assert found.path is not None
        assert Path(found.path).parent.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    for use in (lambda: found.path, lambda: found.blob, lambda: found.text):
        with pytest.raises(S3ClosedError, match=r"local copy of s3://.*/x was deleted"):
            use()
    assert found.size == 1
    assert repr(found)


def test_a_closed_s3_says_so(root: str) -> None:
    s3 = S3(s3root=root)
    s3.put("x", "X")  # also without a block
    assert s3.get("x").text == "X"
    s3.close()
    s3.close()
    for call in (
        lambda: s3.get("x"),
        lambda: s3.get_many(["x", "x"]),
        s3.list_paths,
        lambda: s3.info("x"),
        lambda: s3.put("x", ""),
        s3.__enter__,
    ):
        with pytest.raises(S3ClosedError, match="this S3 is closed"):
            call()
    assert "closed" in repr(s3)


def test_files_of_an_s3_that_nobody_has_any_more_are_deleted(root: str, tmp_path: Path) -> None:
    s3 = S3(s3root=root, tmproot=tmp_path)
    s3.put("x", "X")
    assert s3.get("x").text == "X"
    del s3
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    found = S3(s3root=root, tmproot=tmp_path).get("x")
    gc.collect()
    assert found.text == "X"
    del found
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_folders_of_other_machines_are_left_alone(root: str, tmp_path: Path) -> None:
    """Their locks may not be seen; nor are folders without a lock taken for abandoned ones."""
    (tmp_path / "k8sflow-s3-elsewhere-abc").mkdir()
    (tmp_path / "k8sflow-s3-elsewhere-abc/.lock").touch()
    (tmp_path / f"{folder._PREFIX}abc").mkdir()
    with S3(s3root=root, tmproot=tmp_path) as s3:
        s3.put("x", "X")
        assert s3.get("x").text == "X"
    assert sorted(_folders(tmp_path)) == sorted(["k8sflow-s3-elsewhere-abc", f"{folder._PREFIX}abc"])


def _connection() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "K8SFLOW_"))}


KILLED = """
import sys, time
from k8sflow import S3
s3 = S3(tmproot=sys.argv[2]).__enter__()
s3.put(sys.argv[1], "X")
print(s3.get(sys.argv[1]).path, flush=True)
time.sleep(600)
"""


def test_files_of_a_killed_process_are_deleted_by_the_next_one(root: str, tmp_path: Path) -> None:
    """Those of a process that runs stay."""
    words = [sys.executable, "-c", KILLED, f"{root}/x", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().decode().strip())
        with S3(tmproot=tmp_path) as s3:
            assert s3.get(f"{root}/x").text == "X"
            assert path.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert path.exists()
    with S3(tmproot=tmp_path) as s3:
        assert s3.get(f"{root}/x").text == "X"
        assert not path.parent.exists()
    assert list(tmp_path.iterdir()) == []


def test_files_are_deleted_when_a_process_ends(root: str, tmp_path: Path) -> None:
    code = KILLED.replace("time.sleep(600)", "raise SystemExit(3)")
    done = in_python(code, f"{root}/x", str(tmp_path), **_connection())
    assert done.returncode == 3, done.stderr
    assert done.stdout.strip().endswith("-x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", [None, "threads"])
def test_workers_of_parallel_map_use_the_s3_around_them(root: str, tmp_path: Path, backend: str | None) -> None:
    """Its files are the parent's, who may use them after the workers have ended."""
    with S3(s3root=root, tmproot=tmp_path) as s3:
        s3.put_many((str(number), str(number)) for number in range(60))

        def copied(number: int) -> object:
            s3.put(f"copy/{number:02}", s3.get(str(number)).blob)
            return s3.get(f"copy/{number:02}")

        found = parallel_map(copied, range(60), max_parallel=2, backend=backend)
        assert [each.text for each in found] == [str(number) for number in range(60)]
        assert [each.text for each in s3.get_recursive(["copy"])] == [str(number) for number in range(60)]
    assert list(tmp_path.iterdir()) == []


def test_a_fork_has_connections_of_its_own(root: str) -> None:
    """Two processes on one connection would read each other's answers."""
    with S3(s3root=root) as s3:
        s3.put("x", "X")
        place = urls.parsed(root)
        of_parent = s3._session.bucket(place)
        assert not any(parallel_map(lambda _: s3._session.bucket(place) is of_parent, range(2), max_parallel=2))
        assert s3._session.bucket(place) is of_parent


def test_workers_of_parallel_map_have_an_s3_of_their_own(root: str, tmp_path: Path) -> None:
    def written(number: int) -> tuple[int, str | None]:
        with S3(s3root=root, tmproot=tmp_path) as s3:
            s3.put_many([(f"{number}/{each}", str(each)) for each in range(20)])
            return os.getpid(), "".join(each.text or "" for each in s3.get_recursive([str(number)]))

    found = parallel_map(written, range(4), max_parallel=2)
    assert os.getpid() not in {pid for pid, _ in found}
    assert {len(text or "") for _, text in found} == {30}
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_reported(root: str, tmp_path: Path) -> None:
    with S3(tmproot=tmp_path / "nowhere") as s3:
        s3.put(f"{root}/x", "X")
        with pytest.raises(S3Error, match=r"can't create a folder for temporary files in .*nowhere: No such file"):
            s3.get(f"{root}/x")


def test_a_file_that_cannot_be_written_is_reported_and_deleted(root: str, tmp_path: Path) -> None:
    """The error has the object, its size, the folder and the system's reason."""
    with S3() as s3:
        s3.put(f"{root}/x", bytes(100_000))
    code = """
import os, resource, sys
from k8sflow import S3, S3Error
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
with S3(tmproot=sys.argv[2]) as s3:
    try:
        s3.get(sys.argv[1])
    except S3Error as error:
        print(error.summary)
    print(os.listdir(os.path.join(sys.argv[2], os.listdir(sys.argv[2])[0])))
"""
    done = in_python(code, f"{root}/x", str(tmp_path), **_connection())
    message, files = done.stdout.splitlines()
    assert message.startswith(f"{root}/x, of 100000 bytes, can't be written to {tmp_path}"), done.stderr
    assert message.endswith(": File too large.")
    assert files == "['.lock']"
