"""The API for packages that extend k8sflow: decorators, stores of secrets, and serializers of artifacts.

A package imports from here alone, and names what it adds by entry points of the groups ``k8sflow.decorators``,
``k8sflow.secrets`` and ``k8sflow.serializers``.

CONTRIBUTING.md has an example, and the promise: names in this module work for at least two minor
releases after they were deprecated.
"""

from __future__ import annotations

from k8sflow.flow.decorators.base import Around, Decorator, Option, decorator
from k8sflow.flow.decorators.secrets import SecretStore
from k8sflow.storage.serializers import Serializer

__all__ = ["Around", "Decorator", "Option", "SecretStore", "Serializer", "decorator"]

# Metaflow's package of this name has modules that people import from (``metaflow_modules.py``).
__path__: list[str] = []
