"""``S3``: what is written is read again, with everything that Metaflow's tells about it."""

from __future__ import annotations

import io
import pickle
import time
from pathlib import Path

import pytest

from k8sflow import S3
from k8sflow.errors import ObjectNotFoundError, S3Error, S3RangeError
from k8sflow.s3 import RangeInfo, S3GetObject, S3Object, S3PutObject, download, upload
from k8sflow.s3_options import S3Options
from k8sflow.storage.s3_boto import BotoClient
from tests import s3server
from tests.cluster.s3 import S3Server
from tests.support import in_python

pytestmark = pytest.mark.s3
TREE = ["a/0.txt", "a/b/1.txt", "a/c/2.txt", "a/d/e/3.txt", "ab", "f/4.txt"]


def _summary(found: list[S3Object]) -> list[tuple[str, bool, int | None]]:
    return [(each.key, each.exists, each.size) for each in found]


def test_an_object_has_its_bytes_and_everything_that_is_known_about_it(root: str) -> None:
    before = int(time.time())
    metadata = {"Author": "Zoë", "n": 3, "parts": [1, {"x": None}]}
    with S3(s3root=root) as s3:
        assert s3.put("some/naïve key?#.csv", "é", content_type="text/csv", metadata=metadata) == (
            f"{root}/some/naïve key?#.csv"
        )
        found = s3.get("some/naïve key?#.csv")
        assert (found.key, found.url, found.prefix) == (
            "some/naïve key?#.csv",
            f"{root}/some/naïve key?#.csv",
            root,
        )
        assert (found.exists, found.downloaded, found.has_info, found.size) == (True, True, True, 2)
        assert (found.blob, found.text) == ("é".encode(), "é")
        assert found.path is not None
        assert found.path.endswith(".csv")
        assert (found.content_type, found.metadata, found.encryption) == ("text/csv", metadata, None)
        assert found.range_info == RangeInfo(2, 0, 2)
        assert found.last_modified is not None
        assert before - 2 <= found.last_modified <= time.time() + 2
        assert repr(found) == f"<S3Object {root}/some/naïve key?#.csv (2 bytes, local)>"
        known = s3.info("some/naïve key?#.csv")
        assert (known.size, known.metadata, known.content_type, known.exists) == (2, metadata, "text/csv", True)
        assert (known.downloaded, known.path, known.blob, known.text, known.range_info) == (
            False,
            None,
            None,
            None,
            None,
        )
        bare = s3.get("some/naïve key?#.csv", return_info=False)
        assert (bare.has_info, bare.metadata, bare.content_type, bare.range_info) == (False, None, None, None)
        assert bare.text == "é"


def test_every_kind_of_value_is_written(root: str) -> None:
    values: list[tuple[object, bytes]] = [
        (b"", b""),
        (b"bytes", b"bytes"),
        ("text", b"text"),
        (bytearray(b"array"), b"array"),
        (memoryview(b"view"), b"view"),
        (io.BytesIO(b"file"), b"file"),
    ]
    with S3(s3root=root) as s3:
        s3.put_many((str(number), value) for number, (value, _) in enumerate(values))
        found = s3.get_many(str(number) for number in range(len(values)))
        assert [each.blob for each in found] == [expected for _, expected in values]


