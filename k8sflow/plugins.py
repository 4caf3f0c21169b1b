"""The API for packages that extend k8sflow: decorators, and stores of secrets.

A package imports from here alone, and names what it adds by entry points of the groups ``k8sflow.decorators`` and
``k8sflow.secrets``. CONTRIBUTING.md has an example, and the promise: names in this module work for at least two minor
releases after they were deprecated.
"""

from __future__ import annotations

from k8sflow.flow.decorators.base import Around, Decorator, Option, decorator
from k8sflow.flow.decorators.secrets import SecretStore

__all__ = ["Around", "Decorator", "Option", "SecretStore", "decorator"]
