"""A step with many options of its pod, each read from inside."""

import os
import socket
import tempfile
from pathlib import Path

from k8sflow import FlowSpec, current, kubernetes, step


class Options(FlowSpec):
    @kubernetes(
        cpu=0.1,
        cpu_limit=1,
        memory=150,
        memory_limit=200,
        executable="/usr/bin/python3",
        use_tmpfs=True,
        tmpfs_size=20,
        persistent_volume_claims={"kept": "/kept"},
        ephemeral_volumes={"/scratch": "10Mi"},
        empty_dirs={"/spool": {"size": "5Mi", "medium": "Memory"}},
        secrets=["token"],
        secret_files={"token": "/run/token"},
        config_maps=["words"],
        config_map_files={"words": "/etc/words"},
        host_aliases={"10.1.2.3": ["database", "database.local"]},
        dns_config={"options": [{"name": "ndots", "value": "1"}]},
        port=8080,
        topology_spread="kubernetes.io/hostname",
        affinity={
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/os", "operator": "Exists"}]}]
                }
            }
        },
        security_context={"read_only_root_filesystem": True},
        pod_template="pod.yaml",
    )
    @step
    def start(self):
        mounts = {line.split()[1]: line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
        self.mounts = {folder: mounts.get(folder) for folder in ("/k8sflow_temp", "/spool", "/kept", "/scratch")}
        self.temporary = (tempfile.gettempdir(), current.tempdir)
        for folder in ("/spool", "/k8sflow_temp"):
            (Path(folder) / "file").write_text("written")
        self.secret = (os.environ["PASSWORD"] == "s3cret", Path("/run/token/PASSWORD").read_text() == "s3cret")
        self.word = (os.environ["GREETING"], Path("/etc/words/GREETING").read_text())
        self.address = socket.gethostbyname("database.local")
        self.resolver = Path("/etc/resolv.conf").read_text()
        self.of_template = os.environ["FROM_TEMPLATE"]
        try:
            Path("/written").write_text("")
            self.root = "writable"
        except OSError:
            self.root = "read-only"
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Options()
