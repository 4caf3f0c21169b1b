"""The pod's environment as user code sees it; imports every public name first."""

import getpass
import json
import os
import pwd
import subprocess
import sys

from k8sflow import *  # noqa: F403  every name has to import where the runtime does
from k8sflow import Deployer, FlowSpec, NBRunner, Runner, kubernetes, resources, step  # noqa: F401

TEXT = "pa$$word $(HOME)x $HOME ${HOME} $ '\" ü"
SEEN = os.environ.get("TEXT")


class Inside(FlowSpec):
    @kubernetes(env={"TEXT": TEXT, "PYTHONPATH": "/app/users"})
    @resources(cpu=0.1, memory=200)
    @step
    def start(self):
        self.seen = SEEN
        self.user = getpass.getuser()
        self.entry = tuple(pwd.getpwuid(os.getuid()))
        self.home = os.path.expanduser("~")
        self.home_of_user = os.path.expanduser(f"~{self.user}")
        self.uid = os.getuid()
        self.variables = {name: os.environ.get(name) for name in ("USER", "LOGNAME", "PYTHONPATH", "HOME")}
        code = "import json, sys, getpass; print(json.dumps([sys.path, getpass.getuser()]))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
        self.path_of_child, self.user_of_child = json.loads(done.stdout)
        self.path = list(sys.path)
        self.next(self.end)

    @resources(cpu=0.1, memory=200)
    @step
    def end(self):
        pass


if __name__ == "__main__":
    Inside()
