"""The values of configs in a class body: read when the run starts, or a mistake where used at once."""

from __future__ import annotations

import copy
import textwrap
from pathlib import Path
from typing import Any

import pytest

from k8sflow import Config, FlowSpec, Parameter, config_expr, environment, resources, step
from k8sflow.errors import FlowDefinitionError, ParameterError
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.config_expressions import running
from k8sflow.flow.config_set import ConfigSet
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.delayed import settled
from tests.support import flow_command, load_flow, run_flow, write_flow

USES = """
    from k8sflow import Config, config_expr, environment
    def url(config): return "s3://" + config.bucket
    class F(FlowSpec):
        cfg = Config("cfg", default_value={{"env": "prod", "debug": False, "bucket": "b1", "n": 2, "list": [1]}})
        used = Parameter("used", default={use})
        @step
        def start(self): self.next(self.end)
        @step
        def end(self): pass
"""


@pytest.mark.parametrize(
    "use",
    [
        'f"s3://{cfg.bucket}/out"', '"DEBUG" if cfg.debug else "INFO"', 'cfg.env == "prod"', 'cfg.env != "prod"',
        "cfg.n < 3", "cfg.n >= 3", 'cfg.bucket + "/out"', '"s3://" + cfg.bucket', '"s3://%s" % cfg.bucket',
        '"s3://{}".format(cfg.bucket)', "str(cfg.bucket)", '"a" in cfg.list', "[i for i in cfg.list]", "len(cfg.list)",
        "int(cfg.n)", "float(cfg.n)", "cfg.n * 2", "-cfg.n", "not cfg.debug", "cfg.debug and 1", "repr(cfg.env)",
        "f'{cfg.env!r}'",
        "range(cfg.n)", "[1, 2, 3][cfg.n]", "url(cfg)", "dict(cfg.env)", "list(cfg.env.keys())",
        "f'{cfg}'", "cfg.get('env') == 'x'",
        "round(cfg.n)", "1 if cfg else 2", '",".join(cfg.list)', "f\"{config_expr('cfg.n')}\"",
        "'%s' % config_expr('cfg')",
    ],
)  # fmt: skip
def test_a_use_of_a_value_that_is_not_known_is_a_mistake(tmp_path: Path, use: str) -> None:
    """It is reported by the check, with the file, the line and what to write."""
    file = write_flow(tmp_path, USES.format(use=use))
    with pytest.raises(FlowDefinitionError, match=r"F has (a|\d) mistake") as refused:
        compile_flow(load_flow(file))
    line = 1 + file.read_text().splitlines().index(f'    used = Parameter("used", default={use})')
    assert f"{file}:{line}" in refused.value.advice
    assert "known only when a run starts" in refused.value.advice
    assert "config_expr(" in refused.value.advice


def test_the_advice_is_what_can_be_written(tmp_path: Path) -> None:
    """All mistakes are reported at once, nothing runs, and the advice works."""
    source = textwrap.dedent("""
        from k8sflow import Config, config_expr, environment
        class F(FlowSpec):
            cfg = Config("cfg", default_value={"env": "prod", "debug": False, "bucket": "b1"})
            out = Parameter("out", default=f"s3://{cfg.bucket}/out")
            level = Parameter("level", default="DEBUG" if cfg.debug else "INFO")
            @environment(vars={"SAFE": "yes" if cfg.env == "prod" else "no"})
            @step
            def start(self):
                import os
                print(self.out, self.level, os.environ["SAFE"])
                self.next(self.end)
            @step
            def end(self): pass
    """)
    file = write_flow(tmp_path, source)
    refused = run_flow(file)
    assert refused.returncode == 1
    assert "F has 3 mistakes; nothing was run" in refused.stderr
    for wrong in (
        'f"s3://{cfg.bucket}/out"',
        '"DEBUG" if cfg.debug else "INFO"',
        '"yes" if cfg.env == "prod" else "no"',
    ):
        unparsed = wrong.replace('"', "'")
        assert f'config_expr("{unparsed}")' in refused.stderr
        source = source.replace(wrong, f'config_expr("{unparsed}")')
    done = run_flow(write_flow(tmp_path, source))
    assert "s3://b1/out INFO yes" in done.stdout, done.stdout + done.stderr
    other = flow_command(file, "--config-value", "cfg", '{"env": "x", "debug": 1, "bucket": "b2"}', "run")
    assert "s3://b2/out DEBUG no" in other.stdout, other.stdout + other.stderr


