"""Makes the plans of ``@cache`` for the steps of a run: all of their keys that doesn't depend on a task."""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from k8sflow.executors.fork_server.preload_plan import is_library
from k8sflow.flow.configs import Config
from k8sflow.flow.decorators import registry
from k8sflow.flow.decorators.base import Decoration, options_of
from k8sflow.flow.decorators.environment import variables_of
from k8sflow.flow.decorators.step import is_step
from k8sflow.flow.definition import FlowDefinition
from k8sflow.flow.missing_module import package_of
from k8sflow.flow.parameters import Parameter
from k8sflow.flow.spec import FlowSpec
from k8sflow.runtime.caching.bytecode import CodeFacts
from k8sflow.runtime.caching.flow_class import has_own_access, is_implicit, methods_in
from k8sflow.runtime.caching.machine import of_machine
from k8sflow.runtime.caching.named_files import NamedFiles
from k8sflow.runtime.caching.outside import reasons
from k8sflow.runtime.caching.statements import Statements
from k8sflow.runtime.caching.walk import Walk
from k8sflow.storage.cache_plan import PACKAGES, CachePlan
from k8sflow.storage.file_state import data_hash, hashed, newest_change, signature, source_hash
from k8sflow.storage.package import files_of
from k8sflow.storage.records import LAYERED_FORMAT, RunRecord
from k8sflow.task.libraries import versions

