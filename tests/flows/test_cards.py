"""Cards of real runs: where they are kept, and that none of them harms its step."""

from __future__ import annotations

import http.client
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from k8sflow.cards import get_cards
from k8sflow.client import Run, Task
from k8sflow.storage.folder import FolderStore
from k8sflow.storage.run_store import RunStore
from k8sflow.storage.sizes import size_of
from tests.support import environment, run_flow, run_in, running, wait_for, write_flow

HEAD = """from k8sflow import FlowSpec, card, catch, current, retry, step
from k8sflow.cards import *
import os, time
"""
FLOW = """
{top}
class F(FlowSpec):
    {decorators}
    @step
    def start(self):
        {body}
        self.next(self.end)
    @step
    def end(self): pass
"""


def flow(folder: Path, body: str = "pass", decorators: str = "@card", top: str = "") -> Path:
    """Write a flow with cards on its first step."""
    return write_flow(folder, FLOW.format(body=body, decorators=decorators, top=top), head=HEAD)


def run(folder: Path) -> Run:
    """The records of the run r."""
    return Run(RunStore(FolderStore(str(folder / ".k8sflow")), "F", "r"))


def start(folder: Path) -> Task:
    """The task of the first step."""
    return run(folder)["start"]["0"]


def done(file: Path, *arguments: str) -> str:
    """The output of a run that succeeds."""
    found = run_flow(file, "--run-id", "r", *arguments)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout + found.stderr


def test_the_default_card_shows_the_task(tmp_path: Path) -> None:
    file = flow(tmp_path, 'self.text = "<script>"; print("hello")')
    done(file)
    page = get_cards(start(tmp_path))[0].get()
    for expected in ("F/r/start/0", "succeeded", "&lt;script&gt;", "hello", "image/svg+xml", "text"):
        assert expected in page
    assert "<script>" not in page


def test_cards_are_listed_read_and_counted(tmp_path: Path) -> None:
    body = 'current.card["a"].append(Markdown("**A**")); current.card.append(Table([[1]]))'
    done(flow(tmp_path, body, '@card(type="blank", id="a")\n    @card'))
    found = get_cards(start(tmp_path))
    assert [(each.type, each.id) for each in found] == [("blank", "a"), ("default", None)]
    assert "<strong>A</strong>" in found[0].get()
    assert "<td" in found[1].get()
    assert get_cards(start(tmp_path), type="default")[0].file == "1.default"
    assert "sandbox" in found._repr_html_()
    words = run_in(tmp_path, sys.executable, "flow.py", "card", "get", "r/start/0", "a.html", "--id", "a")
    assert words.returncode == 0, words.stderr
    assert (tmp_path / "a.html").read_text() == found[0].get()
    listed = run_in(tmp_path, sys.executable, "flow.py", "card", "list")
    assert "0.blank.a.html" in listed.stdout
    several = run_in(tmp_path, sys.executable, "flow.py", "card", "get")
    assert several.returncode != 0
    assert "there are 2 such cards" in several.stderr
    assert size_of(FolderStore(str(tmp_path / ".k8sflow")), "F").cards >= len(found[0].get())


@pytest.mark.parametrize(
    ("render", "why"),
    [
        ("raise ValueError('no data')", "ValueError: no data"),
        ("time.sleep(1000)", "it was not made within 1 s"),
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("os._exit(7)", "exit code 7"),
        ("x = bytearray(1 << 44)", "more memory than a card may use"),
    ],
)
def test_a_card_that_fails_is_replaced_by_its_error_and_harms_nothing(tmp_path: Path, render: str, why: str) -> None:
    top = f"class Bad(MetaflowCard):\n    type = 'bad'\n    def render(self, task):\n        {render}\n"
    output = done(flow(tmp_path, decorators='@card\n    @card(type="bad", timeout=1)', top=top))
    assert why in output
    good, bad = get_cards(start(tmp_path))
    assert "succeeded" in good.get()
    assert why.rsplit(":", maxsplit=1)[-1].strip() in bad.get()


def test_without_save_errors_a_card_that_fails_is_missing(tmp_path: Path) -> None:
    output = done(flow(tmp_path, decorators='@card(type="unknown", save_errors=False)'))
    assert "there is no type 'unknown' of cards" in output
    assert not get_cards(start(tmp_path))


def test_a_class_of_the_flow_makes_the_whole_page(tmp_path: Path) -> None:
    top = (
        "class Own(MetaflowCard):\n    type = 'own'\n    ALLOW_USER_COMPONENTS = True\n"
        "    def render(self, task):\n        return task.data.text + self.options['more'] + ''.join(self.components)\n"
        "class Line(MetaflowCardComponent):\n    def render(self):\n        return '<hr>'\n"
    )
    body = 'self.text = "<p>"; current.card.append(Line())'
    done(flow(tmp_path, body, '@card(type="own", options={"more": "!"})', top))
    assert get_cards(start(tmp_path))[0].get() == "<p>!<hr>"


