"""The facts about a compiled function on which its result may depend.

Compiled code has no comments and no layout, and is what runs, whatever the file says by now.
"""

from __future__ import annotations

import dis
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

_WORDS = re.compile(r"[^\W\d]\w*")
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR"})
_LOADS_OF_NAMES = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_GLOBALS"})
_COPIES = frozenset({"DUP_TOP", "COPY"})
_IGNORED = frozenset({"CACHE", "EXTENDED_ARG", "PRECALL", "NOP", "RESUME", "PUSH_NULL"})
# By these, a constant before them is an index, or an argument of a call.
_USES = ("BINARY_SUBSCR", "STORE_SUBSCR", "DELETE_SUBSCR", "CALL", "LOAD_CONST")
# By these, code reaches what its names don't say, or other programs.
DYNAMIC = frozenset({
    "__builtins__", "__closure__", "__code__", "__dict__", "__getattribute__", "__globals__", "__import__",
    "__subclasses__", "_current_frames", "_getframe", "allow_pickle", "attrgetter", "check_call", "check_output",
    "compile", "create_subprocess_exec", "create_subprocess_shell", "currentframe", "delattr", "dir", "eval", "exec",
    "exec_module", "execl", "execle", "execlp", "execv", "execve", "execvp", "fork", "get_objects", "get_referents",
    "get_referrers", "getattr", "getmembers", "getoutput", "globals", "import_module", "import_string", "instantiate",
    "load_module", "locals", "locate", "methodcaller", "modules", "Popen", "popen", "posix_spawn", "read_pickle",
    "reload", "resolve_name", "run_module", "run_path", "setattr", "spawnl", "spawnle", "spawnv", "spawnve",
    "subprocess", "system", "vars",
})  # fmt: skip
_OF_ENVIRONMENT = frozenset({"environ", "environb", "getenv", "getenvb"})
# By these, code reads environment variables that the operating system or the user names elsewhere.
_EXPANDING = frozenset({"expandvars"})


@dataclass
class CodeFacts:
    """The facts about a function's code and the functions inside of it.

    Args:
        code: The code.
        shape: What the code does, as lists and texts that are the same in each process.
        names: All attributes, globals and imported names that it mentions.
        strings: All texts in it.
        chains: The globals that it loads, each with the attributes that follow.
        imports: The modules that it imports: the level, the name, and the names of a ``from … import``.
        loads: The attributes that it loads, of whatever object.
        own_loads: How often it loads each attribute of its first argument.
        stores: The attributes that it sets or deletes.
        dynamic: The names by which it may reach anything.
        leaks: True if it uses its first argument for more than its attributes, by ``super()`` too, or has none.
        reads_environment: True if it may read environment variables whose names are not written in it.
    """

    code: CodeType
    shape: Any
    names: set[str] = field(default_factory=set)
    strings: set[str] = field(default_factory=set)
    chains: set[tuple[str, ...]] = field(default_factory=set)
    imports: set[tuple[int, str, tuple[str, ...]]] = field(default_factory=set)
    loads: set[str] = field(default_factory=set)
    own_loads: dict[str, int] = field(default_factory=dict)
    stores: set[str] = field(default_factory=set)
    dynamic: set[str] = field(default_factory=set)
    leaks: bool = False
    reads_environment: bool = False

    @property
    def mentions(self) -> set[str]:
        """The names that it mentions, and all words in its texts."""
        return self.names | {word for text in self.strings for word in words_of(text)}


def words_of(text: str) -> set[str]:
    """The words in a text that may be names."""
    return set(_WORDS.findall(text))


def facts_of(code: CodeType) -> CodeFacts:
    """The facts about a function's code."""
    found = CodeFacts(code, shape_of(code), leaks=not code.co_argcount)
    for each in _codes(code):
        found.names.update(each.co_names)
        for constant in each.co_consts:
            found.strings.update(_strings(constant))
        _add(found, each, code.co_varnames[0] if code.co_argcount else "")
    found.dynamic = (found.names | (found.strings & {"allow_pickle"})) & DYNAMIC
    found.leaks |= "super" in found.names
    return found


