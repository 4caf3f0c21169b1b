"""The values of configs: tables with attributes, and the parsers that make them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8sflow import Config, ConfigValue
from k8sflow.errors import ParameterError


def test_a_config_is_read_by_attributes_and_by_items() -> None:
    """Tables may be nested, in lists, or pickled; they can't change, and an error lists their keys."""
    value = ConfigValue({"a": {"b": [1, {"c": 2}]}, "items": 5})
    assert value.a.b[1].c == value["a"]["b"][1]["c"] == 2
    assert pickle.loads(pickle.dumps(value)).a.b[1].c == 2
    assert json.loads(json.dumps(value)) == value.to_dict() == {"a": {"b": [1, {"c": 2}]}, "items": 5}
    for change in (lambda: value.update(a=1), lambda: value.__setitem__("a", 1), lambda: setattr(value, "a", 1)):
        with pytest.raises(TypeError, match="can't change"):
            change()
    with pytest.raises(AttributeError, match=r"no 'aa'\. Did you mean 'a'"):
        _ = value.aa


@pytest.mark.parametrize(
    ("name", "text", "keys"),
    [
        ("c.yaml", "labels: {0: cat, 1: dog, a: b}", {0: "cat", 1: "dog", "a": "b"}),
        ("c.yaml", "labels: {true: 1, 2.5: {3: x}, null: 0}", {True: 1, 2.5: {3: "x"}, None: 0}),
        ("c.json", '{"labels": {"0": "cat"}}', {"0": "cat"}),
    ],
)
def test_keys_keep_their_types(tmp_path: Path, name: str, text: str, keys: dict[Any, Any]) -> None:
    """YAML has keys that aren't strings; they survive nesting, pickling and an error's list of keys."""
    (tmp_path / name).write_text(text)
    labels = Config("c", default=str(tmp_path / name)).k8sflow_value().labels
    assert dict(labels) == labels.to_dict() == pickle.loads(pickle.dumps(labels)) == keys
    assert list(labels) == list(keys)
    with pytest.raises(AttributeError, match="the config has no 'nothing'"):
        _ = labels.nothing


def test_tuples_stay_tuples() -> None:
    """Tables in tuples have attributes like those in lists."""
    value = Config("c", default_value={"sizes": (1, {"a": 2}), 3: "x"}).k8sflow_value()
    assert value.sizes == (1, {"a": 2})
    assert value.sizes[1].a == 2
    assert value[3] == "x"


@pytest.mark.parametrize(("name", "data"), [("c.json", b'\xef\xbb\xbf{"a": 1}'), ("c.yaml", b"\xef\xbb\xbfa: 1")])
def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path, name: str, data: bytes) -> None:
    """Editors on Windows write one."""
    (tmp_path / name).write_bytes(data)
    assert Config("c", default=tmp_path / name).k8sflow_value() == {"a": 1}


def test_a_table_within_itself_is_an_error(tmp_path: Path) -> None:
    """YAML can express it."""
    (tmp_path / "c.yaml").write_text("a: &a [*a]")
    with pytest.raises(ParameterError, match=r"c\.yaml can't be parsed: RecursionError"):
        Config("c", default=tmp_path / "c.yaml").k8sflow_value()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.yaml", "a: 1\nb: 2\na: 3\n", r"c\.yaml can't be parsed: the key 'a' is given twice .* lines 1 and 3"),
        ("c.yaml", "a: 1\nb:\n  - c: 1\n    'c': 3\n", r"the key 'c' is given twice in one table, in lines 3 and 4"),
        ("c.yaml", "{a: {1: x, 0x1: y}}", r"the key 1 is given twice"),
        ("c.json", '{"a": 1,\n "b": {"ä": 1,\n\n "ä": 2}}', r"c\.json can't be parsed: the key 'ä' .* lines 2 and 4"),
        ("c.toml", "a = 1\nb = 2\na = 3\n", r"c\.toml can't be parsed: TOMLDecodeError: .*line 3"),
    ],
)
def test_a_key_that_is_given_twice_is_an_error(tmp_path: Path, name: str, text: str, words: str) -> None:
    """One of the two values would be lost; the error has the file, the key and its lines."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ParameterError, match=words):
        Config("c", default=str(tmp_path / name)).k8sflow_value()


def test_merged_tables_of_yaml_may_be_overridden() -> None:
    """``<<`` is how YAML shares values, and the same key in other tables is not the same key."""
    text = "a: &a {x: 1, y: 2}\nb: &b\n  <<: *a\n  x: 3\nc: {<<: *b, z: 4}\nd: [{x: 1}, {x: 2}]\n"
    value = Config("c", default_value=text, parser="yaml").k8sflow_value()
    assert value.to_dict() == yaml.safe_load(text)
    assert value.b.to_dict() == {"x": 3, "y": 2}