def test_each_branch_and_each_attempt_has_its_card(tmp_path: Path) -> None:
    source = """
class F(FlowSpec):
    @step
    def start(self):
        self.items = [1, 2]
        self.next(self.work, foreach="items")
    @card
    @retry(times=1, minutes_between_retries=0)
    @catch(var="failed")
    @step
    def work(self):
        current.card.append(f"item {self.input} attempt {current.retry_count}")
        if self.input == 2 or current.retry_count == 0:
            raise ValueError("never")
        self.next(self.join)
    @step
    def join(self, inputs):
        self.next(self.end)
    @step
    def end(self): pass
"""
    done(write_flow(tmp_path, source, head=HEAD))
    tasks = sorted(run(tmp_path)["work"], key=lambda task: task.id)
    for number, task in enumerate(tasks, 1):
        for attempt in (0, 1):
            page = get_cards(Task(task.id, parent=task.parent, attempt=attempt))[0].get()
            assert f"item {number} attempt {attempt}" in page


def test_a_failed_task_has_a_card_and_a_resumed_run_those_of_its_origin(tmp_path: Path) -> None:
    source = """
class F(FlowSpec):
    @card
    @step
    def start(self):
        self.next(self.end)
    @card
    @step
    def end(self):
        if current.origin_run_id is None:
            raise ValueError("first <b>")
"""
    file = write_flow(tmp_path, source, head=HEAD)
    assert run_flow(file, "--run-id", "r").returncode != 0
    assert "ValueError: first &lt;b&gt;" in get_cards(run(tmp_path)["end"]["0"])[0].get()
    resumed = run_in(tmp_path, sys.executable, "flow.py", "resume", "--origin-run-id", "r", "--run-id", "second")
    assert resumed.returncode == 0, resumed.stderr
    again = Run(RunStore(FolderStore(str(tmp_path / ".k8sflow")), "F", "second"))
    clone = again["start"]["0"]
    assert "F/r/start/0" in get_cards(clone)[0].get()
    assert not get_cards(clone, follow_resumed=False)
    assert "succeeded" in get_cards(again["end"]["0"])[0].get()


def test_a_card_is_refreshed_while_the_task_runs(tmp_path: Path) -> None:
    body = (
        'bar = ProgressBar(2); current.card.append(bar, id="bar"); bar.update(1); current.card.refresh()\n'
        "        while not os.path.exists('go'): time.sleep(0.02)\n"
        '        current.card.components["bar"].update(2)'
    )
    with running(flow(tmp_path, body), "--run-id", "r") as process:
        folder = tmp_path / ".k8sflow/F/runs/r/tasks/start/0/0/cards"
        wait_for((folder / "0.default.html").exists)
        page = get_cards(start(tmp_path))[0].get()
        assert "1 / 2" in page
        assert "running" in page
        (tmp_path / "go").touch()
        assert process.wait() == 0
    page = get_cards(start(tmp_path))[0].get()
    assert "2 / 2" in page
    assert "succeeded" in page


def test_a_refresh_that_hangs_delays_neither_the_step_nor_the_last_card(tmp_path: Path) -> None:
    top = (
        "class Own(MetaflowCard):\n    type = 'own'\n    RUNTIME_UPDATABLE = True\n"
        "    def render_runtime(self, task, data):\n"
        "        open('began', 'w').close()\n        time.sleep(1000)\n"
        "    def render(self, task):\n        return 'final'\n"
    )
    body = "current.card.refresh()\n        while not os.path.exists('began'): time.sleep(0.02)"
    done(flow(tmp_path, body, '@card(type="own", timeout=500)', top))
    assert get_cards(start(tmp_path))[0].get() == "final"


def test_odd_uses_of_current_card_warn_and_harm_nothing(tmp_path: Path) -> None:
    body = (
        'current.card["no"].append("x"); current.card.append("x"); current.card["a"].append(lambda: 1)\n'
        '        current.card.clear(); current.card["a"].extend([1, open(os.devnull)]); \n'
        "        os.fork() or os._exit(0)"
    )
    output = done(flow(tmp_path, body, '@card(id="a")\n    @card(id="b")'))
    assert "the step has no card of this id" in output
    assert "current.card.append adds to nothing" in output
    assert len(get_cards(start(tmp_path))) == 2


def test_a_component_that_ends_the_process_when_it_is_sent_is_replaced_by_its_error(tmp_path: Path) -> None:
    top = (
        "class Bad(MetaflowCardComponent):\n    def __reduce__(self): raise SystemExit(3)\n"
        "class Worse(MetaflowCardComponent):\n    def __reduce__(self): raise MemoryError\n"
    )
    body = "current.card.extend([Bad(), Worse()]); current.card.refresh()"
    done(flow(tmp_path, body, top=top))
    page = get_cards(start(tmp_path))[0].get()
    assert "Bad can&#x27;t be sent to the card&#x27;s process" in page
    assert "Worse can&#x27;t be sent" in page


def test_a_step_that_closes_all_descriptors_ends_without_its_card(tmp_path: Path) -> None:
    """As daemons do: the pipes to the process of the cards are among them."""
    body = "os.close(current.card._process._outbox); os.close(current.card._process._inbox)"
    assert "@card: no card can be created" in done(flow(tmp_path, body))


