"""Options of a step's pod on a real cluster: what the step finds inside, manifests, and what the server refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.kind.conftest import Namespace
from tests.support import write_flow

CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: kept}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
"""
SMALL = "kubernetes:cpu=0.1,memory=200"


def test_a_step_finds_in_its_pod_what_it_has_asked_for(namespace: Namespace, client: Callable[[str], Any]) -> None:
    """Volumes of each kind, variables, hosts, DNS, limits, its Python and a pod template, under "restricted"."""
    namespace.kubectl("create", "secret", "generic", "token", "--from-literal=PASSWORD=s3cret")
    namespace.kubectl("create", "configmap", "words", "--from-literal=GREETING=hello")
    namespace.kubectl("apply", "-f", "-", stdin=CLAIM)
    done = namespace.run("everything/options.py", "--with", SMALL)
    assert done.code == 0, done.text
    data = client(done.run)["start"].task.data
    assert data.mounts["/k8sflow_temp"] == data.mounts["/spool"] == "tmpfs"
    assert None not in (data.mounts["/kept"], data.mounts["/scratch"])
    assert data.temporary == ("/k8sflow_temp", "/k8sflow_temp")
    assert data.secret == (True, True)
    assert data.word == ("hello", "hello")
    assert data.address == "10.1.2.3"
    assert "ndots:1" in data.resolver
    assert data.of_template == "merged"
    assert data.root == "read-only"
    (job,) = namespace.objects("jobs", "k8sflow.dev/flow=Options,k8sflow.dev/step=start")
    pod = job["spec"]["template"]
    assert pod["metadata"]["annotations"]["team"] == "research"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 7
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "200M"}


def test_the_server_accepts_the_manifests_of_a_dry_run(namespace: Namespace) -> None:
    done = namespace.run("everything/options.py", "--with", SMALL, "--dry-run")
    assert done.code == 0, done.text
    before = len(namespace.objects("jobs"))
    accepted = namespace.kubectl("apply", "--dry-run=server", "-f", "-", stdin=done.text)
    assert [line.partition("/")[0] for line in accepted.splitlines()] == ["configmap", "job.batch", "job.batch"]
    assert len(namespace.objects("jobs")) == before


def test_what_the_server_refuses_is_known_before_the_run_starts(namespace: Namespace, tmp_path: Path) -> None:
    """With the line of the template; and a field that this cluster has switched off, with the version it needs."""
    (tmp_path / "pod.yaml").write_text("spec:\n  containers:\n  - name: task\n    lifecycel: {}\n")
    flow = "class F(FlowSpec):\n    @kubernetes({})\n    @step(start=True, end=True)\n    def only(self): ...\n"
    template = namespace.run(write_flow(tmp_path, flow.format('pod_template="pod.yaml"')))
    assert template.code == 1
    assert "pod.yaml:4: the cluster refuses the pod of step only." in template.text
    assert 'unknown field "spec.template.spec.containers[0].lifecycel"' in template.text
    image = namespace.run(write_flow(tmp_path, flow.format('image_volumes={"data:1": "/data"}'), "image.py"))
    assert image.code == 1
    assert "image_volumes needs Kubernetes 1.35 or newer" in image.text
    assert not namespace.objects("jobs", "k8sflow.dev/flow=F")
