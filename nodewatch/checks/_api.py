"""How a check is declared, and how all of them are found.

A check is one file: a pure function of one frozen sample that yields findings. Its file name is its function's name is its
name in configuration, metrics, journal and documentation; a mismatch is an error at start-up, not a surprise later.
"""

from __future__ import annotations

import enum
import importlib
import logging
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, Protocol, TypeVar

from nodewatch.model.health import Finding
from nodewatch.model.samples import Sample

_SampleT = TypeVar("_SampleT")
_ATTRIBUTE = "__nodewatch_check__"
_LOG = logging.getLogger(__name__)

GROUP = "nodewatch.checks"
"""The entry points by which other packages bring checks (docs/writing-checks.md)."""


class Phase(enum.Flag):
    """When a check's answer is asked for."""

    PROLOG = enum.auto()
    """A job is about to start."""
    EPILOG = enum.auto()
    """A job has ended."""
    PERIODIC = enum.auto()
    """All the time, in the background."""
    DEEP = enum.auto()
    """Before a node takes work for the first time, or again after a repair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSpec:
    """One registered check.

    `lasting` tells a check whose finding is seen once and holds until the hardware was reset or replaced (a kernel-log
    line) from one that is seen again at every reading for as long as it is true.
    """

    name: str
    summary: str
    reads: type[Any]
    phases: Phase
    every_s: float
    lasting: bool
    thresholds: type[Any] | None
    function: Callable[..., Iterable[Finding]]

    def run(self, sample: Sample, thresholds: Any = None) -> tuple[Finding, ...]:
        """The findings in `sample`; whatever the check raises comes through to the runner."""
        if self.thresholds is None:
            return tuple(self.function(sample))
        return tuple(self.function(sample, self.thresholds() if thresholds is None else thresholds))


def check(
    *,
    reads: type[_SampleT],
    phases: Phase,
    every_s: float = 10.0,
    lasting: bool = False,
    thresholds: type[Any] | None = None,
) -> Callable[[Callable[..., Iterable[Finding]]], Callable[..., Iterable[Finding]]]:
    """Declare the decorated function as a check of samples of type `reads`.

    `every_s` is the default cadence in seconds for polled samples; a stream (the kernel log) is judged as it arrives.
    `thresholds` is a frozen dataclass in the same file; its fields appear under `[checks.<name>]` and reach the function
    as its second argument.
    """
    if thresholds is not None and not is_dataclass(thresholds):
        raise TypeError(f"thresholds must be a dataclass, not {thresholds!r}")

    def register(function: Callable[..., Iterable[Finding]]) -> Callable[..., Iterable[Finding]]:
        module = function.__module__.rsplit(".", 1)[-1]
        if module != function.__name__:
            raise TypeError(f"the check {function.__name__} must stand in {function.__name__}.py, not in {module}.py")
        summary = (importlib.import_module(function.__module__).__doc__ or "").strip().splitlines()
        if not summary:
            raise TypeError(f"the check {function.__name__} has no module docstring to say what it looks for")
        spec = CheckSpec(
            name=function.__name__,
            summary=summary[0],
            reads=reads,
            phases=phases,
            every_s=every_s,
            lasting=lasting,
            thresholds=thresholds,
            function=function,
        )
        setattr(function, _ATTRIBUTE, spec)
        return function

    return register


def specs_in(module: ModuleType) -> list[CheckSpec]:
    """The checks that `module` declares."""
    found = [getattr(value, _ATTRIBUTE, None) for value in vars(module).values()]
    return [spec for spec in found if isinstance(spec, CheckSpec) and spec.function.__module__ == module.__name__]


def load_checks(entries: Iterable[EntryPoint] | None = None) -> Mapping[str, CheckSpec]:
    """All checks by name: those of this package, then those of other packages that name themselves under `nodewatch.checks`.

    Raises TypeError when a file of this package holds none or a name stands twice. A check of another package that cannot be
    loaded is logged and left out: what a site added must not stop the agent. `entries` stands for what is installed.
    """
    specs = dict(built_in_checks())
    for entry in sorted(_installed() if entries is None else entries, key=lambda each: (each.name, each.value)):
        try:
            spec = _out_of_tree(entry)
            if spec.name in specs:
                raise TypeError(f"there is a check of that name already, in {specs[spec.name].function.__module__}")
        except (Exception, SystemExit) as error:
            _LOG.error("the check %s (%s) is left out: %s: %s", entry.name, entry.value, type(error).__name__, error)
            continue
        specs[spec.name] = spec
    return specs


def built_in_checks() -> Mapping[str, CheckSpec]:
    """The checks of this package by name, sorted. Raises TypeError when a file holds none or a name stands twice."""
    package = importlib.import_module("nodewatch.checks")
    specs: dict[str, CheckSpec] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda item: item.name):
        if info.name.startswith("_"):
            continue
        found = specs_in(importlib.import_module(f"nodewatch.checks.{info.name}"))
        if len(found) != 1:
            raise TypeError(f"nodewatch/checks/{info.name}.py must declare exactly one check, it declares {len(found)}")
        specs[found[0].name] = found[0]
    return specs


class EntryPoint(Protocol):
    """What is used of importlib.metadata's, so that a test need not install a package."""

    @property
    def name(self) -> str:
        """The check's name."""

    @property
    def value(self) -> str:
        """Where it is: `package.module` or `package.module:function`."""

    def load(self) -> Any:
        """Import it."""


def _installed() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)


def _out_of_tree(entry: EntryPoint) -> CheckSpec:
    loaded = entry.load()
    found = specs_in(loaded) if isinstance(loaded, ModuleType) else [getattr(loaded, _ATTRIBUTE, None)]
    spec = found[0] if len(found) == 1 else None
    if not isinstance(spec, CheckSpec):
        raise TypeError(f"{entry.value} is no check: name the module or the function that @check stands above")
    if spec.name != entry.name:
        raise TypeError(f"it is called {spec.name} in its own file: the entry point must have the same name")
    if not is_dataclass(spec.reads) or not spec.reads.__module__.startswith("nodewatch.model."):
        raise TypeError(f"it reads {getattr(spec.reads, '__name__', spec.reads)}, which is no sample of nodewatch's")
    return spec
