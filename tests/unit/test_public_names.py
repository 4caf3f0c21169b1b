"""The names of `import k8sflow`, and the cost of importing them."""

from __future__ import annotations

from pathlib import Path

import pytest

import k8sflow
from tests.support import in_python, write_flow

HEAVY = {
    "kubernetes",
    "boto3",
    "botocore",
    "numpy",
    "aiohttp",
    "click",
    "cloudpickle",
    "yaml",
    "rich",
    "kopf",
    "asyncio",
    "logging",
}


def test_all_is_sorted_and_complete() -> None:
    """Each name can be imported, and is listed by dir()."""
    assert list(k8sflow.__all__) == sorted(
        k8sflow.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name)
    )
    assert set(k8sflow.__all__) == set(k8sflow._HOMES)
    for name in k8sflow.__all__:
        assert getattr(k8sflow, name) is not None
        assert name in dir(k8sflow)


# Packages that the runtime in a pod doesn't have; boto3 is there, but no name may need it to be imported.
ABSENT = {"aiohttp", "multidict", "yarl", "kubernetes", "yaml", "rich", "kopf", "boto3", "botocore", "tomli", "numpy"}
BLOCKER = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize("statement", ["from k8sflow import *", *(f"from k8sflow import {n}" for n in k8sflow.__all__)])
def test_every_name_can_be_imported_in_a_pod(statement: str) -> None:
    """A flow's file may import any of them at its top, in an interpreter with the packages of a pod."""
    done = in_python(f"{BLOCKER}\n{statement}\nprint('imported')")
    assert done.stdout == "imported\n", done.stderr


def test_a_deployer_in_a_pod_reports_the_missing_package(tmp_path: Path) -> None:
    """The error is raised when it is used, and isn't an ImportError in k8sflow's code."""
    source = """
        class F(FlowSpec):
            @step
            def start(self): self.next(self.end)
            @step
            def end(self): pass
    """
    file = write_flow(tmp_path, source)
    done = in_python(f"{BLOCKER}\nfrom k8sflow import Deployer\nDeployer({str(file)!r}).kubernetes().create()")
    assert "the package aiohttp is not installed" in done.stderr
    assert "Install k8sflow in the step's image" in done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The module behaves like any other."""
    with pytest.raises(AttributeError, match="no attribute 'Flwo'"):
        k8sflow.Flwo  # noqa: B018


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import k8sflow", set()),
        ("from k8sflow import FlowSpec, Parameter, resources, kubernetes, step", set()),
        ("from k8sflow import parallel_map", set()),
        ("import k8sflow.cli.flow", {"click"}),
        ("import k8sflow.task.host.agent, k8sflow.task.inside.task_runner, k8sflow.storage.folder", set()),
        ("import k8sflow.runtime.commands.run, k8sflow.runtime.commands.attach, k8sflow.executors.local", {"click"}),
    ],
)
def test_imports_load_no_more_than_they_need(code: str, allowed: set[str]) -> None:
    """A flow starts once for each pod, and a person waits for --help."""
    done = in_python(f"import sys\n{code}\nprint(*sorted(set(m.partition('.')[0] for m in sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(done.stdout.split()) <= allowed


def test_a_flow_without_cache_loads_nothing_of_it() -> None:
    done = in_python(
        "import sys, k8sflow.runtime.session, k8sflow.runtime.commands.drive, k8sflow.task.inside.task_runner\n"
        "print(*sys.modules)"
    )
    assert done.returncode == 0, done.stderr
    assert not {"k8sflow.task.cached", "k8sflow.storage.cache_index"} & set(done.stdout.split())


def test_help_loads_nothing_that_only_a_run_needs(tmp_path: Path) -> None:
    """It loads neither the records of runs, nor commands that need no flow, nor the parser of settings."""
    file = write_flow(tmp_path, "class F(FlowSpec): pass\n")
    code = "import runpy, sys\nsys.argv[1:] = ['--help']\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += "except SystemExit: print('LOADED', *sys.modules)"
    done = in_python(f"import sys; sys.argv[0] = {str(file)!r}\n{code}")
    loaded = done.stdout.partition("LOADED")[2].split()
    assert "k8sflow.cli.flow" in loaded, done.stderr
    assert not {"k8sflow.cli.main", "k8sflow.storage.records", "k8sflow.runtime.commands.run", "tomllib"} & set(loaded)


def test_the_decorator_kubernetes_may_be_imported_late() -> None:
    """The package of the same name may be loaded already, as in a notebook after a run."""
    done = in_python(
        """
        import k8sflow.kubernetes.names
        from k8sflow import kubernetes, step
        from k8sflow.flow.decorators import base
        @kubernetes(image="x")
        @step
        def start(self): ...
        @step
        def end(self): ...
        assert k8sflow.kubernetes(image="x")(end) is end
        assert k8sflow.kubernetes.names
        print(dict(base.of(start)[0].options))
        """
    )
    assert "'image': 'x'" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["kubernetes", "parallel"])
def test_a_decorator_may_have_the_name_of_a_module(name: str) -> None:
    """Either may be imported first; both can be used afterwards."""
    use = {"kubernetes": "kubernetes(cpu=1)", "parallel": "parallel"}[name]
    for imports in (
        f"import k8sflow.{name}; from k8sflow import {name}",
        f"from k8sflow import {name}; import k8sflow.{name}",
        f"from k8sflow import parallel_map; import k8sflow.kubernetes.names; from k8sflow import {name}",
    ):
        done = in_python(f"""
            {imports}
            from k8sflow.flow.decorators import base
            @{use}
            def f(self): pass
            assert [d.name for d in base.of(f)] == ["{name}"]
            import inspect
            from k8sflow.flow.decorators import {name} as home
            assert inspect.signature({name}) == inspect.signature(home.{name})
            assert {name}.name == "{name}"
            from k8sflow.{name} import __name__ as found
            assert found == "k8sflow.{name}"
        """)
        assert done.returncode == 0, done.stderr
