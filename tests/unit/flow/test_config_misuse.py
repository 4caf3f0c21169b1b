"""Uses of a config's value in a class body, where it isn't known yet."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from k8sflow.errors import FlowDefinitionError
from k8sflow.flow.compile import compile_flow
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
        "5 if cfg.n is None else 6", "cfg.env is not None", "isinstance(cfg.n, int)", "hasattr(cfg, 'none')",
        "getattr(cfg, 'none', 3)", "type(cfg.n).__name__", "callable(cfg.n)", "None is cfg.get('env')", "[*cfg.list]",
        "(1, *cfg.list)",
    ],
)  # fmt: skip
def test_a_use_of_a_value_that_is_not_known_is_a_mistake(tmp_path: Path, use: str) -> None:
    """The check reports it, with the file, the line and what to write."""
    file = write_flow(tmp_path, USES.format(use=use))
    with pytest.raises(FlowDefinitionError, match=r"F has (a|\d) mistake") as refused:
        compile_flow(load_flow(file))
    line = 1 + file.read_text().splitlines().index(f'    used = Parameter("used", default={use})')
    assert f"{file}:{line}" in refused.value.advice
    assert "known only when a run starts" in refused.value.advice
    assert "config_expr(" in refused.value.advice


def test_native_code_that_refuses_a_value_names_what_it_is(tmp_path: Path) -> None:
    """Python's error has the class's name alone, and no method of the value is called: str.join, timedelta, re.sub."""
    for use in ("'/'.join([cfg.bucket])", "datetime.timedelta(seconds=cfg.n).seconds", "re.sub('a', 'b', cfg.bucket)"):
        file = write_flow(tmp_path, "    import datetime, re\n" + USES.strip("\n").format(use=use))
        with pytest.raises(TypeError, match=r"UnknownConfigValue|expected string or bytes-like"):
            load_flow(file)


def test_the_advice_works_as_it_is_written(tmp_path: Path) -> None:
    """All mistakes are reported at once, nothing runs, and the corrected flow passes."""
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


def test_a_decorators_option_by_position_is_still_a_mistake(tmp_path: Path) -> None:
    """A delayed value can be called, but is not a step."""
    source = USES.format(use=1).replace(
        "    @step\n        def start", "    @retry(cfg.n)\n        @step\n        def start"
    )
    file = write_flow(tmp_path, source.replace("environment", "retry"))
    with pytest.raises(FlowDefinitionError) as refused:
        compile_flow(load_flow(file))
    assert "@retry takes its options by name" in refused.value.advice


@pytest.mark.parametrize(
    ("use", "words"),
    [
        ("{'prod': 1}[cfg.env]", r"the key of a dict .* needs the value of cfg\.env"),
        ("__import__('json').dumps({'a': cfg.env})", r"json\.dumps\(\) needs the value of cfg\.env"),
    ],
)
def test_a_use_that_can_not_be_delayed_is_an_error_at_once(tmp_path: Path, use: str, words: str) -> None:
    """The error has the line and the advice; otherwise a KeyError or TypeError would hide them."""
    file = write_flow(tmp_path, USES.format(use=use))
    with pytest.raises(FlowDefinitionError, match=rf"flow\.py:\d+: {words}") as refused:
        load_flow(file)
    assert f'config_expr("{use}")' in refused.value.advice


def test_the_advice_has_the_whole_expression(tmp_path: Path) -> None:
    """The advice isn't only the part of it that needs the value first."""
    use = "','.join((str(i) for i in cfg.list))"
    with pytest.raises(FlowDefinitionError) as refused:
        compile_flow(load_flow(write_flow(tmp_path, USES.format(use=use))))
    assert f'Write config_expr("{use}")' in refused.value.advice


def test_a_list_of_values_that_are_not_known_is_a_mistake(tmp_path: Path) -> None:
    """A step would see the list as it is before the run."""
    file = write_flow(tmp_path, USES.format(use="1").replace("@step", "both = [cfg.env, 1]\n        @step", 1))
    with pytest.raises(FlowDefinitionError, match=r"F has a mistake") as refused:
        compile_flow(load_flow(file))
    assert "both holds values of configs" in refused.value.advice
