"""@secrets and @environment: sources of variables, and secrets that are never shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from k8sflow import environment, secrets
from k8sflow.errors import ConfigurationError, FlowDefinitionError
from k8sflow.flow.decorators import registry
from k8sflow.flow.decorators.secrets import _sources, read_secrets
from tests.support import run_flow, write_flow

VALUE = "s3cr3t-value"


@pytest.mark.parametrize(
    ("written", "variables"),
    [
        ({"A": VALUE, "B": 1}, {"A": VALUE, "B": "1"}),
        ({"type": "inline", "id": "x", "options": {"env_vars": {"A": VALUE}}}, {"A": VALUE}),
        ("file:x.env", {"A": VALUE, "B": "b = c"}),
        ("x.json", {"A": VALUE, "B": "2"}),
        ({"type": "file", "id": "x.toml"}, {"A": VALUE}),
        ("environment:HERE, THERE", {"HERE": VALUE, "THERE": "t"}),
    ],
)
def test_variables_come_from_a_source(
    written: Any, variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sources are inline, files of three kinds, and the environment; their text shows no value."""
    monkeypatch.chdir(tmp_path)
    Path("x.env").write_text(f"# comment\nexport A='{VALUE}'\n\nB = b = c\n")
    Path("x.json").write_text(f'{{"A": "{VALUE}", "B": 2}}')
    Path("x.toml").write_text(f'A = "{VALUE}"\n')
    (source,) = _sources([written])
    assert read_secrets(source, None, {"HERE": VALUE, "THERE": "t", "MORE": "m"}) == variables
    assert VALUE not in repr(source)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("file:none.env", "none.env can't be read"),
        ("file:bad.env", "does not hold variables"),
        ("file:bad.json", "does not hold variables"),
        ("environment:NOTHING", "has no NOTHING"),
        ("az-key-vault:db", "no store 'az-key-vault'"),
        (VALUE, "an id without a store"),
    ],
)
def test_a_source_without_variables_is_reported_without_a_value(
    written: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error doesn't show even the line of the file that can't be read."""
    monkeypatch.chdir(tmp_path)
    Path("bad.env").write_text(f"{VALUE}\n")
    Path("bad.json").write_text(f'{{"A": {VALUE}}}')
    with pytest.raises(ConfigurationError, match=words) as raised:
        read_secrets(_sources(written)[0], None, {})
    assert VALUE not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"type": "vault", "id": "x", "option": {}}, "a source has no key 'option': it has type, id, options, role"),
        ({"type": "file", "id": "x", "options": {"encoding": "latin-1"}}, "'file' takes no options"),
        ({"type": "environment", "id": "x", "role": "r"}, "'environment' takes no role"),
    ],
)
def test_a_key_of_a_source_that_has_no_effect_is_refused(written: Any, words: str) -> None:
    """No key is accepted and then ignored."""
    with pytest.raises(FlowDefinitionError, match=words):
        secrets(sources=[written])(test_a_step_has_its_variables)


def test_a_source_may_have_a_role_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It overrides the role of the decorator, like in Metaflow."""

    class Store:
        def get(self, secret_id: str, options: Any, role: str | None) -> dict[str, str]:
            return {"ASKED": f"{secret_id} {dict(options)} {role}"}

    class Point:
        name = "vault"

        def load(self) -> Store:
            return Store()

    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [Point()])
    own, common = _sources([{"type": "vault", "id": "a", "role": "own", "options": {"v": 1}}, "vault:b"])
    assert read_secrets(own, "common", {}) == {"ASKED": "a {'v': 1} own"}
    assert read_secrets(common, "common", {}) == {"ASKED": "b {} common"}


def test_a_bare_id_is_a_secret_of_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metaflow's page on secrets has this example; the setting may be in the settings file too."""
    (source,) = _sources(["metaflow-example-password"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K8SFLOW_DEFAULT_SECRETS_BACKEND_TYPE", "vault")
    with pytest.raises(ConfigurationError, match="no store 'vault' for the secret 'metaflow-example-password'"):
        read_secrets(source, None, {})
    monkeypatch.delenv("K8SFLOW_DEFAULT_SECRETS_BACKEND_TYPE")
    Path("k8sflow.toml").write_text('default_secrets_backend_type = "environment"\n')
    assert read_secrets(_sources(["GIVEN"])[0], None, {"GIVEN": VALUE}) == {"GIVEN": VALUE}


def test_a_mistake_in_the_flow_is_reported_without_a_value() -> None:
    """Unknown kinds of sources and invalid variables are refused; --with accepts no secret itself."""
    for wrong in ([VALUE, 5], [5], [{"A": [VALUE]}], []):
        with pytest.raises(FlowDefinitionError) as raised:
            secrets(sources=wrong)(test_a_step_has_its_variables)
        assert VALUE not in str(raised.value)
    with pytest.raises(FlowDefinitionError, match="would be stored"):
        registry.parse('secrets:sources=[{"A": "x"}]')
    assert registry.parse("secrets:sources=file:/run/db.env").name == "secrets"
    with pytest.raises(FlowDefinitionError, match="name of a variable"):
        environment(vars={"A=B": "c"})(test_a_step_has_its_variables)


def test_a_step_has_its_variables(tmp_path: Path) -> None:
    """No other step has them; no secret is stored or shown, even if the environment has the variable already."""
    source = f"""
        import os
        from k8sflow import environment, secrets
        class F(FlowSpec):
            @secrets(sources=[{{"TOKEN": "{VALUE}"}}, "environment:GIVEN"])
            @environment(vars={{"PLACE": "here", "COUNT": 3}})
            @step
            def start(self):
                self.seen = (os.environ["PLACE"], os.environ["COUNT"], len(os.environ["TOKEN"]), os.environ["GIVEN"])
                print(self.seen)
                self.next(self.end)
            @step
            def end(self):
                assert "TOKEN" not in os.environ and "PLACE" not in os.environ
    """
    done = run_flow(write_flow(tmp_path, source), GIVEN="given")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"('here', '3', {len(VALUE)}, 'given')" in done.stdout
    stored = b"".join(path.read_bytes() for path in (tmp_path / ".k8sflow").rglob("*") if path.is_file())
    assert VALUE.encode() not in stored
    assert VALUE not in done.stdout + done.stderr
    taken = run_flow(tmp_path / "flow.py", GIVEN="given", TOKEN="other")
    assert taken.returncode == 1
    assert "TOKEN is set in the environment already" in taken.stdout
    assert "TOKEN" not in os.environ
