"""The whole test cluster: engine, node, S3 server, images, and the environment in which tests and people use it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.cluster import engine as engines
from tests.cluster import host, images, leftovers, loading, nodeimage, programs
from tests.cluster.console import say
from tests.cluster.engine import Engine
from tests.cluster.errors import ClusterError
from tests.cluster.kind import NODE_PORT, Kind, configuration, wait_for
from tests.cluster.locks import held
from tests.cluster.places import HERE, Places, key_of
from tests.cluster.process import attempt
from tests.cluster.s3 import S3Server

PORT_VARIABLE = "K8SFLOW_TEST_S3_PORT"
DEFAULT_PORT = 30900
BUCKET = "k8sflow"
NAMESPACE = "k8sflow"
SECRET = "k8sflow-s3"
# Keys of a server that listens on 127.0.0.1 alone, and contains only the tests' data.
ACCESS_KEY, SECRET_KEY = "k8sflow-test", "k8sflow-test-secret"
IN_CLUSTER_ENDPOINT = "http://s3.k8sflow-s3.svc:9000"
S3_DATA = "/var/local/k8sflow-s3"
S3_MANIFEST = HERE / "manifests" / "s3.yaml"
S3_WITHIN_SECONDS = 120.0
HEALTH_OBJECT = "cluster-health"


@dataclass(frozen=True)
class Cluster:
    """The test cluster, running and checked.

    Args:
        environment: Variables with which k8sflow, kubectl, helm, kind and docker use it.
        kind: Handle on the cluster itself.
        kubectl: Path of kubectl.
        helm: Path of helm.
        kwok: Path of kwok, which plays nodes for tests of scale.
        image: The k8sflow image of this checkout.
        plain_image: A user's image: Python, numpy and scikit-learn, without k8sflow.
    """

    environment: Mapping[str, str]
    kind: Kind = field(repr=False)
    kubectl: Path
    helm: Path
    kwok: Path
    image: str
    plain_image: str
    places: Places = field(repr=False)

    def load_image(self, reference: str) -> None:
        """Load an image of the engine into the cluster."""
        loading.load([reference], self.kind, self.places)

    def torch_image(self) -> str:
        """Return a user's image with PyTorch; build and load it if necessary."""
        with held(self.places.root / "lock"):
            base = images.ensure_python_base(self.kind.engine, self.places)
            reference = images.ensure(images.torch(base), self.kind.engine)
            self.load_image(reference)
        return reference


def port() -> int:
    """Return the port of the S3 server on this machine."""
    text = os.environ.get(PORT_VARIABLE, str(DEFAULT_PORT))
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ClusterError(f"{PORT_VARIABLE} is {text!r}.", advice="Set it to a port number, or to nothing.")
    return int(text)


def ensure(places: Places | None = None) -> Cluster:
    """Return the test cluster: found healthy, started again, or created."""
    places = places or Places.of_user()
    host.check_linux()
    with held(places.root / "lock"):
        _clear_work(places)
        builds = (programs.KIND, programs.HELM, programs.KWOK, programs.VERSITYGW)
        tools = {build.name: programs.ensure(build, places) for build in builds}
        engine = engines.ensure(places)
        kind = _kind(engine, places)
        kind = _ensure_node(kind, places)
        kind.refuse_lost_packets()
        base = images.ensure_python_base(engine, places)
        plain = images.ensure(images.python(base), engine)
        image = images.ensure(images.k8sflow(plain), engine)
        server_image = images.ensure(images.s3_server(places), engine)
        loading.load([server_image], kind, places)
        _apply_s3(kind, server_image, places)
        loading.load([plain, image], kind, places)  # while the server starts
        wait_for(_s3_problem, "S3 server", S3_WITHIN_SECONDS)
        wait_for(kind.dns_problem, "cluster DNS")
        cluster = Cluster(
            environment=_environment(kind, image, plain),
            kind=kind,
            kubectl=kind.kubectl,
            helm=tools["helm"] / "helm",
            kwok=tools["kwok"] / "kwok",
            image=image,
            plain_image=plain,
            places=places,
        )
        _link_programs([cluster.kubectl, cluster.helm, cluster.kwok, kind.kind], _bin(places))
        _write_environment(cluster, places)
        return cluster


def down(places: Places | None = None) -> None:
    """Remove the cluster, and stop the engine if the harness started it; the build caches stay."""
    places = places or Places.of_user()
    with held(places.root / "lock"):
        _clear_work(places)
        # the harness's own engine, if killed, still has the node on its disk
        engine = engines.ensure(places) if engines.has_containers(places) else engines.find(places)
        if engine is not None and programs.KIND.folder(places).exists():
            _kind(engine, places).delete()
        shutil.rmtree(places.cluster, ignore_errors=True)
        engines.stop(places)


def problems(places: Places | None = None) -> list[str]:
    """List the reasons why the cluster can't be used, without changing anything; none if all is well."""
    places = places or Places.of_user()
    engine = engines.find(places)
    if engine is None:
        return ["no Docker engine answers"]
    if not programs.KIND.folder(places).exists():
        return ["the cluster's tools are not built yet"]
    kind = _kind(engine, places)
    if kind.state() != "running":
        return [f"there is no running node ({kind.state() or 'none was created'})"]
    found = [kind.problem() or kind.dns_problem(), _s3_problem()]
    return [problem for problem in found if problem]


