"""Values of configs in a class body: evaluated when the run starts."""

from __future__ import annotations

from typing import Any

import pytest

from k8sflow import Config, FlowSpec, config_expr
from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.config_expressions import running
from k8sflow.flow.config_set import ConfigSet


def test_outside_of_a_class_body_a_value_is_available_once_it_is_known() -> None:
    """Before that, using it raises an error at once, since no check would find it."""

    class F(FlowSpec):
        cfg: Any = Config("cfg", default_value={"n": 2, "a": {"b": 1}})
        n: Any = cfg.n
        double: Any = config_expr("cfg.n * 2")

    with pytest.raises(FlowDefinitionError, match=r"test_config_expressions\.py:\d+: == needs the value of cfg\.n"):
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
