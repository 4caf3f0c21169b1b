"""The configs of a flow and their values: each flow has its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from k8sflow import Config, FlowSpec, Parameter, config_expr, environment, resources, step
from k8sflow.flow.compile import compile_flow
from k8sflow.flow.config_set import ConfigSet
from k8sflow.flow.definition import FlowDefinition
from tests.support import load_flow, write_flow


class Base(FlowSpec):
    """A flow whose steps and parameter depend on its config."""

    limits: Any = Config("limits", default_value={"cpu": 1})
    cpu = Parameter("cpu", type=int, default=config_expr("limits.cpu"))
    twice = Parameter("twice", default=limits.cpu)

    @resources(cpu=config_expr("limits.cpu"))
    @environment(vars={"CPU": limits.cpu})
    @step
    def start(self) -> None:
        """The only step."""


class Small(Base):
    """A flow that inherits everything."""


class Large(Base):
    """A flow with another default."""

    limits: Any = Config("limits", default_value={"cpu": 16})


class Other(FlowSpec):
    """A flow with a config of the same name."""

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
    """This holds if they inherit them, replace them, or have one of the same name."""
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