# The options of pods and jobs that decide what a step finds there, and not how much of it.
_OF_PODS = (
    "image", "executable", "env", "pod_template", "secrets", "config_maps", "secret_files", "config_map_files",
    "image_volumes", "persistent_volume_claims", "platform", "gpu_model", "gpu_vendor",
)  # fmt: skip
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Variables that are others in each shell, and in each run.
_OF_SHELL = frozenset({"_", "OLDPWD", "PWD", "SHLVL", "WINDOWID", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY"})
_OF_CLASSES = frozenset(
    {"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__"}
)
# An interpreter reads no file of the user's before that.
_START_SECONDS = 0.015


def _process_start() -> float:
    """When this process was started, in seconds since 1970 (proc(5))."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return time.time()
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


@dataclass
class Planner:
    """Makes the plans of one run.

    Args:
        definition: The flow.
        record: The run's record, without plans.
        folder: The folder of the flow's code.
        is_taken: False if no result is taken.
        variables: The environment variables of this process.
        modules: The modules that are loaded, by name.
        started: When this process was started, in seconds since 1970.
    """

    definition: FlowDefinition
    record: RunRecord
    folder: Path
    is_taken: bool = True
    variables: Mapping[str, str] = field(default_factory=lambda: os.environ)
    modules: Mapping[str, ModuleType] = field(default_factory=lambda: sys.modules)
    started: float = field(default_factory=_process_start)

    def plans(self) -> dict[str, CachePlan]:
        """The plans by step, of the steps that have ``@cache``.

        Raises:
            PackageError: A file of the flow's folder can't be read.
        """
        added = self.definition.added(self.record.decorators)
        found = {}
        for step in self.definition.graph.nodes:
            decorations = self.definition.decorations_of(step, added)
            options = options_of(decorations, "cache")
            if options is not None:
                found[step] = self._plan(step, decorations, options)
        return found

    def _plan(self, step: str, decorations: Sequence[Decoration], options: Mapping[str, Any]) -> CachePlan:
        walk = Walk(self.definition.flow, self.modules, is_locked=step in self.record.environments)
        is_here = step not in self.record.pods and step not in self.record.batch
        method = self.definition.steps[step].function
        walk.digest(method, step)
        own_decorators = [found for found in decorations if not registry.is_built_in(found.name)]
        for found in own_decorators:
            walk.add(f"decorator @{found.name}", [found.decorator.around, dict(found.parsed())])
        self._members(walk, step)
        # What statements read as a module is imported counts by its value.
        why = list(reasons(walk.reach.modules, _names(walk.facts), walk.reach.of_current - {"*"} | _passed(walk)))
        has_flow = walk.reach.has_flow  # that a module starts its flow says nothing about the step
        self._statements(walk)
        self._members(walk, step)
        if walk.reach.unclear:
            self._variables(walk)
        parts = {**walk.parts, **self._parts(decorations, walk), **self._environment(walk, step, is_here=is_here)}
        if options["version"]:
            parts["version"] = hashed(options["version"])
        if walk.reach.unclear:
            parts["all code of the folder"] = source_hash(self.folder, self._outside, ())
        files = self._files.parts(walk.strings, walk.reach.modules) if is_here else {}
        parts |= {f"file {name}": found for name, found in files.items()}
        self._refuse(
            walk, decorations, why if not options["version"] and options["max_age"] is None else [], is_here=is_here
        )
        may_read_any = walk.reach.unclear or own_decorators or self._leaks(walk, method)
        reads = self._reads(walk, step, decorations, has_flow=has_flow)
        outside = tuple(sorted({*self._outside, *files, *self._editable_files(step)})) if is_here else ()
        return CachePlan(
            parts=dict(sorted(parts.items())),
            carried=self._carried[0],
            carried_refused=self._carried[1],
            own_modules=self._own_names,
            reads=None if may_read_any else reads,
            sets=tuple(sorted({name for found in walk.facts for name in found.stores})),
            ignore=tuple(options["ignore"]),
            max_age=options["max_age"],
            is_here=is_here,
            is_locked=step in self.record.environments,
            of_task="task_id" in walk.reach.of_current or "*" in walk.reach.of_current,
            signature=signature(self.folder, outside) if is_here else "",
            outside=outside,
            is_taken=self.is_taken and step != self.record.origin_step,  # resume STEP asks for its execution
            notes=tuple(walk.reach.unclear),
            refused=tuple(walk.refused),
        )

    def _refuse(self, walk: Walk, decorations: Sequence[Decoration], why: Sequence[str], *, is_here: bool) -> None:
        """Notes by what the result may be another one although the key is the same."""
        for reason in why:
            walk.refused[f"{reason}: say by @cache(version=…) or @cache(max_age=…) for how long a result is good"] = (
                None
            )
        for name in sorted(walk.reach.imported_later - set(self.record.modules or ())) if is_here else ():
            walk.refused[f"its code imports {name} when it runs, which is not in the flow's folder"] = None
        for each in decorations:
            names_only = each.decorator.only_names
            if each.name == "secrets" and not (names_only is not None and names_only(each.options)):
                walk.refused["@secrets has values in it, of which no key has a trace"] = None

    # ------------------------------------------------------------------ code

    def _statements(self, walk: Walk) -> None:
        """Adds the statements of the user's modules that run when these are imported."""
        for module in self._own_modules_loaded:
            label = f"statements of {module.__name__}"
            try:
                found = Statements(module, Path(str(module.__file__)).read_bytes())
            except (OSError, SyntaxError, ValueError) as error:
                walk.reach.unclear[f"the source of {module.__name__} can't be read: {error}"] = None
                continue
            own = {each.__name__.partition(".")[0] for each in self._own_modules_loaded}
            if imports := {name for name in found.imports if name.partition(".")[0] not in own}:
                walk.parts[f"imports of {module.__name__}"] = hashed(sorted(imports))
            for name, value in found.objects.items():
                walk.digest(value, f"{module.__name__}.{name}")
            if found.code is not None:
                walk.code(label, found.code, vars(module))

    def _members(self, walk: Walk, step: str) -> None:
        """Adds the members of the flow's class that the code mentions, and what these mention."""
        waiting = [
            (base, name, value)
            for base in self._bases
            for name, value in vars(base).items()
            if not self._is_input(name, value) or self._is_hidden(base, name)
        ]
        is_open = True
        while is_open:
            mentions = {name for facts in walk.facts for name in facts.mentions}
            found = [each for each in waiting if each[1] in mentions or is_implicit(each[1], each[2])]
            waiting = [each for each in waiting if each not in found]
            for base, name, value in found:
                if not is_step(value) or self._is_hidden(base, name):
                    walk.add(f"{base.__name__}.{name}", value)
                if has_own_access(value):
                    walk.reach.unclear[f"{base.__name__}.{name} decides by itself what reading it gives"] = None
            is_open = bool(found)
        for name, value in sorted(self.definition.set_by_init.items()):
            walk.add(f"self.{name} of __init__", value)
        self._calls_of_steps(walk, step)

    def _is_input(self, name: str, value: object) -> bool:
        """True if a member is a parameter, a config or a constant, whose value the run's record has."""
        return name in self.record.parameters or isinstance(value, (Parameter, Config))

    def _is_hidden(self, base: type, name: str) -> bool:
        """True if a class above has a member of that name too, so that only ``super()`` finds this one."""
        return next((each for each in self._bases if name in vars(each)), base) is not base

    def _calls_of_steps(self, walk: Walk, step: str) -> None:
        """Notes that a step may call another one as a method."""
        node = self.definition.graph[step]
        expected = dict.fromkeys(node.next, 1)
        for _, target in node.cases:
            expected[target] = sum(each == target for _, each in node.cases)
        method = self.definition.steps[step].function
        leaks = self._leaks(walk, method)
        for facts in walk.facts:
            is_step_itself = facts.code is getattr(method, "__code__", None)
            for name in self.definition.steps:
                limit = expected.get(name, 0) if is_step_itself else 0
                is_used = facts.own_loads.get(name, 0) > limit if facts.code in self._method_codes else False
                is_used |= leaks and not is_step_itself and name in facts.loads
                if is_used:
                    walk.reach.unclear[f"{facts.code.co_name} uses the step {name} as a method"] = None

    def _leaks(self, walk: Walk, method: object) -> bool:
        """True if code of the flow uses ``self`` for more than its attributes."""
        codes = {getattr(method, "__code__", None)} | self._method_codes
        return any(facts.leaks for facts in walk.facts if facts.code in codes)

    def _reads(self, walk: Walk, step: str, decorations: Sequence[Decoration], *, has_flow: bool) -> tuple[str, ...]:
        """The attributes of ``self`` that a step loads, and those that ``self.next(…)`` or ``@catch`` names."""
        codes = {getattr(self.definition.steps[step].function, "__code__", None)} | self._method_codes
        node = self.definition.graph[step]
        found = {name for facts in walk.facts if facts.code in codes for name in facts.own_loads}
        if has_flow:  # those of the class may be read from it too
            found |= {name for facts in walk.facts for name in facts.mentions} & self.record.parameters.keys()
        caught = options_of(decorations, "catch")
        more = (node.foreach, node.condition, None if caught is None else caught["var"])
        return tuple(sorted({*found, *filter(None, more)}))

    @cached_property
    def _bases(self) -> list[type]:
        """The classes of the flow below FlowSpec."""
        return [base for base in self.definition.flow.__mro__ if base not in {FlowSpec, object}]

    @cached_property
    def _method_codes(self) -> set[Any]:
        """The code of the flow's methods, which have ``self``."""
        found: set[Any] = set()
        for base in self._bases:
            for value in vars(base).values():
                found |= {each.__code__ for each in methods_in(value)}
        return found

    # ------------------------------------------------------------------ the rest of the key

    def _parts(self, decorations: Sequence[Decoration], walk: Walk) -> dict[str, str]:
        """The parts that are the same wherever the step runs."""
        found = {"files of the folder": self._data, "format of artifacts": hashed(LAYERED_FORMAT)}
        if variables := variables_of(decorations):
            found["@environment"] = hashed(sorted(variables.items()))
        if (caught := options_of(decorations, "catch")) is not None:
            found["@catch"] = hashed(str(caught["var"]))
        for each in decorations:
            if each.name == "secrets":
                is_shown = each.decorator.only_names is not None and each.decorator.only_names(each.options)
                found["@secrets"] = hashed(repr(sorted(each.options.items())) if is_shown else "")
        if facts := self._of_run(walk.reach.of_current):
            found["current"] = hashed(facts)
        if self.started + _START_SECONDS < self._newest[0]:
            found[f"{self._newest[1]}, which changed while the flow was loaded"] = secrets.token_hex(8)
        return found

    def _of_run(self, attributes: set[str]) -> list[Any]:
        """The facts of the run that attributes of ``current`` show, and that another run may share."""
        record = self.record
        known: dict[str, Any] = {
            "username": record.user,
            "namespace": [record.user, record.namespace],
            "tags": [record.user, record.tags],
            "graph": record.graph.to_document(),
            "parameter_names": sorted(record.parameters),
        }
        found = [
            value for name, value in known.items() if "*" in attributes or any(name in each for each in attributes)
        ]
        is_of_project = any(word in name for name in attributes for word in ("*", "project", "branch", "production"))
        return found + ([record.flow_decorators] if is_of_project else [])

    def _environment(self, walk: Walk, step: str, *, is_here: bool) -> dict[str, str]:
        """The parts that say in which environment the step runs."""
        lock = self.record.environments.get(step)
        packages = {} if lock is None else {PACKAGES: hashed(lock.id)}
        options = self.record.pods.get(step) or self.record.batch.get(step)
        if not is_here and options is not None:
            return packages | {
                f"pod: {name}": hashed(repr(value))
                for name in _OF_PODS
                if (value := getattr(options, name, None)) is not None
            }
        cores = self.record.resources.get(step)
        found = of_machine(walk.reach.modules, _names(walk.facts), cores)
        locked = set() if lock is None else {package.name for package in lock.packages}
        libraries = {name for name in walk.reach.libraries if package_of(name) not in locked}
        found |= {f"package {name}": hashed(version) for name, version in versions(libraries, self.modules).items()}
        found |= packages
        for editable in () if lock is None else lock.editable_folders:
            path = Path(editable)
            found[f"package folder {editable}"] = hashed([data_hash(path), source_hash(path, (), ())])
        if walk.reach.reads_environment or any(facts.reads_environment for facts in walk.facts):
            everything = {
                n: v for n, v in self.variables.items() if n not in _OF_SHELL and not n.startswith("K8SFLOW_")
            }
            return {**found, "all environment variables": hashed(sorted(everything.items()))}
        named = {text for text in walk.strings if text in self.variables and _VARIABLE.fullmatch(text)}
        return {**found, **{f"variable ${name}": hashed(self.variables[name]) for name in named}}

    def _editable_files(self, step: str) -> list[str]:
        """The files of packages that a step uses from their folders."""
        lock = self.record.environments.get(step)
        folders = () if lock is None else lock.editable_folders
        return [str(path) for folder in folders for _, path in files_of(Path(folder))]

    @cached_property
    def _own_modules_loaded(self) -> list[ModuleType]:
        """The user's modules that are loaded, in the order of their names."""
        found = {id(module): module for module in list(self.modules.values()) if _is_own(module)}
        return sorted(found.values(), key=lambda module: module.__name__)

    @cached_property
    def _own_names(self) -> tuple[str, ...]:
        names = {module.__name__.partition(".")[0] for module in self._own_modules_loaded}
        return tuple(sorted({"__main__", *names, *(self.record.modules or ())}))

    @cached_property
    def _outside(self) -> tuple[str, ...]:
        """The files of the user's modules that are not in the folder."""
        files = {str(Path(str(module.__file__)).resolve()) for module in self._own_modules_loaded}
        return tuple(sorted(file for file in files if not Path(file).is_relative_to(self.folder.resolve())))

    @cached_property
    def _files(self) -> NamedFiles:
        return NamedFiles(self.folder)

    @cached_property
    def _data(self) -> str:
        return data_hash(self.folder)

    @cached_property
    def _newest(self) -> tuple[float, str]:
        return newest_change(self.folder, self._outside)

    @cached_property
    def _carried(self) -> tuple[str, tuple[str, ...]]:
        """The hash of all code but that of the steps, which no value can bring; and why it can't be compared."""
        steps = {(base.__name__, name) for base in self._bases for name, value in vars(base).items() if is_step(value)}
        walk = Walk(self.definition.flow, self.modules)
        self._variables(walk)
        source = source_hash(self.folder, self._outside, steps)
        return hashed([source, sorted(walk.parts.items())]), tuple(walk.refused)

    def _variables(self, walk: Walk) -> None:
        """Adds all that the user's modules and the flow have, other than steps, for code that may reach any of it."""
        for module in self._own_modules_loaded:
            walk.variables(module)
        for base in self._bases:
            for name, value in vars(base).items():
                if not self._is_input(name, value) and not is_step(value) and name not in _OF_CLASSES:
                    walk.add(f"{base.__name__}.{name}", value)


def _is_own(module: object) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(module, ModuleType) and isinstance(file, str) and file.endswith(".py") and not is_library(module)


def _names(found: Sequence[CodeFacts]) -> set[str]:
    """The names in code, other than those of attributes of ``self``."""
    return {name for facts in found for name in facts.names - facts.own_loads.keys()}


def _passed(walk: Walk) -> set[str]:
    return {"*"} if walk.reach.passes_current else set()
