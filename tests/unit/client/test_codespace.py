"""A reader finds the classes of the run that it reads, and never those of another flow."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import run_in

FLOW = """
    import helpers
    from k8sflow import FlowSpec, step

    class Result:
        def name(self):
            return "LETTER"

    class TrainLETTER(FlowSpec):
        @step
        def start(self):
            from models import Model, make
            self.model = Model(1)
            self.result = Result()
            self.make = make
            self.scale = lambda x: __import__("helpers").describe() + str(x) if x else helpers.describe()
            self.next(self.end)
        @step
        def end(self):
            pass

    if __name__ == "__main__":
        TrainLETTER()
"""
MODELS = """
    from __future__ import annotations

    from dataclasses import dataclass
    from typing import ClassVar

    import helpers

    @dataclass
    class Model:
        x: int
        kind: ClassVar[str] = "model"

        def predict(self):
            return f"{helpers.describe()}{self.x}"

        def late(self):
            import importlib
            from helpers import describe
            import parts.deep as deep
            from parts import shallow
            found = importlib.import_module("helpers")
            return [describe(), deep.describe(), shallow.describe(), found.describe()]

    class Only_LETTER:
        pass

    def make():
        return Only_LETTER()
"""


def _read_data(flow: str, shown: str) -> str:
    """A program that prints something of the data of a run's first task."""
    return f'from k8sflow import Flow\ndata = Flow("{flow}").latest_run["start"].task.data\nprint({shown})\n'


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(textwrap.dedent(text))


def _project(folder: Path, letter: str, root: Path | None = None) -> Path:
    """A folder with a flow and its modules; the flow has run."""
    _write(folder / "flow.py", FLOW.replace("LETTER", letter))
    _write(folder / "models.py", MODELS.replace("LETTER", letter))
    _write(folder / "helpers.py", f"def describe(): return {letter!r}")
    _write(folder / "parts/__init__.py", "")
    _write(folder / "parts/deep.py", "from .shallow import describe")
    _write(
        folder / "parts/shallow.py",
        f"from helpers import describe as described\ndef describe(): return {letter.lower()!r}",
    )
    _python(folder, "flow.py", "run", "--run-id", "r1", root=root)
    return folder


def _python(folder: Path, *arguments: str, root: Path | None = None) -> str:
    changes = {"K8SFLOW_ROOT": str(root)} if root else {}
    done = run_in(folder, sys.executable, *arguments, **changes)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the projects A and B, whose runs are in one store."""
    folder = tmp_path_factory.mktemp("both")
    for letter in "AB":
        _project(folder / letter.lower(), letter, folder / "state")
    (folder / "nb").mkdir()
    return folder


MAIN = "from k8sflow.cli.main import main; main()"
READ = """
import sys
from k8sflow import Flow
a, b = Flow("TrainA").latest_run["start"].task, Flow("TrainB").latest_run["start"].task
"""


def _read(both: Path, code: str, folder: str = "nb") -> list[str]:
    return _python(both / folder, "-c", READ + textwrap.dedent(code), root=both / "state").splitlines()


def test_two_flows_that_each_have_a_module_of_a_name(both: Path) -> None:
    """Both are read in turn: classes of the module and of the flow's file, functions, lambdas."""
    shown = _read(
        both,
        """
        for task in a, b, a:
            data = task.data
            print(data.model.predict(), data.result.name(), data.make().__class__.__name__, data.model.kind)
            print(task["scale"].data(0), task["scale"].data(1), *data.model.late())
        print(type(a.data.model) is type(a["model"].data), type(a.data.model) is type(b.data.model))
        """,
    )
    of_a, of_b = ["A1 A Only_A model", "A A1 A a a A"], ["B1 B Only_B model", "B B1 B b b B"]
    assert shown == [*of_a, *of_b, *of_a, "True False"]


def test_the_readers_own_modules_stay_its_own(both: Path) -> None:
    """This holds for modules imported before and after."""
    for name in ("models", "helpers"):
        (both / "nb" / f"{name}.py").write_text("class Model: mine = True\ndef describe(): return 'mine'\n")
    shown = _read(
        both,
        """
        import models
        print(a.data.model.predict(), *a.data.model.late(), models.Model.mine)
        import helpers, importlib
        print(helpers.describe(), importlib.import_module("helpers").describe(), b.data.model.predict())
        print([name for name in ("parts", "parts.deep") if name in sys.modules])
        """,
    )
    assert shown == ["A1 A a a A True", "mine mine B1", "[]"]


