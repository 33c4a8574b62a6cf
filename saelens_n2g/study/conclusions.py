"""What a reader may conclude, in sentences that follow from the numbers by rule.

A difference is stated only where its 95 % interval leaves 0 out, the sign-flip test of the pairs agrees (bootstrap
intervals of few values are too narrow), and at least `PAIRS` pairs stand behind it; where matched and unmatched
differences part, that is said. What the study cannot show is said whatever the numbers are.
"""

from saelens_n2g.comparison.table import TEXT_TITLES, estimate, number, p_value, rate
from saelens_n2g.scoring import Summary
from saelens_n2g.study.cell import title_of
from saelens_n2g.study.config import SHUFFLED
from saelens_n2g.study.results import CONTROL, EqualSize, StudyResult, Versus

PAIRS = 10
"""Matched pairs from which on anything is said of a difference."""
LEVEL = 0.05
"""p-value of the sign-flip test below which it agrees."""
NEAR_ZERO = 0.1
"""Upper end of the control's interval up to which it counts as near zero."""
WIDE = 0.5
"""Spread from which on the stream counts as varying about as much along a direction as along others."""
MAIN = "random"
"""The text that conclusions are drawn from: all windows of the test documents."""


def clear(difference: Summary) -> bool:
    """Whether the interval leaves 0 out; False where there is none."""
    return difference.sign != 0


def shown(one: Versus) -> bool:
    """Whether a matched difference may be stated."""
    sure = one.p_value is not None and one.p_value < LEVEL
    return one.pairs >= PAIRS and clear(one.matched) and sure


def signed(difference: Summary) -> str:
    """`+0.12 [+0.05, +0.19]`."""
    assert difference.mean is not None
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.2f}"
    return f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"


def sentence(one: Versus, trait: str = "how often units fire") -> str:
    """What a comparison says, and no more; `trait` is what units are matched on."""
    a, b = title_of(one.a), title_of(one.b)
    if one.pairs < PAIRS or one.matched.mean is None:
        return (
            f"{a} and {b}: {one.pairs} matched pairs of {one.of_a} and {one.of_b} units, too few to say anything "
            f"(at least {PAIRS} are asked for)."
        )
    if not shown(one):
        text = f"{a} and {b}: no difference is shown on {one.pairs} matched pairs ({signed(one.matched)})"
        if clear(one.matched):
            text += f", because the sign-flip test does not agree with the interval (p {p_value(one.p_value)})"
        if clear(one.unmatched):
            text += f"; that of all units, {signed(one.unmatched)}, goes along with {trait}"
        return f"{text}."
    ahead = one.matched.mean > 0
    first, second = (a, b) if ahead else (b, a)
    text = (
        f"{first} are easier to explain than {second}" if not _single(one, ahead) else f"{first} is ahead of {second}"
    )
    text += f": F1 of {a} less that of {b} is {signed(one.matched)} on {one.pairs} matched pairs"
    if clear(one.unmatched) and one.unmatched.mean is not None and (one.unmatched.mean > 0) != ahead:
        text += f"; of all units it is {signed(one.unmatched)}, the other way round"
    elif not clear(one.unmatched) and one.unmatched.mean is not None:
        text += f"; of all units ({signed(one.unmatched)}) no difference is shown"
    return f"{text}."


def _single(one: Versus, ahead: bool) -> bool:
    """Whether the one that is ahead is a dictionary, called by its name."""
    name = one.a if ahead else one.b
    return title_of(name) == name


def control(result: StudyResult) -> list[str]:
    """Whether the shuffled control and the random directions behave."""
    said = []
    for name in result.names:
        found = result.mean(name, SHUFFLED, MAIN, "f1")
        if found.mean is None or found.high is None:
            said.append(f"{title_of(name)}: no control, less than two units of a layer have a graph.")
        elif found.high > NEAR_ZERO:
            without = ""
            if massive := result.massive(name):
                rest = result.typical.mean(name, SHUFFLED, MAIN, "f1")
                without = f" Without its {massive} units of massive activations: {estimate(rest)}."
            said.append(
                f"{title_of(name)}: the shuffled control does not vanish, F1 {number(found.mean)} (up to "
                f"{number(found.high)}): graphs of other units of this basis predict a unit too, so that much of its "
                f"score is not its own.{without}"
            )
    if not said:
        said = [f"The shuffled control is near zero (interval below {NEAR_ZERO:g}) for every basis."]
    return [*said, *second_control(result)]


def second_control(result: StudyResult) -> list[str]:
    """Whether random directions are below PCA; where they are not, what of it spread and massive activations are."""
    pair = next((v for v in result.versus if (v.a, v.b) == CONTROL and v.text == MAIN), None)
    if pair is None:
        return []
    below = shown(pair) and pair.matched.sign > 0
    means = {layer: [result.mean(name, "graph", MAIN, "f1", layer).mean for name in CONTROL] for layer in result.layers}
    above = [str(n) for n, (a, b) in means.items() if a is not None and b is not None and b >= a]
    where = f" By all units they are not below PCA at layers {', '.join(above)}." if above else ""
    said = [f"Second control, random directions against PCA. {sentence(pair)}{where}"]
    if below and not above:
        return said
    return [*said, *_of_spread(result), *_of_massive(result)]


