"""API access, Job manifests, outcomes and diagnosis; knows no flows.

The package is called like the decorator ``k8sflow.kubernetes``, and the import system puts it there in the decorator's
place as soon as one of its modules is loaded. So it can be called as the decorator.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from k8sflow.flow import decorators


class _Package(ModuleType):
    def __call__(self, **options: Any) -> Callable[[Any], Any]:
        return decorators.kubernetes(**options)


sys.modules[__name__].__class__ = _Package