def test_a_module_of_a_class_that_cannot_be_imported_harms_only_the_card(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('at import')\n")
    output = done(flow(tmp_path, "current.card.append('x')", '@card(type="broken.Own")'))
    assert "the cards of type 'broken.Own' can't be loaded: ValueError: at import" in output
    assert "at import" in get_cards(start(tmp_path))[0].get()


def test_classes_of_the_user_get_the_same_arguments_as_in_metaflow(tmp_path: Path) -> None:
    """Without options they have their own default; one of k8sflow's kind lays out components; those may fail."""
    top = (
        "class Own(MetaflowCard):\n    type = 'own'\n    ALLOW_USER_COMPONENTS = True\n"
        "    def __init__(self, options={'text': 'of its own '}, components=[], **more):\n"
        "        self.text = options['text'] + ''.join(components)\n"
        "    def render(self, task): return self.text\n"
        "class Derived(DefaultCard):\n    type = 'derived'\n"
        "class Bad(MetaflowCardComponent):\n    def render(self): raise ValueError('no part')\n"
    )
    body = 'current.card["a"].append(Bad()); current.card["b"].append("**bold**")'
    done(flow(tmp_path, body, '@card(type="own", id="a")\n    @card(type="derived", id="b")', top))
    own, derived = (card.get() for card in get_cards(start(tmp_path)))
    assert own.startswith("of its own ")
    assert "no part" in own
    assert "<strong>bold</strong>" in derived


def test_a_card_with_components_shows_the_error_of_its_step(tmp_path: Path) -> None:
    file = flow(tmp_path, 'current.card.append("**before**"); raise ValueError("broke <b>")')
    assert run_flow(file, "--run-id", "r").returncode != 0
    page = get_cards(start(tmp_path))[0].get()
    assert "<strong>before</strong>" in page
    assert "ValueError: broke &lt;b&gt;" in page


def test_a_step_of_the_name_cards_has_none_without_the_decorator(tmp_path: Path) -> None:
    source = """
class F(FlowSpec):
    @step
    def start(self):
        self.next(self.cards)
    @step
    def cards(self):
        self.next(self.end)
    @step
    def end(self): pass
"""
    done(write_flow(tmp_path, source, head=HEAD))
    assert size_of(FolderStore(str(tmp_path / ".k8sflow")), "F").cards == 0


def test_a_step_may_wait_for_all_of_its_children_only_if_it_ends_them(tmp_path: Path) -> None:
    """The process of the cards is a child of the task's, like those that the step starts."""
    done(flow(tmp_path, "import subprocess; subprocess.run(['true'], check=True)"))
    assert len(get_cards(start(tmp_path))) == 1


@pytest.mark.s3
def test_cards_in_a_bucket(tmp_path: Path, s3_store: object, s3_server: object) -> None:
    """The process of the cards has a client of its own."""
    from tests import s3server

    file = flow(tmp_path, 'current.card.append("**A**")')
    settings = {**s3server.KEYS, **s3server.NO_FILES, "K8SFLOW_ENDPOINT": s3_server.endpoint}  # type: ignore[attr-defined]
    root = f"s3://{s3server.BUCKET}/cards-{tmp_path.name}"
    found = run_flow(file, "--run-id", "r", "--datastore", root, **settings)
    assert found.returncode == 0, found.stdout + found.stderr
    words = run_in(tmp_path, sys.executable, "flow.py", "card", "get", "r/start", "--datastore", root, **settings)
    assert "<strong>A</strong>" in words.stdout, words.stderr


def test_the_server_shows_cards_to_those_who_know_its_address(tmp_path: Path) -> None:
    file = flow(tmp_path, 'current.card.append("**A**")')
    done(file)
    command = [sys.executable, str(file), "card", "server", "r", "--no-browser"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            url = urlsplit(process.stdout.readline().strip())

            def get(path: str, host: str = url.netloc) -> tuple[int, str, str]:
                connection = http.client.HTTPConnection(url.netloc, timeout=60)
                connection.request("GET", path, headers={"Host": host})
                answer = connection.getresponse()
                return answer.status, answer.read().decode(), answer.getheader("Content-Security-Policy") or ""

            assert "F/r/start/0/0.default" in get(url.path)[1]
            status, page, policy = get(f"{url.path}F/r/start/0/0.default/page")
            assert (status, policy) == (200, "sandbox allow-scripts")
            assert "<strong>A</strong>" in page
            for other in ("page?x", "pag%65"):
                assert get(f"{url.path}F/r/start/0/0.default/{other}")[2] == policy
            assert '"page"' in get(f"{url.path}F/r/start/0/0.default/version")[1]
            assert "<iframe" in get(f"{url.path}F/r/start/0/0.default/view")[1]
            assert get(url.path, host="evil.example")[0] == 403
            assert get("/wrong/")[0] == 403
            assert get(f"{url.path}../../../../etc/passwd/page")[0] == 404
        finally:
            process.terminate()
