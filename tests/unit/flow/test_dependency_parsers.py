"""Parsers of files with packages, with the results that Metaflow's have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k8sflow import conda_environment_yml_parser, pyproject_toml_parser, requirements_txt_parser
from k8sflow.flow.dependency_parsers import ParserValueError
from k8sflow.toml import TOMLDecodeError
from tests.support import flow_command, write_flow
from tests.wheels import make_wheel, shades, uv_settings

ENVIRONMENT = """\
name: x
channels:
  - conda-forge
dependencies:
  - python=3.9  # a comment
  - numpy=1.21.2
  - scipy
  - pandas>=1,<2
  - x==1=b
prefix: y
"""


@pytest.mark.parametrize(
    ("text", "packages", "python"),
    [
        ("a==1\nb>=2, <3\n# c\nd[y,x] ~=1.2  # z\n-e file:.\n", {"a": "1", "b": "<3,>=2", "d[x,y]": "~=1.2"}, None),
        ("e @ git+https://h/x@main\npython>=3.9\n", {"e@git+https://h/x@main": ""}, ">=3.9"),
        ("python\nPython==3.9\na===1\nb (>=1,)\n", {"a": "1", "b": ">=1"}, "3.9"),
        ("", {}, None),
    ],
)
def test_requirements(text: str, packages: dict[str, str], python: str | None) -> None:
    assert requirements_txt_parser(text) == {"packages": packages, "python": python}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n-r x\n", "line 2: '-r x' is not a valid requirement"),
        ("a; python_version < '3'", "has a marker"),
        ("a ==", "not a valid requirement"),
        ("a = 1", "not a valid requirement"),
        ("python==3.9\npython==3.10", "a second version of Python"),
    ],
)
def test_a_requirement_that_packages_can_not_express_is_refused(text: str, message: str) -> None:
    with pytest.raises(ParserValueError, match=message):
        requirements_txt_parser(text)


def test_a_project() -> None:
    text = '[project]\nrequires-python = "==3.9.*"\ndependencies = ["a==1", "b[x] >= 2", "python"]\n'
    assert pyproject_toml_parser(text) == {"packages": {"a": "1", "b[x]": ">=2"}, "python": None}
    assert pyproject_toml_parser(text.replace(', "python"', ""))["python"] == "3.9.*"
    assert pyproject_toml_parser("") == {"packages": {}, "python": None}
    with pytest.raises(ParserValueError, match="has a marker"):
        pyproject_toml_parser("[project]\ndependencies = [\"a; os_name == 'x'\"]")
    with pytest.raises(TOMLDecodeError):
        pyproject_toml_parser("x=")


def test_an_environment_of_conda() -> None:
    packages = {"numpy": "1.21.2", "scipy": "", "pandas": ">=1,<2", "x": "1=b"}
    assert conda_environment_yml_parser(ENVIRONMENT) == {"packages": packages, "python": "3.9"}
    assert conda_environment_yml_parser("") == {"packages": {}, "python": None}


@pytest.mark.parametrize("line", ["pip:", "conda-forge::x", "a 1.2"])
def test_a_line_of_conda_that_packages_can_not_express_is_refused(line: str) -> None:
    with pytest.raises(ParserValueError, match="line 2"):
        conda_environment_yml_parser(f"dependencies:\n  - {line}\n")


FLOW = """
    from k8sflow import FlowSpec, Config, PARSER, config_expr, BASE, step
    @BASE(packages=config_expr("deps.packages"), python=config_expr("deps.python"))
    class F(FlowSpec):
        deps = Config("deps", default="FILE", parser=PARSER)
        @step
        def start(self):
            import shade
            print("version", shade.VERSION, sorted(self.deps.packages))
            self.next(self.end)
        @step
        def end(self): ...
"""


@pytest.mark.parametrize(
    ("parser", "file", "text", "base"),
    [
        (
            "requirements_txt_parser",
            "requirements.txt",
            "shade>=1,<2\nink @ FOLDER/ink-1.0-py3-none-any.whl\n",
            "pypi_base",
        ),
        (
            "pyproject_toml_parser",
            "pyproject.toml",
            "[project]\nrequires-python='>=3.9'\ndependencies=['shade<2']",
            "pypi_base",
        ),
        ("conda_environment_yml_parser", "environment.yml", "dependencies:\n- python\n- shade=1.0\n", "conda_base"),
    ],
)
def test_a_config_names_the_packages(tmp_path: Path, parser: str, file: str, text: str, base: str) -> None:
    shades(tmp_path / "wheels")
    make_wheel(tmp_path / "own", "ink", "1.0", {"ink.py": ""})
    (tmp_path / file).write_text(text.replace("FOLDER", (tmp_path / "own").as_uri()))
    changes: dict[str, Any] = uv_settings(tmp_path / "wheels", tmp_path / "cache")
    source = FLOW.replace("PARSER", parser).replace("FILE", file).replace("BASE", base)
    done = flow_command(write_flow(tmp_path, source), "run", **changes)
    assert "version 1.0" in done.stdout, done.stderr
