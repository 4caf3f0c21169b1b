"""Parameters: types, defaults, and values that can't be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k8sflow import FlowSpec, IncludeFile, JSONType, Parameter, ParameterContext, Runner
from k8sflow.errors import FlowDefinitionError, ParameterError
from k8sflow.flow.compile import compile_flow, declared
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
    """Which is the one given, or the default's."""
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
def test_a_value_of_another_type_is_told(parameter: Parameter, text: Any) -> None:
    """With the parameter, the value, the type and an example."""
    with pytest.raises(ParameterError) as told:
        parameter.convert(text, "the value")
    assert "'p'" in told.value.summary
    assert f"not of type {parameter.type_name}" in told.value.summary
    assert "--p " in told.value.advice
    assert len(told.value.summary) < 500


@pytest.mark.parametrize("name", ["", "a b", "a.b", "1a", "a/b", "--a", 5, None, "a\n"])
def test_a_name_that_can_be_no_option_is_told(name: Any) -> None:
    """When the class is made."""
    with pytest.raises(FlowDefinitionError, match="can't be an option"):
        Parameter(name)


@pytest.mark.parametrize("options", [{"default": (1,)}, {"type": list}, {"type": "int"}])
def test_a_type_that_there_is_not_is_told(options: dict[str, Any]) -> None:
    """With those that there are."""
    with pytest.raises(FlowDefinitionError, match="one of str, int, float, bool"):
        Parameter("p", **options)


def test_a_default_of_the_wrong_type_is_told() -> None:
    """When the class is made, not when the run starts."""
    with pytest.raises(ParameterError, match="the default 'x' is not of type int"):
        Parameter("p", type=int, default="x")


def test_two_parameters_with_one_name_are_told() -> None:
    """They would be one option."""

    class Twice(FlowSpec):
        a = Parameter("n")
        b = Parameter("n")

    with pytest.raises(FlowDefinitionError, match="two parameters with the name 'n': a and b"):
        compile_flow(Twice)


def test_members_are_sorted_into_parameters_and_constants() -> None:
    """Methods, properties, nested classes and private names are neither; a derived class's member wins."""

    class Base(FlowSpec):
        replaced = Parameter("replaced", default=1)
        size = 1

    class Derived(Base):
        replaced = 5
        rate = Parameter("learning-rate", default=0.1)
        items = (1,)
        _private = 1

        class Nested:
            pass

        @property
        def double(self) -> int:
            return 2

        @staticmethod
        def helper() -> None: ...

    assert declared(Derived).constants == {"replaced": 5, "size": 1, "items": (1,)}
    assert list(declared(Derived).parameters) == ["rate"]
    assert list(declared(Base).parameters) == ["replaced"]


def test_outside_of_a_task_self_says_so() -> None:
    """The language works in steps only."""
    flow = FlowSpec.__new__(FlowSpec)
    with pytest.raises(RuntimeError, match="only in a step"):
        _ = flow.index
    with pytest.raises(AttributeError, match="no attribute 'x'"):
        _ = flow.x


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
    """JSON where the type or the default says so, lists between separators."""
    assert parameter.convert(text, "the value") == value


def test_defaults_of_lists_and_json() -> None:
    """As texts or as values."""
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
    """An empty one where there is none, as in Metaflow."""
    assert Parameter("p", multiple=True).default_value(CONTEXT) == ()
    assert Parameter("p", multiple=True, default=[1, 2]).default_value(CONTEXT) == (1, 2)
    assert Parameter("p", multiple=True, type=int, default=lambda _: ["1"]).default_value(CONTEXT) == (1,)
    assert Parameter("p", multiple=True, default=["a", "b"]).default_text == "a, b"
    with pytest.raises(ParameterError, match="the value 'x' is not of type int"):
        Parameter("p", multiple=True, type=int).convert(["1", "x"], "the value")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"is_flag": True}, "is_flag needs a bool, and the type is str"),
        ({"is_flag": True, "default": lambda _: True}, "is_flag needs a bool"),
        ({"multiple": True, "separator": ","}, "multiple can't be used with separator"),
        ({"multiple": True, "is_flag": True, "type": bool}, "multiple can't be used with is_flag"),
        ({"multiple": True, "default": "a"}, r"is a list or a tuple, not 'a'(.|\n)*default=\['a'\]"),
    ],
)
def test_an_option_without_effect_is_refused(options: Any, words: str) -> None:
    """None is accepted and ignored."""
    with pytest.raises(FlowDefinitionError, match=words):
        Parameter("p", **options)


