"""Parameters: types, defaults, and values that can't be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k8sflow import IncludeFile, JSONType, Parameter, ParameterContext, Runner
from k8sflow.errors import FlowDefinitionError, ParameterError
from tests.support import run_flow, write_flow


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        (Parameter("p", default=1), "-5", -5),
        (Parameter("p", default=1), "1_000", 1000),
        (Parameter("p", default=1), 2.0, 2),
        (Parameter("p", default=0.5), "1e-3", 0.001),
        (Parameter("p", default=0.5), "3", 3.0),
        (Parameter("p", default="x"), "ünï", "ünï"),
        (Parameter("p", default="x"), "", ""),
        (Parameter("p"), "5", "5"),
        (Parameter("p", type=int), "5", 5),
        (Parameter("p", type=float, default=5), "5", 5.0),
        (Parameter("p", default=True), "no", False),
        (Parameter("p", default=False), " TRUE ", True),
        (Parameter("p", default=False), "1", True),
        (Parameter("p", type=bool), "off", False),
    ],
)
def test_a_value_is_converted_to_the_parameters_type(parameter: Parameter, text: Any, value: Any) -> None:
    """The type is the one given, or that of the default."""
    found = parameter.convert(text, "the value")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        (Parameter("p", default=1), "1.5"),
        (Parameter("p", default=1), 1.5),
        (Parameter("p", default=1), "many"),
        (Parameter("p", default=1), ""),
        (Parameter("p", default=1), float("inf")),
        (Parameter("p", default=1), float("nan")),
        (Parameter("p", default=1), "9" * 5000),
        (Parameter("p", default=0.5), "half"),
        (Parameter("p", default=True), "perhaps"),
        (Parameter("p", default=True), "2"),
    ],
    ids=range(10),
)
def test_a_value_of_another_type_is_refused(parameter: Parameter, text: Any) -> None:
    """The error has the parameter, the value, the type and an example."""
    with pytest.raises(ParameterError) as raised:
        parameter.convert(text, "the value")
    assert "'p'" in raised.value.summary
    assert f"not of type {parameter.type_name}" in raised.value.summary
    assert "--p " in raised.value.advice
    assert len(raised.value.summary) < 500


@pytest.mark.parametrize("name", ["", "a b", "a.b", "1a", "a/b", "--a", 5, None, "a\n"])
def test_a_name_that_can_not_be_an_option_is_refused(name: Any) -> None:
    """The error is raised when the class is created."""
    with pytest.raises(FlowDefinitionError, match="can't be an option"):
        Parameter(name)


@pytest.mark.parametrize("options", [{"default": (1,)}, {"type": list}, {"type": "int"}])
def test_an_unknown_type_is_refused(options: dict[str, Any]) -> None:
    """The error lists the types that exist."""
    with pytest.raises(FlowDefinitionError, match="one of str, int, float, bool"):
        Parameter("p", **options)


def test_a_default_of_the_wrong_type_is_refused() -> None:
    """The error is raised when the class is created, not when the run starts."""
    with pytest.raises(ParameterError, match="the default 'x' is not of type int"):
        Parameter("p", type=int, default="x")


CONTEXT = ParameterContext("F", "ada", "p")


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        (Parameter("p", type=JSONType), '{"a": [1, null]}', {"a": [1, None]}),
        (Parameter("p", default={"a": 1}), "[2]", [2]),
        (Parameter("p", type=JSONType, default="[1]"), "5", 5),
        (Parameter("p", separator=","), "a,b,,c", ["a", "b", "", "c"]),
        (Parameter("p", separator=","), ",", ["", ""]),
        (Parameter("p", separator=","), "", []),
        (Parameter("p", separator=",", default=["a", ""]), ["", "b"], ["", "b"]),
        (Parameter("p", default=True), "T", True),
        (Parameter("p", default=True), "n", False),
        (Parameter("p", type=bool), "y", True),
        (Parameter("p", type=bool), "off", False),
        (Parameter("p", separator="|", default="x|y"), ["z"], ["z"]),
    ],
)
def test_lists_and_json_are_parsed(parameter: Parameter, text: Any, value: Any) -> None:
    """Values are JSON if the type or the default says so, and lists if there is a separator."""
    assert parameter.convert(text, "the value") == value


def test_defaults_of_lists_and_json() -> None:
    """Defaults may be strings or values."""
    assert Parameter("p", separator=",", default="a,b").default == ["a", "b"]
    assert Parameter("p", separator=",", default=["a", "b"]).default == ["a", "b"]
    assert Parameter("p", type=JSONType, default='{"a": 1}').default == {"a": 1}
    with pytest.raises(ParameterError, match="not of type JSON"):
        Parameter("p", type=JSONType).convert("{a}", "the value")
    with pytest.raises(FlowDefinitionError, match="makes a list of texts"):
        Parameter("p", type=int, separator=",")


def test_json_with_a_key_that_is_given_twice_is_an_error() -> None:
    """One of the two values would be lost."""
    with pytest.raises(ParameterError, match="the key 'a' is given twice in one table"):
        Parameter("p", type=JSONType).convert('{"a": 1, "a": 2}', "the value")


@pytest.mark.parametrize(
    ("parameter", "given", "value"),
    [
        (Parameter("p", multiple=True), ("a", "b"), ("a", "b")),
        (Parameter("p", multiple=True), "a", ("a",)),
        (Parameter("p", multiple=True, type=int), ["1", 2], (1, 2)),
        (Parameter("p", multiple=True, default=[1, 2]), ("3",), (3,)),
        (Parameter("p", multiple=True, type=JSONType), ("[1]", "{}"), ([1], {})),
    ],
)
def test_a_parameter_may_be_given_more_than_once(parameter: Parameter, given: Any, value: Any) -> None:
    """Its value is a tuple of values of its type, as in Metaflow."""
    assert parameter.convert(given, "the value") == value


def test_the_default_of_a_parameter_that_may_be_given_more_than_once_is_a_tuple() -> None:
    """It is empty if no default is given, like in Metaflow."""
    assert Parameter("p", multiple=True).default_value(CONTEXT) == ()
    assert Parameter("p", multiple=True, default=lambda _: None).default_value(CONTEXT) == ()
    assert Parameter("p", multiple=True, default=[1, 2]).default_value(CONTEXT) == (1, 2)
    assert Parameter("p", multiple=True, type=int, default=lambda _: ["1"]).default_value(CONTEXT) == (1,)
    assert Parameter("p", multiple=True, default=["a", "b"]).default_text == "a, b"
    assert Parameter("p", multiple=True, default="ab").default == ("ab",)
    assert Parameter("p", multiple=True, default=2).convert(["3", "4"], "the value") == (3, 4)
    with pytest.raises(ParameterError, match="the value 'x' is not of type int"):
        Parameter("p", multiple=True, type=int).convert(["1", "x"], "the value")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"is_flag": True}, "is_flag needs a bool, and the type is str"),
        ({"is_flag": True, "default": lambda _: True}, "is_flag needs a bool"),
        ({"multiple": True, "separator": ","}, "multiple can't be used with separator"),
        ({"multiple": True, "is_flag": True, "type": bool}, "multiple can't be used with is_flag"),
    ],
)
def test_an_option_without_effect_is_refused(options: Any, words: str) -> None:
    """No option is accepted and then ignored."""
    with pytest.raises(FlowDefinitionError, match=words):
        Parameter("p", **options)


def test_a_parameter_is_given_more_than_once_on_the_command_line(tmp_path: Path) -> None:
    """The option is repeated, has a default, or is a list in Python."""
    source = """
        class F(FlowSpec):
            words = Parameter("words", multiple=True)
            sizes = Parameter("sizes", multiple=True, default=[1, 2], help="Sizes.")
            must = Parameter("must", multiple=True, required=True, type=float)
            @step
            def start(self):
                print(self.words, self.sizes, self.must)
                self.next(self.end)
            @step
            def end(self): pass
    """
    file = write_flow(tmp_path, source)
    done = run_flow(file, "--words", "a b", "--words=c", "--must", "1")
    assert "('a b', 'c') (1, 2) (1.0,)" in done.stdout, done.stdout + done.stderr
    assert "() (5,) (1.0, 2.0)" in run_flow(file, "--sizes", "5", "--must", "1", "--must", "2").stdout
    refused = run_flow(file)
    assert refused.returncode != 0
    assert "--must" in refused.stderr
    assert "Sizes. [default: 1, 2]" in " ".join(run_flow(file, "--help").stdout.split())
    with Runner(str(file)).run(words=["x", "a,b"], sizes=[7], must=1) as ran:
        assert "('x', 'a,b') (7,) (1.0,)" in ran.stdout


def test_a_default_may_be_computed_when_the_run_starts() -> None:
    """The function gets the context; a result of another type than the parameter's is an error."""
    made = Parameter("p", default=lambda context: f"{context.flow_name} {context.user_name} {context.parameter_name}")
    assert made.default is None
    assert made.default_value(CONTEXT) == "F ada p"
    assert Parameter("p", type=int, default=lambda _: "5").default_value(CONTEXT) == 5
    with pytest.raises(ParameterError, match="its default function returned int, but its type is str"):
        Parameter("p", default=lambda _: 5).default_value(CONTEXT)
    with pytest.raises(ParameterError, match="its default function failed: ZeroDivisionError"):
        Parameter("p", default=lambda _: 1 // 0).default_value(CONTEXT)
    with pytest.raises(ParameterError, match="not of type int"):
        Parameter("p", type=int, default=lambda _: "x").default_value(CONTEXT)


@pytest.mark.parametrize("name", ["with", "run-id", "run_id", "max_workers", "tags", "namespace", "obj"])
def test_a_reserved_name_is_refused(name: str) -> None:
    """Both spellings are reserved."""
    with pytest.raises(FlowDefinitionError, match="the name is taken"):
        Parameter(name)


def test_a_default_is_shown_as_it_would_be_typed() -> None:
    """It is shown as JSON or with the separator, and so is an error's example."""
    assert Parameter("p", default={"a": "ä"}).default_text == '{"a": "ä"}'
    assert Parameter("p", separator=",", default="a,b").default_text == "a,b"
    assert Parameter("p", default=1.5).default_text == "1.5"
    with pytest.raises(ParameterError) as raised:
        Parameter("p", default=[1]).convert("1,2", "the value")
    assert raised.value.advice.endswith("--p '[1, 2]'")


def test_a_file_is_included(tmp_path: Path) -> None:
    """It may be text, bytes or parsed; an error has the path of an unreadable file."""
    file = tmp_path / "ünï.json"
    file.write_bytes('{"a": "ä"}'.encode("latin-1"))
    assert IncludeFile("p", is_text=False).convert(file, "the value") == '{"a": "ä"}'.encode("latin-1")
    assert IncludeFile("p", encoding="latin-1").convert(str(file), "the value") == '{"a": "ä"}'
    assert IncludeFile("p", encoding="latin-1", parser="json").convert(file, "the value") == {"a": "ä"}
    assert IncludeFile("p", encoding="latin-1", parser=len).convert(file, "the value") == 10
    assert IncludeFile("p", encoding="latin-1", parser="json.loads").convert(file, "the value") == {"a": "ä"}
    assert IncludeFile("p", encoding="latin-1", default=str(file)).default_value(CONTEXT) == '{"a": "ä"}'
    with pytest.raises(ParameterError, match="encoding"):
        IncludeFile("p").convert(file, "the value")
    with pytest.raises(ParameterError, match=r"none\.txt' can't be read: No such file or directory\."):
        IncludeFile("p").convert("none.txt", "the value")
    with pytest.raises(ParameterError, match="can't be parsed: JSONDecodeError"):
        IncludeFile("p", is_text=False, parser="json").convert(__file__, "the value")


def test_values_come_from_the_command_line_the_environment_or_the_default(tmp_path: Path) -> None:
    """They are looked up in this order; a default file is beside the flow."""
    source = """
        from k8sflow import IncludeFile, JSONType
        class F(FlowSpec):
            alpha = Parameter("alpha", default=1)
            beta_rate = Parameter("beta-rate", type=float, required=True)
            words = Parameter("words", separator=",", default=lambda context: "from," + context.flow_name)
            table = Parameter("table", type=JSONType, default={"a": 1})
            quick = Parameter("quick", default=False, is_flag=True)
            text = IncludeFile("text", default="text.txt")
            nothing = IncludeFile("nothing")
            @step
            def start(self): self.next(self.end)
            @step
            def end(self):
                print([self.alpha, self.beta_rate, self.words, self.table, self.quick, self.text, self.nothing])
    """
    file = write_flow(tmp_path, source)
    (tmp_path / "text.txt").write_text("content")
    (tmp_path / "elsewhere").mkdir()
    given = {"K8SFLOW_RUN_ALPHA": "5", "K8SFLOW_RUN_BETA_RATE": "0.5"}
    done = run_flow(file, cwd=tmp_path / "elsewhere", **given)
    assert "[5, 0.5, ['from', 'F'], {'a': 1}, False, 'content', None]" in done.stdout, done.stdout + done.stderr
    done = run_flow(
        file, "--alpha", "6", "--quick", "--words", "x,y", "--table", "[1]", "--nothing", str(file), **given
    )
    assert "[6, 0.5, ['x', 'y'], [1], True, 'content', 'from k8sflow" in done.stdout, done.stdout + done.stderr
    wrong = run_flow(file, K8SFLOW_RUN_BETA_RATE="much")
    assert wrong.returncode == 2
    assert "K8SFLOW_RUN_BETA_RATE, which is 'much' is not of type float" in " ".join(wrong.stderr.split())
    missing = run_flow(file)
    assert missing.returncode == 2
    assert "--beta-rate" in missing.stderr


def test_flows_may_share_a_parameter(tmp_path: Path) -> None:
    """Each flow uses a name of its own."""
    source = """
        from k8sflow import IncludeFile
        P = Parameter("p", default=1)
        I = IncludeFile("i", default="i.txt")
        class F(FlowSpec):
            mine, text = P, I
            @step
            def start(self):
                print([self.mine, self.text])
                self.next(self.end)
            @step
            def end(self): pass
        class G(FlowSpec):
            other, more = P, I
        """
    file = write_flow(tmp_path, source)
    (tmp_path / "i.txt").write_text("in")
    done = run_flow(file, "--p", "5")
    assert "[5, 'in']" in done.stdout, done.stdout + done.stderr
