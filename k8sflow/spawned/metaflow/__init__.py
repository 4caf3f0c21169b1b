"""Puts k8sflow in the place of ``metaflow`` in a process that has not imported k8sflow.

multiprocessing's "spawn" and "forkserver" start new interpreters, give them ``sys.path``, and import the flow's file.
"""

import importlib
import sys

if __name__ == "metaflow":
    del sys.modules[__name__]
    importlib.import_module("k8sflow.metaflow_modules").install()
    importlib.import_module(__name__)  # Python looks there for the module that an import has made