def test_a_parameter_is_given_more_than_once_on_the_command_line(tmp_path: Path) -> None:
    """By a repeated option or a default, and from Python by a list."""
    file = write_flow(tmp_path, """
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
    """)  # fmt: skip
    done = run_flow(file, "--words", "a b", "--words=c", "--must", "1")
    assert "('a b', 'c') (1, 2) (1.0,)" in done.stdout, done.stdout + done.stderr
    assert "() (5,) (1.0, 2.0)" in run_flow(file, "--sizes", "5", "--must", "1", "--must", "2").stdout
    refused = run_flow(file)
    assert refused.returncode != 0
    assert "--must" in refused.stderr
    assert "Sizes. [default: 1, 2]" in " ".join(run_flow(file, "--help").stdout.split())
    with Runner(str(file)).run(words=["x", "a,b"], sizes=[7], must=1) as ran:
        assert "('x', 'a,b') (7,) (1.0,)" in ran.stdout


def test_a_default_may_be_made_when_the_run_starts() -> None:
    """By a function that is given the context; what it makes is of the parameter's type, or it is told."""
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


@pytest.mark.parametrize("name", ["with", "run-id", "run_id", "max_workers", "config", "namespace", "obj", "help"])
def test_a_reserved_name_is_told(name: str) -> None:
    """With either spelling."""
    with pytest.raises(FlowDefinitionError, match="the name is taken"):
        Parameter(name)


def test_a_default_is_told_as_it_would_be_typed() -> None:
    """In JSON, or with the separator; an error's example is of the same kind."""
    assert Parameter("p", default={"a": "ä"}).default_text == '{"a": "ä"}'
    assert Parameter("p", separator=",", default="a,b").default_text == "a,b"
    assert Parameter("p", default=1.5).default_text == "1.5"
    with pytest.raises(ParameterError) as told:
        Parameter("p", default=[1]).convert("1,2", "the value")
    assert told.value.advice.endswith("--p '[1, 2]'")


def test_a_file_is_included(tmp_path: Path) -> None:
    """As text, as bytes, parsed; what can't be read is told with the path."""
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


def test_a_run_takes_values_from_wherever_they_are(tmp_path: Path) -> None:
    """The command line, then the environment, then the default; a file beside the flow."""
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
    """Each under a name of its own."""
    file = write_flow(
        tmp_path,
        """
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
        """,
    )
    (tmp_path / "i.txt").write_text("in")
    done = run_flow(file, "--p", "5")
    assert "[5, 'in']" in done.stdout, done.stdout + done.stderr


def test_a_constant_that_cant_be_kept_says_what_to_do(tmp_path: Path) -> None:
    """Its name can begin with an underscore."""
    source = """
        import threading
        class F(FlowSpec):
            lock = threading.Lock()
            @step
            def start(self):
                with self.lock: print("locked")
                self.next(self.end)
            @step
            def end(self): pass
    """
    refused = run_flow(write_flow(tmp_path, source))
    assert refused.returncode == 1
    assert "constant 'lock' can't be kept" in refused.stderr
    assert "Call it _lock" in refused.stderr
    done = run_flow(write_flow(tmp_path, source.replace("lock =", "_lock =").replace("self.lock", "self._lock")))
    assert "locked" in done.stdout, done.stderr