def shape_of(code: CodeType) -> list[Any]:
    """The effect of code as lists and texts; without line numbers and the name of its file."""
    return [
        code.co_name,
        [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags],
        code.co_code.hex(),
        [list(names) for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)],
        [_constant(value) for value in code.co_consts],
        getattr(code, "co_exceptiontable", b"").hex(),
    ]


def _constant(value: object) -> Any:
    if isinstance(value, CodeType):
        return shape_of(value)
    if isinstance(value, tuple):
        return ["tuple", *map(_constant, value)]
    if isinstance(value, frozenset):
        return ["frozenset", *sorted(map(repr, value))]
    return [type(value).__name__, repr(value)]


def _strings(constant: object) -> Iterator[str]:
    if isinstance(constant, str):
        yield constant
    elif isinstance(constant, (tuple, frozenset)):
        for each in constant:
            yield from _strings(each)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _add(found: CodeFacts, code: CodeType, own: str) -> None:
    """Adds the facts of one code object; ``own`` is the name of the outermost function's first argument."""
    steps = [each for each in dis.get_instructions(code) if each.opname not in _IGNORED]
    for position, each in enumerate(steps):
        after = steps[position + 1 : position + 5]
        if each.opname in _ATTRIBUTES:
            name = str(each.argval)
            if each.opname in {"STORE_ATTR", "DELETE_ATTR"}:
                found.stores.add(name)
            else:
                found.loads.add(name)
        elif each.opname in _LOADS_OF_NAMES:
            found.chains.add((str(each.argval), *_chain(steps, position + 1)))
        elif each.opname == "IMPORT_NAME":
            level = steps[position - 2].argval if position > 1 else 0
            names = steps[position - 1].argval
            of = tuple(names) if isinstance(names, tuple) else ()
            found.imports.add((level if isinstance(level, int) else 0, str(each.argval), of))
        if own and _loads(each, own):
            if _is_for_attribute(each, own, after):
                name = next(str(a.argval) for a in after if a.opname in _ATTRIBUTES)
                found.own_loads[name] = found.own_loads.get(name, 0) + 1
            else:
                found.leaks = True
        if each.argval in _EXPANDING or (each.argval in _OF_ENVIRONMENT and not _names_variable(after)):
            found.reads_environment = True


def _chain(steps: list[dis.Instruction], position: int) -> Iterator[str]:
    """The attributes that are loaded one after the other."""
    while position < len(steps) and steps[position].opname in {"LOAD_ATTR", "LOAD_METHOD"}:
        yield str(steps[position].argval)
        position += 1


def _loads(step: dis.Instruction, own: str) -> bool:
    """True if an instruction loads the first argument."""
    if not step.opname.startswith(("LOAD_FAST", "LOAD_DEREF", "STORE_FAST_LOAD_FAST")):
        return False
    return own in (step.argval if isinstance(step.argval, tuple) else (step.argval,))


def _is_for_attribute(step: dis.Instruction, own: str, after: list[dis.Instruction]) -> bool:
    """True if an instruction loads the first argument once, and for one of its attributes only."""
    *others, last = step.argval if isinstance(step.argval, tuple) else (step.argval,)
    if after and after[0].opname in _COPIES:
        after = after[1:]
    return own not in others and last == own and bool(after) and after[0].opname in _ATTRIBUTES


def _names_variable(after: list[dis.Instruction]) -> bool:
    """True if the name of an environment variable follows, as a text that is used as it is, not a part of a name."""
    for index, each in enumerate(after):
        if each.opname.startswith("LOAD_CONST"):
            return isinstance(each.argval, str) and any(map(_is_use, after[index + 1 : index + 2]))
        if each.opname not in {"LOAD_METHOD", "LOAD_ATTR"} or each.argval not in {"get", "getenv", "getenvb"}:
            return False
    return False


def _is_use(step: dis.Instruction) -> bool:
    """True if an instruction after a constant takes it as an index, or it is an argument of a call."""
    is_item = step.opname == "BINARY_OP" and step.argrepr == "[]"  # since Python 3.14
    return is_item or step.opname.startswith(_USES)
