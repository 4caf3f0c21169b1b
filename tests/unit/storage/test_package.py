"""The code package: reproducible bytes, exclusions, and errors."""

from __future__ import annotations

import hashlib
import io
import os
import py_compile
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k8sflow.errors import PackageError
from k8sflow.storage import package
from tests.support import in_python


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A flow's folder with some of everything."""
    folder = tmp_path / "flow"
    for name in (
        "flow.py", "lib/__init__.py", "lib/data.csv", "lib/deep/er/x.py", "日本語.txt", "a b.txt",
        ".git/config", ".env", "__pycache__/flow.cpython-311.pyc", "lib/__pycache__/x.pyc", "old.pyc",
        "node_modules/x.js", "x.egg-info/PKG-INFO", "venv/pyvenv.cfg", "venv/lib/big.py", ".k8sflow/F/runs/1/run.json",
    ):  # fmt: skip
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def _names(made: package.Package) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(made.archive), mode="r:gz") as archive:
        return archive.getnames()


KEPT = ["a b.txt", "flow.py", "lib/__init__.py", "lib/data.csv", "lib/deep/er/x.py", "日本語.txt"]


def test_it_has_the_folder_without_hidden_and_generated_files(folder: Path) -> None:
    """.git, caches, virtual environments and the state of runs are excluded."""
    made = package.build(folder)
    assert _names(made) == KEPT
    assert made.files == len(KEPT)


def test_the_same_files_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """Times and the location of the folder don't matter."""
    first = package.build(folder)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    moved = folder.rename(tmp_path / "elsewhere")
    assert package.build(moved) == first
    (moved / "flow.py").write_text("changed")
    assert package.build(moved).sha256 != first.sha256


def test_unpacking_restores_the_files(folder: Path, tmp_path: Path) -> None:
    """Contents and executable bits are restored."""
    (folder / "tool.sh").write_text("#!/bin/sh\n")
    (folder / "tool.sh").chmod(0o700)
    (folder / "empty").touch()
    made = package.build(folder)
    target = tmp_path / "out"
    package.extract(made.archive, made.sha256, target)
    assert package.build(target) == made
    assert (target / "tool.sh").stat().st_mode & 0o111
    assert not (target / "flow.py").stat().st_mode & 0o111


def test_a_file_that_vanishes_meanwhile_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as an editor's temporary one; one that comes and goes each time is an error."""
    vanishing = ["first"]
    listed = package._files

    def files(where: Path, is_ignored: Callable[[str], bool | None]) -> list[tuple[str, Path]]:
        for name in vanishing:
            (where / name).touch()
        found = list(listed(where, is_ignored))
        while vanishing:
            (where / vanishing.pop()).unlink()
        return found

    monkeypatch.setattr(package, "_files", files)
    assert _names(package.build(folder)) == KEPT

    def vanished(where: Path, _is_ignored: Callable[[str], bool | None]) -> list[tuple[str, Path]]:
        return [("temp", where / "temp")]

    monkeypatch.setattr(package, "_files", vanished)
    with pytest.raises(PackageError, match="temp vanished while the code package was created"):
        package.build(folder)


