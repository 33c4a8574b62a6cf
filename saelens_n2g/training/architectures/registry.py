"""Which architectures there are. A file in this folder with a `@register` is all that a new one needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

from saelens_n2g.errors import InputError
from saelens_n2g.training.objective import Objective, Start

MODULES = ("tied", "relu", "topk", "batchtopk", "matryoshka", "jumprelu", "gated")
"""Files of this folder, each of which registers the architecture of its name; the order of `architectures()`."""


@dataclass(frozen=True)
class Architecture:
    """A registered kind of dictionary."""

    name: str
    title: str
    """For tables and figures."""
    build: Callable[[Start], Objective]
    options: type | None
    """Dataclass of its own settings; None where there are none."""
    sparsity: str
    """What decides how sparse it is: `alpha`, or the name of an option."""

    def make_options(self, given: Mapping[str, Any] | None) -> Any:
        """Its settings from JSON values. Raises `InputError` for one that it does not have."""
        known = [] if self.options is None else [f.name for f in fields(self.options)]
        if unknown := sorted(set(given or {}) - set(known)):
            raise InputError(f"architecture {self.name}", f"options {', '.join(known) or 'none'}", ", ".join(unknown))
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in (given or {}).items()}
        return None if self.options is None else self.options(**values)


_KNOWN: dict[str, Architecture] = {}


def register(
    name: str, title: str, *, options: type | None = None, sparsity: str = "alpha"
) -> Callable[[Callable[[Start], Objective]], Callable[[Start], Objective]]:
    """Make a class or function that builds an `Objective` known under `name`."""

    def note(build: Callable[[Start], Objective]) -> Callable[[Start], Objective]:
        _KNOWN[name] = Architecture(name, title, build, options, sparsity)
        return build

    return note


def architectures() -> dict[str, Architecture]:
    """All of them by name."""
    for module in MODULES:
        import_module(f"saelens_n2g.training.architectures.{module}")
    return {name: _KNOWN[name] for name in MODULES}


def find_architecture(name: str) -> Architecture:
    """Raises `InputError` for a name that is not registered."""
    known = architectures()
    if name not in known:
        raise InputError("architecture", f"one of {', '.join(known)}", repr(name))
    return known[name]
