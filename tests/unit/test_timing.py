"""``profile``."""

from __future__ import annotations

import math
import re
import sys

import pytest

from k8sflow import profile


def test_a_block_is_reported_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with profile("load"):
        sys.stdout.write("inside\n")
    assert re.fullmatch(r"PROFILE: load starting\ninside\nPROFILE: load completed in \d+ms\n", capsys.readouterr().out)


def test_a_dictionary_gets_the_sum_of_each_label(capsys: pytest.CaptureFixture[str]) -> None:
    stats = {"load": 1000}
    for label in ("load", "fit", "fit"):
        with profile(label, stats):
            pass
    assert sorted(stats) == ["fit", "load"]
    assert stats["load"] >= 1000
    with pytest.raises(TypeError), profile("fails", stats):
        math.factorial("x")  # type: ignore[arg-type]
    assert "fails" in stats
    assert capsys.readouterr().out == ""
