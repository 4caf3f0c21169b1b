"""Each way by which a step can reach code or a value, alone in a flow: what is changed there changes the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.runtime.caching.planning import parts, plans

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
    "a mangled slot": (
        (
            "class S:\n    __slots__ = ('__a',)\n    def __init__(self): self.__a = {0}\n"
            "    def get(self): return self.__a\n"
            "s = S()\n"
        ),
        "helpers.s.get()",
    ),
    "a mangled slot of a base": (
        (
            "class B:\n    __slots__ = ('__a',)\n    def __init__(self): self.__a = {0}\n"
            "    def get(self): return self.__a\n"
            "class S(B):\n    __slots__ = ('__a',)\ns = S()\n"
        ),
        "helpers.s.get()",
    ),
    "a defaultdict that can't be pickled": (
        "from collections import defaultdict\nd = defaultdict(lambda: 0, a={0})\n",
        "helpers.d['a']",
    ),
    "the factory of a defaultdict": (
        "from collections import defaultdict\nd = defaultdict(lambda: {0})\n",
        "helpers.d['a']",
    ),
    "a counter": ("from collections import Counter\nd = Counter(a={0})\n", "helpers.d['a']"),
    "an ordered dict": ("from collections import OrderedDict\nd = OrderedDict(a={0})\n", "helpers.d['a']"),
    "a deque": ("from collections import deque\nd = deque([1, {0}])\n", "helpers.d[1]"),
    "a deque's length": ("from collections import deque\nd = deque([1], {0})\n", "helpers.d.maxlen"),
    "a chain map": ("from collections import ChainMap\nd = ChainMap(dict(a={0}))\n", "helpers.d['a']"),
    "a namespace": (
        "from types import SimpleNamespace\nd = SimpleNamespace(a={0}, f=lambda: 1)\n",
        "helpers.d.a",
    ),
    "a named tuple": (
        "from collections import namedtuple\nT = namedtuple('T', 'a')\nd = T({0})\n",
        "helpers.d.a",
    ),
    "a default of a named tuple": (
        "from collections import namedtuple\nT = namedtuple('T', 'a', defaults=[{0}])\n",
        "helpers.T().a",
    ),
    "a complex number": ("class C(complex): pass\nc = C(1, {0})\n", "helpers.c.imag"),
    "a float": ("class C(float):\n    def __repr__(self): return 'C'\nc = C({0})\n", "helpers.c + 1"),
    "a string": ("class C(str):\n    def __str__(self): return 'C'\nc = C('{0}')\n", "helpers.c + 'x'"),
    "bytes": ("class C(bytes): pass\nc = C(b'{0}')\n", "helpers.c + b'x'"),
    "a bytearray": ("c = bytearray(b'{0}')\n", "helpers.c + b'x'"),
    "an array of the user's class": (
        "import numpy\nclass A(numpy.ndarray): pass\na = numpy.array([1, {0}]).view(A)\n",
        "int(helpers.a[1])",
    ),
    "a data frame of the user's class": (
        "import pandas\nclass A(pandas.DataFrame): pass\na = A({{'a': [1, {0}]}})\n",
        "len(helpers.a)",
    ),
    "a number of numpy": ("import numpy\na = numpy.float64({0})\n", "float(helpers.a)"),
    "a list in an array": (
        "import numpy\na = numpy.array([None, {{'a': lambda: {0}}}], dtype=object)\n",
        "helpers.a[1]['a']()",
    ),
    "a series": ("import pandas\na = pandas.Series(['a', 'b{0}'])\n", "helpers.a[1]"),
    "a property's own class": (
        (
            "class P(property):\n    def __init__(self, f, n):\n        super().__init__(f)\n        self.n = n\n"
            "    def __get__(self, o, t=None): return self.n\nclass C:\n    p = P(len, {0})\nc = C()\n"
        ),
        "helpers.c.p",
    ),
    "a static method's own class": (
        (
            "class S(staticmethod):\n    n = 0\n    def __get__(self, o, t=None): return self.n\n"
            "s = S(len)\ns.n = {0}\nclass C:\n    p = s\n"
        ),
        "helpers.C.p",
    ),
    "a partial's own class": (
        "import functools\nclass P(functools.partial):\n    def __call__(self): return self.n\np = P(len)\np.n = {0}\n",
        "helpers.p()",
    ),
    "a partial method": (
        "import functools\nclass C:\n    def f(self, n): return n\n    g = functools.partialmethod(f, {0})\n",
        "helpers.C().g()",
    ),
    "a cached property": (
        "import functools\nclass C:\n    @functools.cached_property\n    def f(self): return {0}\n",
        "helpers.C().f",
    ),
    "a cached property's own class": (
        (
            "import functools\nclass P(functools.cached_property): pass\ndef f(self): return 1\np = P(f)\np.n = {0}\n"
            "class C:\n    q = p\n"
        ),
        "vars(helpers.C)['q'].n",
    ),
    "a logger's own class": (
        "import logging\nclass L(logging.Logger):\n    pass\nlog = L('x')\nlog.n = {0}\n",
        "helpers.log.n",
    ),
    "an element of an enum with state": (
        "import enum\nclass E(enum.Enum):\n    A = 1\n    def __init__(self, n): self.n = {0}\nE.A.m = {0}\n",
        "helpers.E.A.m",
    ),
    "a wrapper of a library without its function's name": (
        "from contextlib import ExitStack\nimport this_library\nf = this_library.wrapped({0})\n",
        "helpers.f()",
    ),
    "a list in a wrapper of a library": ("import this_library\nf = this_library.wrapped([{0}])\n", "helpers.f()"),
    "a partial in a wrapper of a library": (
        "import this_library, functools\nf = this_library.wrapped(functools.partial(max, {0}))\n",
        "helpers.f()(1)",
    ),
    "an object of a library that refuses to be pickled": (
        "import this_library\no = this_library.Refuses(lambda: {0})\n",
        "helpers.o.value()",
    ),
    "a function with the name of a library's": (
        "import functools, json\n@functools.wraps(json.dumps)\ndef f(x): return {0}\n",
        "helpers.f(1)",
    ),
    "a class that is created as the module is imported": (
        "import types\nC = types.new_class('C', (), {{}}, lambda n: n.update(f=lambda self: {0}))\n",
        "helpers.C().f()",
    ),
    "a dataclass that is created as the module is imported": (
        "import dataclasses\nC = dataclasses.make_dataclass('C', [('a', int, dataclasses.field(default={0}))])\n",
        "helpers.C().a",
    ),
    "the metadata of a field": (
        (
            "import dataclasses\n@dataclasses.dataclass\nclass C:\n"
            "    a: int = dataclasses.field(default=1, metadata=dict(n={0}))\n"
        ),
        "helpers.C.__dataclass_fields__['a'].metadata['n']",
    ),
    "an annotation of a class": (
        "import typing\nclass C:\n    a: typing.Annotated[int, {0}]\n",
        "typing.get_type_hints(helpers.C, include_extras=True)['a'].__metadata__",
    ),
    "the order in a class pattern": (
        "class C:\n    __match_args__ = ('a{0}',)\n",
        "helpers.C.__match_args__",
    ),
    "a weak reference": (
        "import weakref\nclass C: pass\nc = C()\nc.a = {0}\nr = weakref.ref(c)\n",
        "helpers.r().a",
    ),
    "a value in a library": (
        "import this_library as lib\ndef load(): return int('{0}')\nlib.rate = load()\ndef f(): return lib.rate\n",
        "helpers.f()",
    ),
    "an iterator": ("import itertools\ni = itertools.count({0})\n", "next(helpers.i)"),
    "a method of a list": ("a = [{0}]\nf = a.pop\n", "helpers.f()"),
    "a path": ("from pathlib import Path\np = Path('{0}')\n", "str(helpers.p)"),
    "a date": ("import datetime\nd = datetime.date(2000, 1, 1) + datetime.timedelta({0})\n", "str(helpers.d)"),
    "an end of a long chain of functions": (
        "\n".join(f"def f{n}(): return f{n + 1}()" for n in range(400)) + "\ndef f400(): return {0}\n",
        "helpers.f0()",
    ),
}
WAYS |= {
    "another name for getattr": (
        "from builtins import getattr as g\nclass C: pass\nC.ab = 1\nV = {0}\n",
        "helpers.g(helpers.C, 'a' + chr(98))",
    ),
    "another name for import_module": (
        "from importlib import import_module as im\nVALUE = {0}\n",
        "helpers.im('helpers').VALUE",
    ),
    "a class in a pickle": (
        "import pickle\nclass M:\n    def f(self): return {0}\n",
        "helpers.pickle.loads(b'chelpers\\nM\\n.')().f()",
    ),
    "a default that is also a variable": (
        "A = [1]\nB = [1]\ndef f(x=A if {0} == 11 else B): return x\n",
        "helpers.A.append(2) or helpers.f()",
    ),
    "a list in a list twice": (
        "A = [1]\nG = [A, A] if {0} == 11 else [A, [1]]\n",
        "helpers.G[0].append(1) or helpers.G[1]",
    ),
    "a seed in the body of a class": (
        "import random\nclass C:\n    _ = random.seed({0})\ndef f(): return random.random()\n",
        "helpers.f()",
    ),
    "a subclass that a library knows": (
        (
            "import this_library\nclass P(this_library.Base):\n    def f(self): return {0}\n"
            "def call(): return this_library.call_all()\n"
        ),
        "helpers.call()",
    ),
    "a function that a library knows by a decorator with a usual name": (
        (
            "import this_library\nclass reg:\n    cache = staticmethod(this_library.register)\n"
            "@reg.cache\ndef f(): return {0}\ndef call(): return this_library.call_all()\n"
        ),
        "helpers.call()",
    ),
}
LIBRARY = """
ALL = []
class Base:
    def __init_subclass__(cls): ALL.append(cls())
