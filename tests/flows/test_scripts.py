"""Names and values in many scripts, and without letters: parameters, artifacts, steps, tags, files and folders."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest

from tests.flows.test_resume import run_in
from tests.support import flow_command, write_flow

FLOW = """
import os
class F(FlowSpec):
    {name} = Parameter("{name}", default="")
    @step
    def start(self):
        self.{name}_2 = [self.{name}] * 2
        print("said", self.{name})
        self.next(self.work)
    @step
    def work(self):
        if not os.path.exists("go"):
            raise ValueError(self.{name})
        self.next(self.end)
    @step
    def end(self):
        setattr(self, self.{name}[:5], self.{name})
"""
# The folder, the file, a name of parameters and other names in Python, a value, a tag.
CASES = {
    "no Unicode": (os.fsdecode(b"\xff\xfe"), os.fsdecode(b"caf\xe9.py"), "y", os.fsdecode(b"v\xff"), "tag"),
    "quotes": (
        "a 'b' \"c\" $(d) %s {e}",
        "f 'l' \"o\" ;w.py",
        "straße",
        "say \"hi\" 'x' $HOME `ls` {y} %d \\n",
        "it's $A",
    ),
    "newlines": ("new\nline\ttab", "flo\nw.py", "x", "two\nlines\r\n\ttab \x1b[31mred\x07", "tag"),
    "CJK": ("日本 語", "流れ.py", "名前", "值 テスト 한국어", "タグ"),
    "emoji": ("🦆", "👩‍👩‍👧.py", "𝒳", "🦆👩‍👩‍👧🏳️‍🌈", "🦆"),
    "right to left": ("مجلد", "قطار.py", "متغير", "\u202eעברית مرحبا\u202c", "עברית"),
    "combining": ("e\u0301e", "o\u0308.py", "e\u0301", "Z\u0351\u036b\u0343a\u0301", "e\u0301"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_names_and_values_in_every_script(tmp_path: Path, kind: str) -> None:
    """A run that fails, its log, its artifacts, its graph, and the run that resumes it, all have them."""
    folder, name, word, value, tag = CASES[kind]
    file = write_flow(tmp_path / folder, FLOW.format(name=word), name)
    said = value.encode("utf-8", "backslashreplace").decode()

    def output_of(*arguments: str, code: int = 0) -> str:
        done = flow_command(file, *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        assert not code or "ValueError" in done.stdout, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    option = f"--{word}={value}"
    output_of("run", "--run-id", "r1", "--run-id-file", f"{folder} id", "--tag", tag, option, code=1)
    assert (file.parent / f"{folder} id").read_text() == "r1\n"
    assert f"said {said.splitlines()[0]}\n" in output_of("logs", "r1/start/0", "--stdout")
    assert tag in output_of("tag", "list", "--run-id", "r1").splitlines()
    assert "work" in output_of("show")
    (artifacts,) = json.loads(output_of("dump", "r1/start", "--json")).values()
    assert artifacts[unicodedata.normalize("NFKC", f"{word}_2")]["value"] == [value] * 2
    (file.parent / "go").touch()
    output_of("resume", "--run-id", "r2")
    task = run_in(file.parent, "r2")["end"].task
    assert task[value[:5]].data == value