def environment_file(places: Places | None = None) -> Path:
    """Return the path of the cluster's environment, as JSON."""
    return (places or Places.of_user()).cluster / "environment.json"


def exports(environment: Mapping[str, str], places: Places | None = None) -> str:
    """Return the environment as lines for a shell, with kubectl, helm and kind on its PATH."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())]
    return "\n".join([*lines, f"export PATH={shlex.quote(str(_bin(places or Places.of_user())))}:$PATH"])


def _bin(places: Places) -> Path:
    return places.cluster / "bin"


def _kind(engine: Engine, places: Places) -> Kind:
    return Kind(
        engine=engine,
        kind=programs.ensure(programs.KIND, places) / "kind",
        kubectl=_kubectl(places),
        kubeconfig=places.cluster / "kubeconfig",
    )


def _kubectl(places: Places) -> Path:
    """Return the path of kubectl, which is built with the node's programs, or alone if the node image is pulled."""
    kubernetes = programs.KUBERNETES.folder(places)
    return (kubernetes if kubernetes.exists() else programs.KUBECTL.folder(places)) / "kubectl"


def _ensure_node(kind: Kind, places: Places) -> Kind:
    """Return a Ready node of this checkout's recipe: the existing one, or a new one."""
    recipe = _recipe(kind.engine)
    stamp = places.cluster / "recipe"
    if kind.state() and recipe and stamp.exists() and stamp.read_text() == recipe:
        if (kind.state() == "running" and not kind.problem()) or kind.start():
            return kind
        say("the cluster can't be used any more: creating it again")
    host.check_disk(places.root)
    stamp.unlink(missing_ok=True)  # first: an incomplete node must not count
    kind.delete()
    host.check_port(port(), PORT_VARIABLE)
    image = nodeimage.ensure(kind.engine, places)
    kind = replace(kind, kubectl=_kubectl(places))
    if not kind.kubectl.exists():
        programs.ensure(programs.KUBECTL, places)
    kind.create(image, port())
    stamp.write_text(_recipe(kind.engine))
    return kind


def _recipe(engine: Engine) -> str:
    """Return the key of the node's image, or an empty string if the image doesn't exist."""
    image = nodeimage.find(engine)
    return key_of(json.dumps(configuration(image, port()))) if image else ""


def _apply_s3(kind: Kind, image: str, places: Places) -> None:
    """Set up the S3 server of this recipe unless it answers already."""
    values = {
        "@IMAGE@": image,
        "@NODE_PORT@": str(NODE_PORT),
        "@ACCESS_KEY@": ACCESS_KEY,
        "@SECRET_KEY@": SECRET_KEY,
        "@NAMESPACE@": NAMESPACE,
        "@SECRET@": SECRET,
    }
    manifest = S3_MANIFEST.read_text()
    for placeholder, value in values.items():
        manifest = manifest.replace(placeholder, value)
    applied = places.cluster / "applied"
    if not (applied.exists() and applied.read_text() == key_of(manifest) and not _s3_problem()):
        kind.in_node(
            *("install", "--directory", "--owner=65532", "--group=65532", S3_DATA), doing="make the S3 server's folder"
        )
        kind.apply(manifest)
        applied.write_text(key_of(manifest))


def _s3() -> S3Server:
    return S3Server(f"http://127.0.0.1:{port()}", ACCESS_KEY, SECRET_KEY)


def _s3_problem() -> str:
    try:
        _s3().create_bucket(BUCKET)
        _s3().check(BUCKET, HEALTH_OBJECT)
    except OSError as error:
        return f"the S3 server does not answer at {_s3().endpoint}: {error}"
    return ""


def _environment(kind: Kind, image: str, plain: str) -> dict[str, str]:
    return {
        **kind.engine.environment,
        "KUBECONFIG": str(kind.kubeconfig),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "K8SFLOW_BUCKET": BUCKET,
        "K8SFLOW_CREDENTIALS": f"secret:{SECRET}",
        "K8SFLOW_ENDPOINT": _s3().endpoint,
        "K8SFLOW_IN_CLUSTER_ENDPOINT": IN_CLUSTER_ENDPOINT,
        "K8SFLOW_KUBERNETES_NAMESPACE": NAMESPACE,
        "K8SFLOW_KUBERNETES_IMAGE": image,
        "K8SFLOW_KUBERNETES_RUNTIME_IMAGE": image,
        "K8SFLOW_TEST_PLAIN_IMAGE": plain,
    }


def _link_programs(files: Iterable[Path], folder: Path) -> None:
    """Return a folder for the PATH, with the programs of this cluster's versions."""
    folder.mkdir(exist_ok=True)
    for file in files:
        new = folder / f".{file.name}"
        new.unlink(missing_ok=True)
        new.symlink_to(file)
        new.rename(folder / file.name)


def _write_environment(cluster: Cluster, places: Places) -> None:
    file = environment_file(places)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(dict(cluster.environment), indent=2))
    new.rename(file)


def _clear_work(places: Places) -> None:
    """End and remove the incomplete work of an interrupted harness; under the lock, so nobody is using it."""
    leftovers.kill(leftovers.processes_at_work(f"{programs.KIND.folder(places)}/kind"))
    if places.work.exists():
        leftovers.kill(leftovers.processes_at_work(str(places.work)))
        leftovers.unmount_below(places.work)
        attempt(["rm", "-rf", places.work], timeout_seconds=300)