def register(f):
    ALL.append(f)
    return f
def call_all(): return [getattr(each, "f", each)() for each in ALL]
def call(x): return x
def wrapped(value):
    def inner(): return value
    return inner
class Refuses:
    def __init__(self, value): self.value = value
    def __reduce_ex__(self, protocol): raise TypeError("no")
"""
FLOW = """
import typing
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


STYLES = ("helpers.x", "from helpers import *", "inside a method")


@pytest.mark.parametrize(
    ("style", "name"),
    # A module's own __getattr__ gives no name to the modules that import all of its names.
    [(style, name) for style in STYLES for name in WAYS if "import *" not in style or "__getattr__" not in name],
)
def test_a_change_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, style: str) -> None:
    """By whatever name the step gets there."""
    code, expression = WAYS[name]
    source = FLOW.replace("EXPRESSION", expression)
    if style == "from helpers import *":
        source = source.replace("import helpers", "from helpers import *").replace("helpers.", "")
    if style == "inside a method":
        source = source.replace(f"str({expression})", "str(self.method())").replace(
            "    @cache", f"    def method(self):\n        return {expression}\n    @cache"
        )
    library = folder / "site-packages"
    library.mkdir()
    (library / "this_library.py").write_text(LIBRARY)
    monkeypatch.syspath_prepend(library)
    found = [
        parts(folder, {"flow.py": source, "helpers.py": code.format(value)}, step="start") for value in (11, 11, 22)
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]