def test_a_reader_in_the_flows_folder_has_the_same_classes(both: Path) -> None:
    """As modules that it imports itself, before or after; those of another flow are not taken for them."""
    shown = _read(
        both,
        """
        print(b.data.model.predict(), a.data.model.predict())
        from models import Model
        print(isinstance(a.data.model, Model), isinstance(b.data.model, Model))
        """,
        folder="a",
    )
    assert shown == ["B1 A1", "True False"]


def test_threads_may_read_at_once(both: Path) -> None:
    """Each what it asked for."""
    shown = _read(
        both,
        """
        from concurrent.futures import ThreadPoolExecutor
        def read(number):
            task = (a, b)[number % 2]
            return task["model"].data.predict() + task["result"].data.name()
        with ThreadPoolExecutor(8) as pool:
            print("".join(pool.map(read, range(40))))
        """,
    )
    assert shown == ["A1AB1B" * 20]


def test_values_of_another_run_go_on_as_artifacts(both: Path, tmp_path: Path) -> None:
    """A later step has none of the names under which the task that read them had their classes."""
    _write(
        tmp_path / "later.py",
        """
        from k8sflow import Flow, FlowSpec, step
        class Later(FlowSpec):
            @step
            def start(self):
                self.models = [Flow(name).latest_run["start"].task.data.model for name in ("TrainA", "TrainB")]
                self.next(self.end)
            @step
            def end(self):
                print("seen", [model.predict() for model in self.models])
        if __name__ == "__main__":
            Later()
        """,
    )
    assert "seen ['A1', 'B1']" in _python(tmp_path, "later.py", "run", root=both / "state")


def test_a_pickle_of_what_was_read_is_for_any_program(both: Path, tmp_path: Path) -> None:
    """As `dump --file` writes it."""
    _python(
        both / "nb",
        "-c",
        MAIN,
        "dump",
        "TrainB/r1/start",
        "--file",
        str(tmp_path / "b"),
        root=both / "state",
    )
    code = "import pathlib, pickle\nfound = pickle.loads(pathlib.Path('b').read_bytes())['TrainB/r1/start/0']\n"
    code += "print(found['model'].predict())"
    assert _python(tmp_path, "-c", code) == "B1\n"


def test_missing_code_is_reported(tmp_path: Path) -> None:
    """The reader's own modules of the same names are not used."""
    project = _project(tmp_path / "old", "A", tmp_path / "state")
    shutil.rmtree(project)
    _project(tmp_path / "other", "B", tmp_path / "state")
    code = """
    from k8sflow import Flow
    for name in "model", "result":
        try:
            print(Flow("TrainA").latest_run["start"].task[name].data.predict())
        except Exception as error:
            print(type(error).__name__, error)
    """
    shown = _python(tmp_path / "other", "-c", textwrap.dedent(code), root=tmp_path / "state")
    assert shown.count("ArtifactError the artifact") == 2
    assert "models.Model is in the code of TrainA/r1, which is not available here" in shown
    assert "Result is a class in the flow's own file, flow.py, which can't be used here" in shown


def test_a_project_that_was_moved_is_found_beside_its_store(tmp_path: Path) -> None:
    """Read from a folder in it, or from anywhere; also where the runs are kept above the flow."""
    _project(tmp_path / "old", "A")
    (tmp_path / "old").rename(tmp_path / "new")
    (tmp_path / "new/nb").mkdir()
    code = _read_data("TrainA", "data.model.predict(), data.result.name()")
    assert _python(tmp_path / "new/nb", "-c", code) == "A1 A\n"
    assert _python(tmp_path, "-c", code, root=tmp_path / "new/.k8sflow") == "A1 A\n"
    _project(tmp_path / "home/project/flows", "A", tmp_path / "home/project/.k8sflow")
    (tmp_path / "home/project").rename(tmp_path / "app")
    assert _python(tmp_path, "-c", code, root=tmp_path / "app/.k8sflow") == "A1 A\n"


def test_a_run_in_a_container_is_read_in_the_project_on_the_host(tmp_path: Path) -> None:
    """The code has another path, and the store another location; a plain folder of data is not a module."""
    _write(tmp_path / "container/app/json/data.txt", "no module")
    _project(tmp_path / "container/app", "A", tmp_path / "state")
    shutil.copytree(tmp_path / "container/app", tmp_path / "host/checkout")
    shutil.rmtree(tmp_path / "container")
    code = _read_data("TrainA", "data.model.predict(), data.result.name()")
    assert _python(tmp_path / "host/checkout", "-c", code, root=tmp_path / "state") == "A1 A\n"


