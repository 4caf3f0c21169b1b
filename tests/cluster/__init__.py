"""The Kubernetes cluster that the tests run on, created on a bare machine: ``make cluster``.

A kind cluster of one node, an S3 server in it, and the k8sflow image of this checkout. Tests get it by ``ensure()``,
people by ``python -m tests.cluster``. Only the standard library is used, so it runs before anything is installed.
"""

from tests.cluster.errors import ClusterError
from tests.cluster.harness import Cluster, ensure

__all__ = ["Cluster", "ClusterError", "ensure"]