REFUSED = {
    "a generator": ("g = (n for n in [1])\n", "next(helpers.g)"),
    "a view of memory": ("f = memoryview(b'1')\n", "helpers.f[0]"),
    "values of a thread": ("import threading\nv = threading.local()\nv.a = 1\n", "helpers.v.a"),
    "results of earlier calls": ("import functools\n@functools.cache\ndef f(): return 1\nf()\n", "helpers.f()"),
    "a deep list": ("d = 1\nfor _ in range(300): d = [d]\n", "helpers.d"),
    "a value inside of an object": (
        "class C:\n    def __init__(self): self.a = dict(g=(n for n in [1]))\nc = C()\n",
        "helpers.c.a",
    ),
    "what a method hides": (
        (
            "import collections\nfrom array import array\nclass A(array):\n    def __reduce_ex__(self, p): return 'x'\n"
            "a = A('i', [1])\n"
        ),
        "helpers.a[0]",
    ),
    "a value that getattr may reach": ("g = (n for n in [1])\n", "getattr(helpers, 'x' + 'y', 1)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compared_is_never_taken(folder: Path, name: str) -> None:
    """The reason says what it is, by its name."""
    code, expression = REFUSED[name]
    source = FLOW.replace("EXPRESSION", expression)
    found = plans(folder, {"flow.py": source, "helpers.py": code})["start"]
    assert found.refused
    assert "helpers." in found.refused[0]


@pytest.mark.parametrize(
    "code",
    [
        "import threading\nv = threading.Lock()\n",
        "import threading\nv = threading.Event()\n",
        "import threading\nclass C:\n    def __init__(self): self.lock = threading.RLock()\nv = C()\n",
        "import logging\nv = logging.getLogger('x')\n",
        "import typing\nv = typing.Optional[int]\nT = typing.TypeVar('T')\n",
        "import abc\nclass C(abc.ABC):\n    @abc.abstractmethod\n    def f(self): ...\nv = C\n",
        "import sys\nclass C:\n    out = sys.stdout\nv = C()\n",
        "import random\nv = random.Random(1)\n",
        "import re, uuid, decimal\nv = [re.compile('x'), uuid.UUID(int=1), decimal.Decimal(1), open, len, print]\n",
        "import numpy, pandas\nv = [numpy.sum, numpy.add, numpy.dtype('f8'), pandas.Timestamp(0), numpy.random]\n",
        "import functools\n@functools.singledispatch\ndef v(x): return 1\n",
        "import weakref\nclass C: pass\nc = C()\nv = weakref.WeakKeyDictionary({c: 1})\n",
        "import sklearn.linear_model\nv = sklearn.linear_model.LinearRegression()\n",
    ],
)
def test_usual_values_can_be_compared(folder: Path, code: str) -> None:
    """A step that uses one of them is cached, and has the same key in the next run."""
    files = {"flow.py": FLOW.replace("EXPRESSION", "helpers.v"), "helpers.py": code}
    one, two = (plans(folder, files)["start"] for _ in range(2))
    assert not one.refused
    assert one.parts == two.parts