def _of_spread(result: StudyResult) -> list[str]:
    """How PCA fares where the stream varies as much as along random directions, and where it does not."""
    pca, other = CONTROL
    spreads = {
        name: sorted(u.spread for cell in result.typical.of(name) for u in cell.counted if u.spread is not None)
        for name in CONTROL
    }
    if not all(spreads.values()):
        return []
    middle = {name: found[len(found) // 2] for name, found in spreads.items()}
    low, high = (result.of_spread(pca, MAIN, *bounds) for bounds in ((0.0, WIDE), (WIDE, float("inf"))))
    text = (
        f"Spread: along the middle PCA direction looked at the stream varies {middle[pca]:.2f} times as much as along "
        f"the average direction, along the middle random one {middle[other]:.2f} times. F1 of PCA directions below "
        f"{WIDE:g} times {estimate(low)} ({low.n} units), of the others {estimate(high)} ({high.n})."
    )
    (pair,) = [one for one in result.equal_spread if one.text == MAIN]
    said = [text, f"At equal spread, without units of massive activations. {sentence(pair, 'spread')}"]
    apart = low.high is not None and high.low is not None and low.high < high.low
    if pair.pairs < PAIRS:
        return said
    if shown(pair) and pair.matched.sign < 0:
        return [*said, "So spread is not all of the reason: random directions are ahead of PCA at equal spread too."]
    if apart and middle[pca] < middle[other]:
        said.append(
            "So spread goes with it: most PCA directions are ones along which the stream varies less than along random "
            "ones, their F1 is lower there, and at equal spread no lead of random directions is shown."
        )
    return said


def _of_massive(result: StudyResult) -> list[str]:
    """How many units of the second control fire on massive activations, and the means without them."""
    if not any(result.massive(name) for name in CONTROL):
        return []
    said = []
    for name in CONTROL:
        counted = sum(len(cell.counted) for cell in result.of(name))
        layers = ", ".join(str(n) for n in result.layers if result.massive(name, n))
        at = f" (layers {layers})" if layers else ""
        f1, rest = (one.mean(name, "graph", MAIN, "f1") for one in (result, result.typical))
        said.append(
            f"{title_of(name)} {result.massive(name)} of {counted} units{at}, F1 {estimate(f1)}, without them "
            f"{estimate(rest)}"
        )
    return [f"Massive activations, units that fire mostly on them: {'; '.join(said)}."]


def without_massive(result: StudyResult) -> list[str]:
    """The comparisons of which something else is to be said without units of massive activations."""
    said = []
    for one, other in zip(result.versus, result.typical.versus, strict=True):
        verdicts = [v.matched.sign if shown(v) else 0 for v in (one, other)]
        if one.text == MAIN and verdicts[0] != verdicts[1]:
            said.append(f"Without units of massive activations. {sentence(other)}")
    return said


def same_size(one: EqualSize) -> str:
    """What the protocol of Gao et al. says of two dictionaries of one size."""
    a, b = title_of(one.a), title_of(one.b)
    if one.difference.mean is None:
        return f"{one.metric.capitalize()}, {a} and {b}: too few units to compare."
    verdict = "differ" if clear(one.difference) else "no difference is shown"
    ratio = "" if one.ratio is None or not clear(one.difference) else f", a ratio of {one.ratio:.2f}"
    text = f"{one.metric.capitalize()} of {a} less that of {b}: {signed(one.difference)}{ratio}"
    return f"{text}." if verdict == "differ" else f"{text}, so {verdict}."


def conclusions(result: StudyResult) -> list[str]:
    """What a reader may conclude: comparisons with a dictionary in them, those that show something first; then the
    controls."""
    main = [v for v in result.versus if v.text == MAIN and {v.a, v.b} & result.dictionaries.keys()]
    main.sort(key=lambda v: (not shown(v), v.pairs < PAIRS))
    return [*(sentence(v) for v in main), *without_massive(result), *control(result)]


def limits(result: StudyResult) -> list[str]:
    """What a reader may not conclude, whatever the numbers are."""
    several = len([v for v in result.versus if v.text == MAIN])
    densities = {name: sorted(u.density for c in result.of(name) for u in c.counted) for name in result.names}
    middle = {name: found[len(found) // 2] for name, found in densities.items() if found}
    spread = ""
    if len(middle) > 1:
        low, high = min(middle, key=lambda n: middle[n]), max(middle, key=lambda n: middle[n])
        lowest, highest = (f"{rate(middle[name])} ({title_of(name)})" for name in (low, high))
        spread = f" Median density runs from {lowest} to {highest}."
    said = [
        f"{several} pairs of bases were looked at; about {max(1, round(several / 20))} of so many intervals would "
        "leave 0 out by chance if no two bases differed.",
        "A matched difference speaks of units that fire about as often in both bases, not of typical units of either."
        f"{spread}",
        "Intervals cover the choice of units alone: one model, one text, one seed, one dictionary of each kind and "
        "layer.",
        "F1 is of tokens that fire at half the unit's maximum. What a unit does below that, and what it does to the "
        "model, is not in it; easy to predict from text is not the same as meaningful.",
        "Neurons are read inside the MLP, all others off the residual stream: a difference may be one of place.",
    ]
    if drawn := [title_of(name) for name in ("pca", "ica") if name in result.names]:
        said.append(
            f"{' and '.join(drawn)} are drawn with equal chance whatever variance they carry: their means are not "
            "those of the components that carry most of it (table and figure of spread). Matching is for density, not "
            "for spread."
        )
    if len(result.layers) < 6:
        said.append(f"Few layers looked at: {len(result.layers)}.")
    return said


def disagreements(result: StudyResult) -> list[str]:
    """Pairs for which the two texts say clearly different things."""
    by = {(v.a, v.b, v.text): v for v in result.versus}
    said = []
    for (a, b, text), one in by.items():
        other = by.get((a, b, "held_out"))
        if text != MAIN or other is None:
            continue
        if shown(one) and shown(other) and one.matched.sign != other.matched.sign:
            said.append(
                f"{title_of(a)} and {title_of(b)}: {TEXT_TITLES[MAIN].lower()} {signed(one.matched)}, "
                f"{TEXT_TITLES['held_out'].lower()} {signed(other.matched)}."
            )
    return said
