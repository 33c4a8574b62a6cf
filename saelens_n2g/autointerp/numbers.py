"""How a language model is asked for numbers: the prompt of simulators, its scale, the number that is expected.

A list of tokens, a tab and a number behind each; where a number is to be told stands `?`. In the examples numbers begin
in mid-list, so that behind every `?` one is likely. Where the tokens of the model's own alphabet begin is the client's
affair (`clients.places`): places are characters of the text, in front of which there is always a tab, and a client that
has no token beginning there says so.
"""

import math
from collections.abc import Iterable, Sequence

from saelens_n2g.autointerp.asking import Asker
from saelens_n2g.autointerp.wording import EXAMPLES, UNKNOWN, described, row, rows, scaled
from saelens_n2g.errors import InputError

VERSION = 1
REVEALED = (2, 4)
"""From which token on the first and second excerpt of an example have numbers."""


def scale_of(asker: Asker, wanted: str = "auto") -> int:
    """The highest number, 10 or 9: 10 where that is known to be one token of the model, since what is expected of
    several tokens cannot be read at one place.

    Raises `InputError` for a scale that is none, or a model in which digits are not tokens.
    """
    if wanted not in ("auto", "9", "10"):
        raise InputError("scale of a simulator", "auto, 9 or 10", repr(wanted))
    whole = asker.client.one_token("10")
    if wanted == "10" and whole is False:
        raise InputError("scale of a simulator", f"9: 10 is no single token of {asker.client.model!r}", "10")
    split = [digit for digit in "0123456789" if asker.client.one_token(digit) is False]
    if split:
        raise InputError(f"model {asker.client.model!r}", "digits that are tokens", f"{split[0]} is none")
    return 10 if wanted == "10" or (wanted == "auto" and whole) else 9


def instruction(most: int) -> str:
    """What the lists are."""
    return (
        "Units of a language model give each token of a text an activation, here a whole number from 0 (quiet) to "
        f"{most} (strongest). Each unit has a description of what it fires on. Below each description stand texts as "
        f"lists of tokens, each with its activation; where that is not known yet stands {UNKNOWN}. Most activations "
        "are 0.\n"
    )


def shared(most: int) -> str:
    """The front of every list: what it is, and examples."""
    parts = [instruction(most)]
    for number, (description, shots) in enumerate(EXAMPLES, 1):
        parts.append(f"\nUnit {number}\nDescription: {description}\n")
        for (strings, activations), first in zip(shots, REVEALED, strict=True):
            values = scaled(activations, most)
            known = [UNKNOWN if place < first else value for place, value in enumerate(values)]
            parts.append(f"Text:\n{rows(strings, known)}")
    return "".join(parts)


def opening(description: str) -> str:
    """What comes before the list of the unit that is asked about."""
    return f"\nUnit {len(EXAMPLES) + 1}\nDescription: {described(description)}\nText:\n"


def unknown_rows(strings: Sequence[str]) -> tuple[str, list[int]]:
    """The list without any number, and where in it each `?` stands."""
    text, places = "", []
    for token in strings:
        text += row(token, UNKNOWN)
        places.append(len(text) - len(UNKNOWN) - 1)
    return text, places


def expected(likely: Iterable[tuple[str, float]], most: int) -> float | None:
    """The expected share of the maximum, of tokens with log probabilities: numbers count, all else is left out.

    None where no number is among them. On both scales a tenth is 1.
    """
    shares: dict[int, float] = {}
    for token, logprob in likely:
        value = number_of(token, most)
        if value is not None:
            shares[value] = shares.get(value, 0.0) + math.exp(logprob)
    whole = sum(shares.values())
    return sum(v * p for v, p in shares.items()) / whole / 10 if whole > 0 else None


def number_of(text: str, most: int) -> int | None:
    """The whole number from 0 to `most` that a text is, without space around it; None if it is none."""
    bare = text.strip()
    if not (bare.isascii() and bare.isdigit() and len(bare) <= 2) or (len(bare) == 2 and bare[0] == "0"):
        return None
    return int(bare) if int(bare) <= most else None