def test_methods_of_a_table_and_of_a_text_can_be_handed_on() -> None:
    """They are called when the value is known."""
    config: Any = Config("c", default_value={"a": {"x": 1, "y": 2}, "name": "Ada", "items": 5})
    for late, value in (
        (config.a.get("z", 7), 7),
        (config.get("name").lower(), "ada"),
        (config.name.replace("A", "E"), "Eda"),
        (config["items"], 5),
        (config.a.to_dict(), {"x": 1, "y": 2}),
        (config.a[config_expr("'x'")], 1),
    ):
        assert settled(late) == value
    assert list(settled(config.a.keys())) == ["x", "y"]
    assert sorted(settled(config.a.values())) == [1, 2]
    with pytest.raises(ParameterError, match=r"c\.items is a method of every table"):
        settled(config.items)
    assert repr(config.a.x) == "<c.a.x>"
    assert copy.deepcopy(config) is config


def test_outside_of_a_class_body_the_value_is_used_once_it_is_known() -> None:
    """Before that it is an error at once, since no check would come by."""

    class F(FlowSpec):
        cfg: Any = Config("cfg", default_value={"n": 2, "a": {"b": 1}})
        n: Any = cfg.n
        double: Any = config_expr("cfg.n * 2")

    with pytest.raises(FlowDefinitionError, match=r"test_late\.py:\d+: == needs the value of cfg\.n"):
        assert F.cfg.n == 2
    with pytest.raises(FlowDefinitionError, match=r"needs the value of"):
        str(F.double)
    with running(ConfigSet.from_arguments(F, ["--config-value", "cfg", '{"n": 3, "a": {"b": 1}}'])):
        assert F.cfg.n == 3
        assert f"{F.cfg.n + 1} {F.cfg.n * 2}" == "4 6"
        assert len(F.cfg) == 2
        assert "a" in F.cfg
        assert dict(F.cfg.a) == {"b": 1}
        instance = F(use_cli=False)
        assert (instance.n, instance.double) == (3, 6)


def test_a_decorators_option_by_position_is_still_a_mistake(tmp_path: Path) -> None:
    """A late value can be called, but is no step."""
    source = USES.format(use=1).replace(
        "    @step\n        def start", "    @retry(cfg.n)\n        @step\n        def start"
    )
    file = write_flow(tmp_path, source.replace("environment", "retry"))
    with pytest.raises(FlowDefinitionError) as refused:
        compile_flow(load_flow(file))
    assert "@retry takes its options by name" in refused.value.advice


class Base(FlowSpec):
    """Has steps and a parameter that are made from its config."""

    limits: Any = Config("limits", default_value={"cpu": 1})
    cpu = Parameter("cpu", type=int, default=config_expr("limits.cpu"))
    twice = Parameter("twice", default=limits.cpu)

    @resources(cpu=config_expr("limits.cpu"))
    @environment(vars={"CPU": limits.cpu})
    @step
    def start(self) -> None:
        """The only step."""


class Small(Base):
    """Inherits all."""


class Large(Base):
    """Has another default."""

    limits: Any = Config("limits", default_value={"cpu": 16})


class Other(FlowSpec):
    """Has a config of the same name."""

    limits: Any = Config("limits", default_value={"cpu": 64})

    @resources(cpu=config_expr("limits.cpu"))
    @step
    def start(self) -> None:
        """The only step."""


def _compiled(flow: type[FlowSpec], **configs: Any) -> FlowDefinition:
    return compile_flow(flow, ConfigSet.from_python(flow, configs))


def _seen(definition: FlowDefinition) -> list[Any]:
    options = {decoration.name: decoration.options for decoration in definition.decorations_of("start")}
    defaults = [parameter.default_value(CONTEXT) for parameter in definition.parameters.values()]
    return [options["resources"]["cpu"], *(options["environment"]["vars"].values()), *defaults]


CONTEXT: Any = None


def test_flows_of_a_process_have_configs_of_their_own() -> None:
    """True if they inherit them, replace them, or have one of the same name."""
    small, other = _compiled(Small, limits={"cpu": 2}), _compiled(Other, limits={"cpu": 5})
    large, base = _compiled(Large), _compiled(Base, limits={"cpu": 3})
    assert _seen(small) == [2] * 4
    assert _seen(large) == [16] * 4
    assert other.decorations_of("start")[-1].options == {"cpu": 5}
    assert _seen(base) == [3] * 4
    assert _seen(_compiled(Base)) == _seen(_compiled(Small)) == [1] * 4


