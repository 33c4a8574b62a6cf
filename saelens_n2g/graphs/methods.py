"""Registry: the name of a method -> how it fits a graph to a unit, with which options, from which evidence.

    method = find_method("suffix")
    fit = method.fit("3.mlp_post/neurons/1214", evidence, context, method.options())
    graph = Oracle(subject, basis).run({1214: fit})[1214]

A new method is one new file whose fit carries `@register(name, description, Options)`, and one line in `FILES`. A
method whose options have a field `augment` asks the oracle for substitutes while that field is true.
"""

import importlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_args

from saelens_n2g.errors import InputError
from saelens_n2g.graphs.evidence import Evidence
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.paper import FitContext, PaperOptions, fit_paper
from saelens_n2g.graphs.questions import Fit

Options = TypeVar("Options")
FitFunction = Callable[[str, Evidence, FitContext, Options], Fit[Graph]]
"""(name of the unit, what is known of it, what all fits know, settings) -> a fit that ends with the unit's graph."""

Reading = Literal["text", "alone", "neighbours"]
READINGS: tuple[Reading, ...] = get_args(Reading)
"""What a method may make use of beside exemplars: `Evidence.text` with the unit's activations on it, `Evidence.alone`,
`FitContext.neighbours`. They cost a pass of the subject or memory, so only those who read them are given them."""
DEFAULT = "refined"
"""The method where none is named."""
FILES = ("suffix", "refined")
"""Files of this folder that register themselves when they are imported; that happens when a method is first asked for.
`paper` is registered below: its file is older than this one, which takes `FitContext` from there."""


@dataclass(frozen=True)
class Method:
    """One entry of the registry."""

    name: str
    description: str
    """One line for people: what it does and where it is from."""
    options: type[Any]
    """A frozen dataclass of settings; made without arguments it has the method's defaults."""
    needs_text: bool
    """Whether it cannot do without a text."""
    reads: tuple[Reading, ...]
    """What it makes use of if it is at hand; holds `text` for one that needs it."""
    start: FitFunction[Any]

    def fit(self, unit: str, evidence: Evidence, context: FitContext, options: Any = None) -> Fit[Graph]:
        """A fit that ends with the unit's graph; without `options` with the defaults.

        Raises `InputError` for options of another method and for evidence that lacks a text which is needed, at once;
        the fit itself raises `UnitError` where the unit has no graph.
        """
        settings = self.settings(options)
        if self.needs_text and evidence.text is None:
            raise InputError(f"evidence of unit {unit}", f"fit text, which method {self.name!r} reads", "none")
        return self.start(unit, evidence, context, settings)

    def settings(self, options: Any = None) -> Any:
        """`options`, or the defaults for None. Raises `InputError` if they are those of another method."""
        if options is None:
            return self.options()
        if not isinstance(options, self.options):
            raise InputError(f"options of method {self.name!r}", self.options.__name__, type(options).__name__)
        return options


METHODS: dict[str, Method] = {}


def register(
    name: str,
    description: str,
    options: type[Options],
    *,
    needs_text: bool = False,
    reads: Collection[Reading] = (),
) -> Callable[[FitFunction[Options]], FitFunction[Options]]:
    """Decorator that enters a fit under `name`; the other arguments are the fields of `Method`."""

    def enter(start: FitFunction[Options]) -> FitFunction[Options]:
        assert name not in METHODS, f"method {name!r} is registered twice"
        every = {*reads, "text"} if needs_text else {*reads}
        METHODS[name] = Method(name, description, options, needs_text, tuple(r for r in READINGS if r in every), start)
        return start

    return enter


def all_methods() -> dict[str, Method]:
    """Every method by name, those of `FILES` imported."""
    for file in FILES:
        importlib.import_module(f"{__package__}.{file}")
    return METHODS


def find_method(name: str) -> Method:
    """The entry called `name`. Raises `InputError` that lists what there is."""
    known = all_methods()
    if name not in known:
        raise InputError(f"method {name!r}", f"one of {', '.join(sorted(known))}", repr(name))
    return known[name]


def augments(options: Any) -> bool:
    """Whether a fit with these options asks for substitutes."""
    return bool(getattr(options, "augment", False))


def without_augmentation(options: Any) -> Any:
    """The same options, asking for no substitutes."""
    return replace(options, augment=False) if any(f.name == "augment" for f in fields(options)) else options


@register("paper", "Foote et al. 2023: prune, saliency of every activating token, augment, trie", PaperOptions)
def _paper(unit: str, evidence: Evidence, context: FitContext, options: PaperOptions) -> Fit[Graph]:
    return fit_paper(unit, evidence.max_activation, evidence.exemplars, context, options)