def test_an_open_file_is_written_from_its_position_on(root: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    with S3(s3root=root) as s3, (tmp_path / "f").open("rb") as file:
        file.seek(4)
        s3.put("x", file)
        assert s3.get("x").blob == b"456789"


def test_many_objects_come_in_the_order_of_their_keys(root: str) -> None:
    keys = [f"k{number}" for number in range(50)]
    with S3(s3root=root) as s3:
        assert s3.put_many((key, key) for key in keys) == [(key, f"{root}/{key}") for key in keys]
        asked = [*reversed(keys), "k7"]
        assert [each.text for each in s3.get_many(asked)] == asked
        assert [each.key for each in s3.info_many(asked)] == asked
        assert s3.get_many([]) == s3.info_many([]) == s3.put_many([]) == []


def test_listings_are_those_of_folders(root: str) -> None:
    """``a`` is ``a/…`` and not ``ab``; keys are relative to the listed prefix."""
    with S3(s3root=root) as s3:
        s3.put_many((key, key) for key in TREE)
        assert _summary(s3.list_paths(["a", "f/"])) == [
            ("0.txt", True, 7),
            ("b", False, None),
            ("c", False, None),
            ("d", False, None),
            ("4.txt", True, 7),
        ]
        assert [each.url for each in s3.list_paths(["a"])][1] == f"{root}/a/b/"
        assert _summary(s3.list_paths()) == [("a", False, None), ("ab", True, 2), ("f", False, None)]
        assert [each.key for each in s3.list_recursive(["a"])] == ["0.txt", "b/1.txt", "c/2.txt", "d/e/3.txt"]
        assert [each.key for each in s3.list_recursive()] == TREE
        assert s3.list_recursive(["nothing", "a/0"]) == []
        assert [each.text for each in s3.get_recursive(["a/b", "f"])] == ["a/b/1.txt", "f/4.txt"]
        assert [(each.key, each.text) for each in s3.get_all()] == [(key, key) for key in TREE]
        assert [each.has_info for each in s3.get_all(return_info=True)] == [True] * len(TREE)
    with S3() as s3:
        assert [each.url for each in s3.list_paths([f"{root}/f"])] == [f"{root}/f/4.txt"]


def test_a_listing_has_more_than_a_page(root: str) -> None:
    with S3(s3root=root) as s3:
        s3.put_many((f"{number:04}", "") for number in range(1003))
        assert [each.key for each in s3.list_recursive()] == [f"{number:04}" for number in range(1003)]


def test_a_missing_object_is_an_error_or_an_object_that_does_not_exist(root: str) -> None:
    with S3(s3root=root) as s3:
        s3.put("here", "x")
        for call in (s3.get, s3.info, lambda key: s3.get_many(["here", key]), lambda key: s3.info_many([key, "here"])):
            with pytest.raises(ObjectNotFoundError, match=f"there is no {root}/nowhere"):
                call("nowhere")  # type: ignore[operator]
        assert [each.exists for each in s3.get_many(["here", "nowhere"], return_missing=True)] == [True, False]
        assert [each.exists for each in s3.info_many(["nowhere", "here"], return_missing=True)] == [False, True]
        found = s3.get("nowhere", return_missing=True)
        assert (found.key, found.size, found.path, found.blob, found.has_info) == ("nowhere", None, None, None, False)
        assert "does not exist" in repr(found)


def test_ranges(root: str) -> None:
    with S3(s3root=root) as s3:
        s3.put("x", "0123456789")
        for wanted, text, start in [
            ((2, 3), "234", 2),
            ((8, 100), "89", 8),
            ((4, None), "456789", 4),
            ((4, -1), "456789", 4),
            ((-3, None), "789", 7),
            ((None, None), "0123456789", 0),
        ]:
            found = s3.get(S3GetObject("x", *wanted))
            assert (found.text, found.size) == (text, len(text))
            assert found.range_info == RangeInfo(10, start, len(text))
        assert [each.text for each in s3.get_many([S3GetObject("x", 0, 1), S3GetObject("x", 9, 1)])] == ["0", "9"]
        with pytest.raises(S3RangeError, match="none of the bytes"):
            s3.get(S3GetObject("x", 10, 1))
        for impossible in ((1, 0), (-2, 1)):
            with pytest.raises(S3RangeError, match="can't be asked for"):
                s3.get(S3GetObject("x", *impossible))
        assert not s3.get(S3GetObject("nowhere", 0, 1), return_missing=True).exists


def test_an_object_that_exists_is_left_as_it_is(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that another writer creates after the look for it."""
    with S3(s3root=root) as s3:
        s3.put("x", "first")
        assert s3.put("x", "second", overwrite=False) == f"{root}/x"
        assert s3.put_many([("x", "third"), ("y", "new")], overwrite=False) == [("y", f"{root}/y")]
        monkeypatch.setattr(upload, "_exists", lambda *_: False)
        assert s3.put_many([("x", "fourth"), ("z", "new")], overwrite=False) == [("z", f"{root}/z")]
        assert [each.text for each in s3.get_many(["x", "y", "z"])] == ["first", "new", "new"]
        s3.put("x", "fifth")
        assert s3.get("x").text == "fifth"


def test_files_are_written_with_types_and_metadata(root: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"A")
    with S3(s3root=root) as s3:
        wanted = S3PutObject("b", path=str(tmp_path / "a"), content_type="x/y", metadata={"k": "v"})
        assert s3.put_files([("a", tmp_path / "a"), wanted]) == [("a", f"{root}/a"), ("b", f"{root}/b")]
        found = s3.get_many(["a", "b"])
        assert [each.blob for each in found] == [b"A", b"A"]
        assert (found[1].content_type, found[1].metadata, found[0].metadata) == ("x/y", {"k": "v"}, None)
        assert s3.put_many([S3PutObject("c", "C", metadata={"k": 1})]) == [("c", f"{root}/c")]
        assert s3.info("c").metadata == {"k": 1}
        with pytest.raises(S3Error, match=r"the file '.*nowhere' for 'd' can't be read: No such file"):
            s3.put_files([("d", tmp_path / "nowhere")])
        with pytest.raises(S3Error, match="'d' has no path"):
            s3.put_files([S3PutObject("d", "value")])


def test_metadata_of_other_programs_is_read(root: str, s3_server: S3Server) -> None:
    client = BotoClient(s3server.BUCKET, s3_server.endpoint, "us-east-1", 1, S3Options())
    key = f"{root.rpartition('/')[2]}/other"
    client.write(key, b"x", headers={"x-amz-meta-owner": "somebody", "content-type": "a/b"})
    with S3(s3root=root) as s3:
        found = s3.get("other")
        assert (found.metadata, found.content_type) == ({"owner": "somebody"}, "a/b")


def test_large_objects_are_transferred_in_parts(root: str, tmp_path: Path) -> None:
    """From a file and from memory; also a large range of one, and only if it doesn't exist."""
    content = bytes(range(256)) * 4096 * 70 + b"end"  # 70 MiB and 3 bytes
    (tmp_path / "large").write_bytes(content)
    with S3(s3root=root, tmproot=tmp_path) as s3:
        s3.put_files([S3PutObject("file", path=str(tmp_path / "large"), content_type="x/y", metadata={"k": "v"})])
        found = s3.get("file")
        assert found.blob == content
        assert (found.size, found.content_type, found.metadata) == (len(content), "x/y", {"k": "v"})
        assert found.range_info == RangeInfo(len(content), 0, len(content))
        part = s3.get(S3GetObject("file", 1000, 66 << 20))
        assert part.blob == content[1000 : 1000 + (66 << 20)]
        assert part.range_info == RangeInfo(len(content), 1000, 66 << 20)
        assert s3.put_many([("file", content[:-1])], overwrite=False) == []
        s3.put("memory", content[::-1])
        assert s3.info("memory").size == len(content)
        assert [each.size for each in s3.get_many(["memory", "file"])] == [len(content)] * 2


def test_an_object_that_is_replaced_while_it_is_read_is_an_error(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of two versions are never mixed."""
    monkeypatch.setattr(download, "_LARGE_BYTES", 10)
    with S3(s3root=root) as s3:
        s3.put("x", b"a" * 20)
        large = download.Download.large

        def replaced(self: download.Download, key: str, found: download.Downloaded) -> download.Downloaded:
            s3.put("x", b"b" * 20)
            return large(self, key, found)

        monkeypatch.setattr(download.Download, "large", replaced)
        with pytest.raises(S3Error, match="was replaced while it was read"):
            s3.get("x")


def test_the_url_itself_and_urls(root: str) -> None:
    """``get()`` reads the object at the URL of the S3; without one, keys are URLs."""
    with S3() as s3:
        assert s3.put(f"{root}/x", "X") == f"{root}/x"
        found = s3.get(f"{root}/x")
        assert (found.key, found.prefix, found.text) == (f"{root}/x", None, "X")
    with S3(s3root=f"{root}/x/") as s3:
        assert (s3.get().text, s3.info().size) == ("X", 1)


def test_an_s3_and_its_objects_can_be_pickled(root: str) -> None:
    with S3(s3root=root) as s3:
        s3.put("x", "X")
        found, other = pickle.loads(pickle.dumps((s3.get("x"), s3)))
        assert found.text == "X"
        with other:
            assert other.get("x").text == "X"
        assert found.text == "X"


def test_importing_it_needs_no_boto3() -> None:
    """And ``import k8sflow`` doesn't import it."""
    code = "import sys, k8sflow\nassert 'k8sflow.s3' not in sys.modules\nfrom k8sflow import S3\nprint(*sys.modules)"
    assert not {"boto3", "botocore"} & set(in_python(code).stdout.split())