def test_one_config_object_may_be_shared_by_flows(tmp_path: Path) -> None:
    """Each flow has a value of its own."""
    file = write_flow(
        tmp_path,
        """
        from k8sflow import Config
        shared = Config("shared", default_value={"cpu": 1})
        class A(FlowSpec):
            conf = shared
            @resources(cpu=shared.cpu)
            @step
            def start(self): pass
        class F(FlowSpec):
            other = shared
            @resources(cpu=shared.cpu)
            @step
            def start(self): pass
        """,
    )
    second = load_flow(file)
    first = second.start.__globals__["A"]
    for definition, cpu in ((_compiled(first, conf={"cpu": 2}), 2), (_compiled(second, other={"cpu": 3}), 3)):
        assert definition.decorations_of("start")[-1].options == {"cpu": cpu}


@pytest.mark.parametrize(
    ("use", "words"),
    [
        ("{'prod': 1}[cfg.env]", r"the key of a dict .* needs the value of cfg\.env"),
        ("__import__('json').dumps({'a': cfg.env})", r"json\.dumps\(\) needs the value of cfg\.env"),
    ],
)
def test_what_nothing_can_take_the_place_of_is_an_error_at_once(tmp_path: Path, use: str, words: str) -> None:
    """With the line and the advice, where else a KeyError or a TypeError would hide them."""
    file = write_flow(tmp_path, USES.format(use=use))
    with pytest.raises(FlowDefinitionError, match=rf"flow\.py:\d+: {words}") as refused:
        load_flow(file)
    assert f'config_expr("{use}")' in refused.value.advice


def test_the_advice_has_the_whole_expression(tmp_path: Path) -> None:
    """Not the part of it in which the value is needed first."""
    use = "','.join((str(i) for i in cfg.list))"
    with pytest.raises(FlowDefinitionError) as refused:
        compile_flow(load_flow(write_flow(tmp_path, USES.format(use=use))))
    assert f'Write config_expr("{use}")' in refused.value.advice


UNPACKED = """
    from k8sflow import Config, environment, retry, user_step_decorator
    import os

    @user_step_decorator
    def noted(step_name, flow, inputs=None, attributes=None):
        print("NOTED", attributes)
        yield

    class F(FlowSpec):
        cfg = Config("cfg", default_value={{"retry": {{"times": 2}}, "env": {{"X": "1", "Y": "1"}}, "text": "abc"}})
        rest = Config("rest", default_value={{"a": 1}})

        @noted(b=2, **rest)
        @retry({options})
        @environment(vars={{"X": "0", **cfg.env, "Y": "2"}})
        @step
        def start(self):
            print("ENV", os.environ["X"], os.environ["Y"])
            self.next(self.end)

        @step
        def end(self):
            pass
"""


def test_tables_can_be_unpacked_into_options(tmp_path: Path) -> None:
    """As in Metaflow, with ``**``, also beside options that are written out and in a table of one's own."""
    done = run_flow(write_flow(tmp_path, UNPACKED.format(options="minutes_between_retries=0, **cfg.retry")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ENV 1 2" in done.stdout
    assert "NOTED {'b': 2, 'a': 1}" in done.stdout
    for options, words in (
        ("times=1, **cfg.retry", "times is given twice: **cfg.retry has it too"),
        ("**cfg.text", "**cfg.text is of type str, which can't be unpacked as a table"),
        ("**cfg.env", "@retry has no option 'X'"),
    ):
        refused = run_flow(write_flow(tmp_path, UNPACKED.format(options=options)))
        assert refused.returncode == 1
        assert words in refused.stderr


def test_a_list_of_values_that_are_not_known_is_a_mistake(tmp_path: Path) -> None:
    """A step would see the list with what is in it before the run."""
    file = write_flow(tmp_path, USES.format(use="1").replace("@step", "both = [cfg.env, 1]\n        @step", 1))
    with pytest.raises(FlowDefinitionError, match=r"F has a mistake") as refused:
        compile_flow(load_flow(file))
    assert "both holds values of configs" in refused.value.advice
