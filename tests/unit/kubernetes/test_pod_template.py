"""Pod templates: reading a file, merging it into a pod, and the lines of what the server refuses."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from k8sflow.errors import FlowDefinitionError
from k8sflow.kubernetes.pod_template import line_of, load, merged

POD: dict[str, Any] = {
    "metadata": {"labels": {"k8sflow.dev/run": "1"}, "annotations": {}},
    "spec": {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 5,
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "containers": [
            {
                "name": "task",
                "image": "app:1",
                "env": [{"name": "A", "value": "1"}, {"name": "HOME", "value": "/tmp"}],
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                "securityContext": {"capabilities": {"drop": ["ALL"]}},
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    },
}


@pytest.fixture
def template(tmp_path: Path) -> Any:
    def read(text: str) -> dict[str, Any]:
        file = tmp_path / "pod.yaml"
        file.write_text(textwrap.dedent(text))
        return load(file, "pod.yaml")

    return read


def spec_of(template: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = merged(POD, template)["spec"]
    return found


def test_lists_of_named_things_are_merged_by_their_names(template: Any) -> None:
    spec = spec_of(
        template("""\
        spec:
          terminationGracePeriodSeconds: 60
          initContainers:
          - {name: proxy, image: "proxy:1", restartPolicy: Always}
          containers:
          - name: task
            env:
            - {name: A, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
            - {name: B, value: "2"}
            - {name: HOME, $patch: delete}
            volumeMounts: [{name: data, mountPath: /data}]
            securityContext: {privileged: true}
          volumes:
          - {name: data, hostPath: {path: /data}}
          - {name: tmp, ephemeral: {volumeClaimTemplate: {spec: {}}}}
          tolerations: [{key: spot, operator: Exists}]
        """)
    )
    assert spec["terminationGracePeriodSeconds"] == 60
    assert [container["name"] for container in spec["initContainers"]] == ["proxy"]
    (task,) = spec["containers"]
    assert task["image"] == "app:1"
    assert task["env"] == [
        {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "B", "value": "2"},
    ]
    assert [mount["mountPath"] for mount in task["volumeMounts"]] == ["/tmp", "/data"]
    assert task["securityContext"] == {"capabilities": {"drop": ["ALL"]}, "privileged": True}
    assert spec["volumes"] == [
        {"name": "tmp", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
        {"name": "data", "hostPath": {"path": "/data"}},
    ]
    assert [toleration["key"] for toleration in spec["tolerations"]] == ["gpu", "spot"]


def test_null_deletes_a_value(template: Any) -> None:
    assert "terminationGracePeriodSeconds" not in spec_of(template("spec: {terminationGracePeriodSeconds: null}"))


def test_a_template_without_effect_changes_nothing(template: Any) -> None:
    assert merged(POD, template("spec: {}")) == POD


def test_a_whole_pod_template_object_is_read(template: Any) -> None:
    found = template("""\
        apiVersion: v1
        kind: PodTemplate
        template:
          metadata: {labels: {team: a}}
          spec: {hostNetwork: true}
        """)
    assert merged(POD, found)["metadata"]["labels"] == {"k8sflow.dev/run": "1", "team": "a"}
    assert found["lines"]["spec/hostNetwork"] == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spec:\n  restartPolicy: Always", r"pod.yaml:2: a pod template can't have spec.restartPolicy"),
        ("spec: {activeDeadlineSeconds: 5}", r"deadline_seconds"),
        ("metadata: {name: mine}", r"metadata.name"),
        ("metadata:\n  labels:\n    k8sflow.dev/run: '2'", r"pod.yaml:3: .*The run finds its pods by it"),
        ("spec: {containers: [{name: task, image: x}]}", r"@kubernetes\(image=…\)"),
        ("spec: {containers: [{name: task, command: [sh]}]}", r"spec.containers.task.command"),
        ("spec: {containers: [{name: task, env: [{name: K8SFLOW_POD, value: x}]}]}", r"set by k8sflow"),
        ("spec: {containers: [{name: task, env: [{name: AWS_SECRET_ACCESS_KEY, value: x}]}]}", r"set by k8sflow"),
        ("spec: {containers: [{name: task, env: [{name: AZURE_STORAGE_KEY, value: x}]}]}", r"readable in the Job"),
        ("spec: {containers: [{name: task, volumeMounts: [{name: x, mountPath: /opt/k8sflow}]}]}", r"runtime"),
        ("spec: {containers: [{name: task, $patch: delete}]}", r"No task runs without it"),
        ("spec: {initContainers: [{name: k8sflow-runtime, image: x}]}", r"copies k8sflow's runtime"),
        ("x: &c {command: [sh]}\nspec: {containers: [{name: task, <<: *c}]}", r"a pod has no 'x'"),
        ("metadata: {labels: &c {command: x}}\nspec:\n  containers:\n  - name: task\n    <<: *c", r"yaml:4: .*command"),
        ("spec: {containers: null}", r"can't delete spec/containers"),
        ("sepc: {}", r"Did you mean 'spec'"),
        ("spec: [", r"pod.yaml:1: it is not YAML"),
        ("- a", r"not one document with a pod"),
        ("spec: 5", r"the spec of a pod is a dictionary"),
        ("a: {}\n---\nb: {}", r"pod.yaml:\d: it is not YAML"),
    ],
)
def test_what_a_run_depends_on_is_refused_with_its_line(template: Any, text: str, words: str) -> None:
    with pytest.raises(FlowDefinitionError, match=f"(?s){words}"):
        template(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FlowDefinitionError, match=r"pod.yaml can't be read: No such file"):
        load(tmp_path / "pod.yaml", "pod.yaml")


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ('strict decoding error: unknown field "spec.template.spec.containers[1].imag"', 7),
        ("Job.batch is invalid: spec.template.spec.containers[1].image: Required value", 6),
        ("spec.template.spec.containers[0].env[2].valueFrom: Invalid value", 5),
        ("PodSpec.spec.template.spec.hostNetwork of type bool", 2),
        ("spec.template.spec.containers[0].image: Invalid value", 4),
        ("spec.template.spec.dnsPolicy: Invalid value", None),
        ("exceeded quota", None),
    ],
)
def test_what_the_server_names_has_a_line(template: Any, message: str, line: int | None) -> None:
    found = template("""\
        spec:
          hostNetwork: perhaps
          containers:
          - name: task
            env: [{name: C, value: "3"}]
          - name: proxy
            imag: proxy
        """)
    assert line_of(message, merged(POD, found), found) == line