def test_a_changed_package_is_not_unpacked(folder: Path, tmp_path: Path) -> None:
    """Its hash is its name."""
    made = package.build(folder)
    with pytest.raises(PackageError, match="damaged"):
        package.extract(made.archive[:-1] + b"x", made.sha256, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_can_not_write_outside_its_folder(tmp_path: Path) -> None:
    """Paths and links out of the folder are refused, even if the hash is right."""
    for name, kind, link in (("../escaped", tarfile.REGTYPE, ""), ("link", tarfile.SYMTYPE, "/etc/passwd")):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:gz") as archive:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, link
            archive.addfile(entry, io.BytesIO())
        data = raw.getvalue()
        with pytest.raises((PackageError, tarfile.FilterError)):
            package.extract(data, hashlib.sha256(data).hexdigest(), tmp_path / "out")
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(
    ("lines", "excluded"),
    [
        ("*.csv", ["lib/data.csv"]),
        ("lib", ["lib/__init__.py", "lib/data.csv", "lib/deep/er/x.py"]),
        ("lib/", ["lib/__init__.py", "lib/data.csv", "lib/deep/er/x.py"]),
        ("flow.py/", []),
        ("/lib/deep/", ["lib/deep/er/x.py"]),
        ("/deep", []),
        ("deep/er", []),
        ("lib/*", ["lib/__init__.py", "lib/data.csv", "lib/deep/er/x.py"]),
        ("/*.py", ["flow.py"]),
        ("**/er", ["lib/deep/er/x.py"]),
        ("lib/**/x.py", ["lib/deep/er/x.py"]),
        ("lib/**", ["lib/__init__.py", "lib/data.csv", "lib/deep/er/x.py"]),
        ("*.py\n!/flow.py", ["lib/__init__.py", "lib/deep/er/x.py"]),
        ("lib/*\n!lib/data.csv", ["lib/__init__.py", "lib/deep/er/x.py"]),
        ("lib/\n!lib/data.csv", ["lib/__init__.py", "lib/data.csv", "lib/deep/er/x.py"]),
        ("!lib/data.csv\n*.csv", ["lib/data.csv"]),
        ("# lib", []),
        ("lib # a comment only at the start", []),
        ("", []),
        ("a b.txt  ", ["a b.txt"]),
        ("a?b.[a-t]xt", ["a b.txt"]),
        ("日本語.txt", ["日本語.txt"]),
        ("deep", ["lib/deep/er/x.py"]),
        ("!.env\n!__pycache__/\n!*.pyc", []),
    ],
)
def test_the_ignore_file_has_gits_rules(folder: Path, lines: str, excluded: list[str]) -> None:
    """Git itself excludes the same files."""
    (folder / package.IGNORE_FILE).write_text(f"# comment\n\n{lines}\n")
    assert _names(package.build(folder)) == [name for name in KEPT if name not in excluded]

    git = ["git", "-c", "core.excludesFile=", "ls-files", "-z", "--others", f"--exclude-from={package.IGNORE_FILE}"]
    subprocess.run(["git", "init", "--quiet", folder.parent / "repository"], check=True)
    listed = subprocess.run(
        [*git[:1], f"--git-dir={folder.parent}/repository/.git", f"--work-tree={folder}", *git[1:]],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert [name for name in KEPT if name not in listed.split("\0")] == excluded


def test_a_byte_order_mark_before_the_first_pattern_is_skipped(folder: Path) -> None:
    """Some editors write one."""
    (folder / package.IGNORE_FILE).write_text("/lib/\n", encoding="utf-8-sig")
    assert _names(package.build(folder)) == ["a b.txt", "flow.py", "日本語.txt"]


def test_an_invalid_pattern_is_reported_with_its_line(folder: Path) -> None:
    (folder / package.IGNORE_FILE).write_text("*.csv\n!\n")
    with pytest.raises(PackageError, match=r"\.k8sflowignore, line 2: '!' is not a pattern") as reported:
        package.build(folder)
    assert ".gitignore" in str(reported.value.advice)


@pytest.mark.parametrize("content", [b"\xff\xfe*.csv", None])
def test_an_unreadable_ignore_file_is_reported(folder: Path, content: bytes | None) -> None:
    """It may not be UTF-8, or be a folder."""
    path = folder / package.IGNORE_FILE
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(PackageError, match=r"\.k8sflowignore"):
        package.build(folder)


def test_links_are_followed_but_not_in_circles(folder: Path, tmp_path: Path) -> None:
    """Links to the folder, to its parent, to themselves, and to each other's folders don't loop."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/util.py").write_text("util")
    (folder / "shared").symlink_to(tmp_path / "shared")
    (folder / "file.py").symlink_to(tmp_path / "shared/util.py")
    (folder / "self").symlink_to(".")
    (folder / "up").symlink_to("..")
    (folder / "lib/again").symlink_to("../lib")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    for here, there in (("x", "y"), ("y", "x"), ("x", "z"), ("z", "x"), ("y", "z"), ("z", "y")):
        (folder / here).mkdir(exist_ok=True)
        (folder / here / "file").touch()
        (folder / there).mkdir(exist_ok=True)
        (folder / here / f"to_{there}").symlink_to(f"../{there}")
    names = _names(package.build(folder))
    assert {*KEPT, "shared/util.py", "file.py", "x/file"} <= set(names)
    assert not [name for name in names if name.count("lib") > 1 or name.startswith(("self", "up"))]
    assert len(names) < 50


def test_a_flow_may_lie_in_a_virtual_environment(folder: Path) -> None:
    """Only environments below its folder are excluded."""
    (folder / "pyvenv.cfg").touch()
    assert set(KEPT) < set(_names(package.build(folder)))


def test_pipes_are_excluded(folder: Path) -> None:
    """Reading one would never end."""
    os.mkfifo(folder / "pipe")
    assert _names(package.build(folder)) == KEPT


def test_a_name_that_is_not_utf8_is_included(folder: Path, tmp_path: Path) -> None:
    """Linux allows any bytes in a name."""
    path = os.fsencode(folder) + b"/caf\xe9.txt"
    Path(os.fsdecode(path)).write_text("x")
    made = package.build(folder)
    package.extract(made.archive, made.sha256, tmp_path / "out")
    assert os.fsdecode(b"caf\xe9.txt") in {path.name for path in (tmp_path / "out").iterdir()}


def sized(folder: Path, **sizes: int) -> None:
    """Files of these sizes in megabytes; ``data__huge_bin`` is ``data/huge.bin``."""
    for name, size in sizes.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.truncate(size * 1_000_000)


def test_large_files_are_left_out(folder: Path) -> None:
    """One line names them, the largest first, and how they are kept."""
    sized(folder, data__huge_bin=90, lib__large_bin=20, small_bin=1, generated_py=11)
    made = package.build(folder)
    assert made.left_out == {"data/huge.bin": 90_000_000, "lib/large.bin": 20_000_000}
    assert _names(made) == sorted([*KEPT, "generated.py", "small.bin"])
    assert made.warning is not None
    assert "data/huge.bin (90.0 MB), lib/large.bin (20.0 MB)" in made.warning
    (folder / package.IGNORE_FILE).write_text("!lib/large.bin\n/data/\n")
    made = package.build(folder)
    assert "lib/large.bin" in _names(made)
    assert made.warning is None


def test_what_python_imports_is_never_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Shared libraries with versions, eggs, archives on the path of modules, and modules without their source."""
    for name in ("lib/libx.so.1.2", "lib/native.so", "old-1.0.egg", "modules.zip", "other.zip"):
        with (folder / name).open("wb") as file:
            file.truncate(11_000_000)
    monkeypatch.syspath_prepend(str(folder / "modules.zip"))
    (tmp_path / "closed.py").write_text("X = 1")
    py_compile.compile(str(tmp_path / "closed.py"), cfile=str(folder / "lib/closed.pyc"))
    py_compile.compile(str(tmp_path / "closed.py"), cfile=str(folder / "flow.pyc"))  # beside flow.py
    made = package.build(folder)
    assert list(made.left_out) == ["other.zip"]
    more = ["lib/closed.pyc", "lib/libx.so.1.2", "lib/native.so", "old-1.0.egg", "modules.zip"]
    assert _names(made) == sorted([*KEPT, *more])


@pytest.mark.parametrize("name", ["a[1]*.bin", "#x.bin", "!x.bin", "back\\slash.bin", "lib/trailing ", "日本 語.bin"])
def test_the_line_that_keeps_a_file_is_a_pattern_for_it(folder: Path, name: str) -> None:
    """The warning's advice works as it is written, for that file alone."""
    (folder / name).write_bytes(b"x" * 60)
    (folder / "a1.bin").write_bytes(b"x" * 50)
    rules = package.Rules(file_limit_bytes=40)
    made = package.build(folder, rules)
    assert made.warning is not None
    line = made.warning.partition('A line "')[2].partition('" in')[0]
    (folder / package.IGNORE_FILE).write_text(f"{line}\n")
    assert list(package.build(folder, rules).left_out) == ["a1.bin"]


def test_rules_say_what_is_large(folder: Path) -> None:
    sized(folder, a_csv=3, b_bin=2, c_bin=1)
    made = package.build(folder, package.Rules(suffixes=(".csv",), file_limit_bytes=2_000_000))
    assert list(made.left_out) == ["b.bin"]
    made = package.build(folder, package.Rules(limit_bytes=4_500_000))
    assert list(made.left_out) == ["a.csv"]
    many = package.build(folder, package.Rules(file_limit_bytes=1)).warning
    assert many is not None
    assert " more. " in many


def test_code_over_the_limit_names_the_biggest_files(folder: Path) -> None:
    """They are sorted by size, with advice on how to exclude them."""
    sized(folder, data__huge_py=90, lib__large_py=20, small_py=1)
    with pytest.raises(PackageError) as caught:
        package.build(folder)
    text = str(caught.value)
    assert "111.0 MB; the limit is 100.0 MB" in text
    assert text.index("90.0 MB  data/huge.py") < text.index("20.0 MB  lib/large.py") < text.index("small.py")
    assert ".k8sflowignore" in text
    (folder / package.IGNORE_FILE).write_text("data\n")
    assert "data/huge.py" not in _names(package.build(folder))


@pytest.fixture
def public_folder(folder: Path) -> Iterator[Path]:
    """The same folder where other users may read it; another pytest closes the common folder of all ``tmp_path``s."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        yield Path(shutil.copytree(folder, Path(parent) / "flow"))


@pytest.mark.parametrize("name", ["secret.txt", "lib"])
def test_an_unreadable_file_or_folder_is_reported(public_folder: Path, name: str) -> None:
    """Its absence would only be noticed in the pod."""
    folder = public_folder
    (folder / name).touch()
    (folder / name).chmod(0)
    done = in_python(
        """
        import os, sys
        from pathlib import Path
        from k8sflow.errors import PackageError
        from k8sflow.storage import package
        if os.getuid() == 0:
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try:
            package.build(Path(sys.argv[1]))
        except PackageError as error:
            print(error)
        """,
        str(folder),
    )
    (folder / name).chmod(0o755)
    assert f"{folder / name} can't be read" in done.stdout, done.stdout + done.stderr
    assert ".k8sflowignore" in done.stdout
