"""Each way by which a step can reach code or a value, alone in a flow: what is changed there changes the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.runtime.caching.planning import parts

# Name, the code of helpers.py with {0} where it changes, and the expression in the step.
WAYS = {
    "an element of an enum": ("import enum\nclass E(enum.Enum):\n    A = {0}\n", "helpers.E.A.value"),
    "an array": ("import numpy\nA = numpy.array([1, {0}])\n", "int(helpers.A.sum())"),
    "a data frame": ("import pandas\nA = pandas.DataFrame({{'a': [1, {0}]}})\n", "len(helpers.A)"),
    "a slot": ("class S:\n    __slots__ = ('a',)\n    def __init__(self): self.a = {0}\nS1 = S()\n", "helpers.S1.a"),
    "a default of a nested function": (
        "def f():\n    def g(x={0}): return x\n    return g()\n",
        "helpers.f()",
    ),
    "a partial": ("import functools\np = functools.partial(max, {0})\n", "helpers.p(1)"),
    "the function of a partial": (
        "import functools\ndef f(x): return {0}\np = functools.partial(f, 1)\n",
        "helpers.p()",
    ),
    "a decorator": (
        (
            "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def g(*a): return f(*a) + {0}\n    return g\n"
            "@deco\ndef f(): return 1\n"
        ),
        "helpers.f()",
    ),
    "an argument of a decorator": (
        "def times(n):\n    def deco(f): return lambda: f() * n\n    return deco\n@times({0})\ndef f(): return 1\n",
        "helpers.f()",
    ),
    "a context manager": (
        "import contextlib\n@contextlib.contextmanager\ndef c():\n    yield {0}\n",
        "helpers.c().__enter__()",
    ),
    "a subclass of dict": ("class D(dict): pass\nd = D(a={0})\n", "helpers.d['a']"),
    "a named tuple's default": (
        "from typing import NamedTuple\nclass T(NamedTuple):\n    a: int = {0}\n",
        "helpers.T().a",
    ),
    "a metaclass": (
        "class M(type):\n    def f(cls): return {0}\nclass C(metaclass=M): pass\n",
        "helpers.C.f()",
    ),
    "a class in a list": ("class C:\n    a = {0}\nALL = [C]\n", "helpers.ALL[0].a"),
    "an operator": ("class C:\n    def __add__(self, other): return {0}\nc = C()\n", "helpers.c + 1"),
    "a static method": ("class C:\n    @staticmethod\n    def f(): return {0}\n", "helpers.C.f()"),
    "a class method": ("class C:\n    @classmethod\n    def f(cls): return {0}\n", "helpers.C.f()"),
    "a bound method": ("class C:\n    def f(self): return {0}\nf = C().f\n", "helpers.f()"),
    "a generator": ("def g():\n    yield {0}\n", "list(helpers.g())"),
    "a variable that another function sets": (
        "STATE = []\ndef fill():\n    STATE.append({0})\ndef f():\n    fill()\n    return STATE\n",
        "helpers.f()",
    ),
    "a seed": ("import random\nrandom.seed({0})\ndef f(): return random.random()\n", "helpers.f()"),
    "a seed in a function that is called at import": (
        "import random\ndef seed(): random.seed({0})\nseed()\ndef f(): return random.random()\n",
        "helpers.f()",
    ),
    "a function that is put into a library": (
        "import this_library as lib\ndef mine(x): return {0}\nlib.call = mine\ndef f(): return lib.call(1)\n",
        "helpers.f()",
    ),
    "a registry of a library": (
        "import functools\n@functools.singledispatch\ndef f(x): return 0\n@f.register(int)\ndef _(x): return {0}\n",
        "helpers.f(1)",
    ),
    "a conditional definition": ("if True:\n    def f(): return {0}\nelse:\n    f = None\n", "helpers.f()"),
    "a string that is formatted": ("T = 'a{0}'\n", "helpers.T.format()"),
    "a variable of the environment's default": (
        "import os\nV = os.environ.get('UNSET_VARIABLE', '{0}')\n",
        "helpers.V",
    ),
    "a recursive function": ("def f(n): return {0} if not n else f(n - 1)\n", "helpers.f(2)"),
    "functions that call each other": (
        "def f(n): return g(n - 1) if n else 0\ndef g(n): return f(n - 1) if n > 0 else {0}\n",
        "helpers.f(3)",
    ),
    "an object that can't be pickled": (
        (
            "import threading\nclass C:\n    def __init__(self):\n        self.lock = threading.Lock()\n"
            "        self.a = {0}\nc = C()\n"
        ),
        "helpers.c.a",
    ),
    "a property of an object": (
        "class C:\n    @property\n    def a(self): return {0}\nc = C()\n",
        "helpers.c.a",
    ),
    "a descriptor": (
        "class D:\n    def __get__(self, o, t): return {0}\nclass C:\n    d = D()\n",
        "helpers.C().d",
    ),
    "__getattr__ of a module": ("def __getattr__(name):\n    return {0}\n", "helpers.anything"),
    "a lambda in a default": ("def f(g=lambda: {0}): return g()\n", "helpers.f()"),
    "an exception": ("class E(Exception):\n    code = {0}\n", "helpers.E().code"),
    "a dataclass's factory": (
        (
            "from dataclasses import dataclass, field\ndef make(): return [{0}]\n@dataclass\nclass C:\n"
            "    a: list = field(default_factory=make)\n"
        ),
        "helpers.C().a",
    ),
}
FLOW = """
import helpers
from k8sflow import FlowSpec, cache, step

class F(FlowSpec):
    @cache
    @step
    def start(self):
        self.result = str(EXPRESSION)
        self.next(self.end)
    @step
    def end(self):
        pass
"""


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("style", ["helpers.x", "from helpers import *", "inside a method"])
def test_a_change_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, style: str) -> None:
    """By whatever name the step gets there."""
    code, expression = WAYS[name]
    source = FLOW.replace("EXPRESSION", expression)
    if style == "from helpers import *":
        if "__getattr__" in name:
            pytest.skip("it has no such name")
        source = source.replace("import helpers", "from helpers import *").replace("helpers.", "")
    if style == "inside a method":
        source = source.replace(f"str({expression})", "str(self.method())").replace(
            "    @cache", f"    def method(self):\n        return {expression}\n    @cache"
        )
    library = folder / "site-packages"
    library.mkdir()
    (library / "this_library.py").write_text("def call(x): return x\n")
    monkeypatch.syspath_prepend(library)
    found = [
        parts(folder, {"flow.py": source, "helpers.py": code.format(value)}, step="start") for value in (11, 11, 22)
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]
