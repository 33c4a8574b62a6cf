"""Explainers, simulators and scorers by name: those that need nobody else, and those that ask a language model.

SIMULATORS.register("mine", lambda options: Mine(float(options.get("scale", 1))))
SIMULATORS.make("mine", {"scale": 2})
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from saelens_n2g.autointerp.asking import Asker
from saelens_n2g.clients.base import Capabilities
from saelens_n2g.errors import InputError

Options = Mapping[str, Any]
"""Settings by name, as JSON values; those from a command line are texts."""
Made = TypeVar("Made")
NEEDS = {
    "prompt_logprobs": "log probabilities of the prompt",
    "logprobs": "log probabilities of generated tokens",
}


class Registry(Generic[Made]):
    """What can be made of one kind, by name. The package's own files register themselves when names are first asked
    for."""

    def __init__(self, kind: str, *files: str) -> None:
        """kind: for people. files: of this folder, those that bring some with the package."""
        self.kind, self.files = kind, files
        self.makers: dict[str, Callable[[Options], Made]] = {}
        self.asking: dict[str, tuple[Callable[[Options, Asker], Made], tuple[str, ...]]] = {}

    def register(self, name: str, maker: Callable[[Options], Made]) -> None:
        """Make one known that needs nobody. Raises `InputError` if the name is taken."""
        self._free(name)
        self.makers[name] = maker

    def register_asking(self, name: str, maker: Callable[[Options, Asker], Made], *needs: str) -> None:
        """Make one known that asks a language model. needs: fields of `Capabilities`. Raises `InputError` if the name
        is taken."""
        self._free(name)
        self.asking[name] = maker, needs

    def _free(self, name: str) -> None:
        if name in self.makers or name in self.asking:
            raise InputError(f"{self.kind} {name!r}", "a name that is free", "one that is taken")

    def names(self) -> tuple[str, ...]:
        """All names, those that ask last."""
        for file in self.files:
            importlib.import_module(f"saelens_n2g.autointerp.{file}")
        return (*self.makers, *self.asking)

    def served(self, able: Capabilities) -> list[str]:
        """Names of those that ask and that a client can serve."""
        return [name for name, (_, needs) in self.asking.items() if all(getattr(able, need) for need in needs)]

    def make(self, name: str, options: Options | None = None, asker: Asker | None = None) -> Made:
        """The one of that name. Raises `InputError` if there is none, if it asks and there is no client or one that
        cannot serve it, and as its maker does."""
        if name not in self.names():
            raise InputError(f"{self.kind} {name!r}", f"one of {', '.join(self.names())}", repr(name))
        if name in self.makers:
            return self.makers[name](options or {})
        maker, needs = self.asking[name]
        if asker is None:
            raise InputError(f"{self.kind} {name!r}", "a client to ask (--client)", "none")
        missing = [NEEDS[need] for need in needs if not getattr(asker.able, need)]
        if missing:
            raise self.unserved(name, f"a client that gives {' and '.join(missing)}", asker)
        return maker(options or {}, asker.named(name))

    def unserved(self, name: str, expected: str, asker: Asker) -> InputError:
        """The error of one that the client cannot serve, which says what it can."""
        served = ", ".join(self.served(asker.able)) or "none"
        found = f"client {asker.client.name} of model {asker.client.model!r}, which can serve {served}"
        return InputError(f"{self.kind} {name!r}", expected, found)


def whole(options: Options, key: str, default: int) -> int:
    """An option that is a whole number. Raises `InputError` for one that is none."""
    try:
        return int(options.get(key, default))
    except ValueError:
        raise InputError(f"option {key}", "a whole number", repr(options[key])) from None


def number(options: Options, key: str, default: float) -> float:
    """An option that is a number. Raises `InputError` for one that is none."""
    try:
        return float(options.get(key, default))
    except ValueError:
        raise InputError(f"option {key}", "a number", repr(options[key])) from None


def yes_or_no(options: Options, key: str, name: str) -> bool:
    """An option of `name` that is yes or no, and no where it is not given. Raises `InputError` for anything else."""
    given = str(options.get(key, "no"))
    if given not in ("yes", "no"):
        raise InputError(f"option {key} of {name}", "yes or no", repr(given))
    return given == "yes"


def only(name: str, options: Options, known: Sequence[str]) -> None:
    """Raise `InputError` if there are options that `name` does not know."""
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"options of {name}", ", ".join(known) or "none", ", ".join(unknown))