def _package(folder: Path) -> None:
    for name in ("pkg", "pkg/flows"):
        _write(folder / name / "__init__.py", "")
    _write(folder / "pkg/shapes.py", "class Square:\n    def area(self): return 4\n")
    _write(
        folder / "pkg/flows/train.py",
        """
        from k8sflow import FlowSpec, step
        from ..shapes import Square
        from . import sizes

        class Result(Square):
            def area(self):
                from ..shapes import Square
                return Square().area() + sizes.ONE

        class Packed(FlowSpec):
            @step
            def start(self):
                self.result, self.square = Result(), Square()
                self.next(self.end)
            @step
            def end(self):
                pass

        if __name__ == "__main__":
            Packed()
        """,
    )
    _write(folder / "pkg/flows/sizes.py", "ONE = 1\n")


def test_a_flow_in_a_package(tmp_path: Path) -> None:
    """Run by its module's name: `dump` and readers anywhere find its classes, with their relative imports."""
    project = tmp_path / "project"
    _package(project)
    _python(project, "-m", "pkg.flows.train", "run", "--run-id", "r1")
    shown = _python(project, "-m", "pkg.flows.train", "dump", "start")
    assert "can't be loaded" not in shown
    assert "Result object" in shown
    root = next(project.rglob(".k8sflow"))
    assert "Square object" in _python(tmp_path, "-c", MAIN, "dump", "Packed/r1/start", root=root)
    code = _read_data("Packed", "data.result.area(), data.square.area(), isinstance(data.result, type(data.square))")
    assert _python(tmp_path, "-c", code, root=root) == "5 4 True\n"
    assert _python(project, "-c", code, root=root) == "5 4 True\n"
    assert _python(project, "-c", f"import pkg.shapes\n{code}", root=root) == "5 4 True\n"
    project.rename(tmp_path / "moved")
    root = next((tmp_path / "moved").rglob(".k8sflow"))
    assert _python(tmp_path, "-c", code, root=root) == "5 4 True\n"


def _recorded(shown: str) -> str:
    """A program that prints something of the data of TrainA's first task, and the warnings about it."""
    return f"""
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("default")
    from k8sflow import Flow
    data = Flow("TrainA").latest_run["start"].task.data
    try:
        print({shown})
    except Exception as error:
        print(type(error).__name__, error)
print(*[str(warning.message) for warning in caught if warning.category is UserWarning], sep="\\n")
"""


def test_another_project_at_the_original_path_is_not_used(tmp_path: Path) -> None:
    """Although its file names the flow and its steps: the moved project has the run's very code."""
    _project(tmp_path / "old", "A")
    (tmp_path / "old").rename(tmp_path / "new")
    _project(tmp_path / "old", "B", tmp_path / "state")
    flow = tmp_path / "old/flow.py"
    flow.write_text(flow.read_text().replace("TrainB", "TrainA"))
    code = _recorded("data.model.predict(), data.result.name()")
    assert _python(tmp_path, "-c", code, root=tmp_path / "new/.k8sflow") == "A1 A\n\n"
    assert _python(tmp_path / "old", "-c", code, root=tmp_path / "new/.k8sflow") == "A1 A\n\n"


def test_a_flow_with_other_steps_at_the_original_path_is_not_used(tmp_path: Path) -> None:
    """Nor are the modules beside it."""
    flow = _project(tmp_path / "old", "A", tmp_path / "state") / "flow.py"
    flow.write_text(flow.read_text().replace("start", "begin"))
    for shown in ("data.model.predict()", "data.result.name()"):
        assert "ArtifactError" in _python(tmp_path, "-c", _recorded(shown), root=tmp_path / "state")


@pytest.mark.parametrize("file", ["flow.py", "helpers.py"])
def test_code_that_has_changed_since_the_run_is_used_with_a_warning(tmp_path: Path, file: str) -> None:
    changed = _project(tmp_path / "old", "A", tmp_path / "state") / file
    changed.write_text(changed.read_text() + "\n# edited\n")
    code = _recorded("data.model.predict(), data.result.name()")
    shown = _python(tmp_path, "-c", code, root=tmp_path / "state").splitlines()
    assert shown[0] == "A1 A"
    changes = f"{tmp_path / 'old'} has changed since TrainA/r1 was started: {file}."
    assert shown[1:] == [f"{changes} The classes of its artifacts are taken from the current code."]
