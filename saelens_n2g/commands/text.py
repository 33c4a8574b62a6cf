"""What a graph predicts on a text, with no model, and how it is shown in a terminal."""

import json
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from saelens_n2g.errors import ArtefactError, InputError


def predict(path: Path, text: str | None, file: Path | None, model: str | None, *, as_json: bool) -> None:
    """Predict with a stored graph; only the tokenizer of its model is loaded."""
    from saelens_n2g.graphs.graph import Graph
    from saelens_n2g.jobs.artefacts import read_json
    from saelens_n2g.subject import Tokenizer

    try:
        graph = Graph.from_dict(read_json(path))
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error.thing}", error.expected, error.found) from error
    content = _text(text, file)
    about = graph.provenance.get("subject", {})
    tokenizer = Tokenizer.load(model or about.get("model", "embedded"), revision=about.get("revision"))
    ids = tokenizer.encode(content)
    if not ids:
        raise InputError("text", "at least one token", "an empty text")
    predicted = graph.predict(ids)
    tokens = [tokenizer.string(t) for t in ids]
    if as_json:
        value = {"unit": graph.unit, "ids": ids, "tokens": tokens, "predicted": [round(float(p), 4) for p in predicted]}
        print(json.dumps(value, ensure_ascii=False))
        return
    console = Console()
    console.print(coloured(tokens, predicted), soft_wrap=True)
    fires = int((predicted >= 0.5).sum())
    console.print(f"{graph.unit} fires on {fires} of {len(ids)} tokens", highlight=False)
    if not console.is_terminal:
        for token, value in zip(tokens, predicted, strict=True):
            if value > 0:
                print(f"{value:.2f}\t{token!r}")  # rich would make spaces of the tab


def _text(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise InputError("predict", "either --text or --file", "both" if text is not None else "neither")
    if text is not None:
        return text
    assert file is not None
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"file {file}", "a text file in UTF-8", str(error)) from error


def number(value: float | None) -> str:
    """A score in three digits."""
    return "undefined" if value is None else f"{value:.3f}"


def coloured(tokens: list[str], values: np.ndarray) -> Text:
    """Tokens on a red ground as strong as their value in [0, 1]; plain where it is 0."""
    text = Text()
    for token, value in zip(tokens, values, strict=True):
        strength = min(max(float(value), 0.0), 1.0)
        shade = 235 - round(190 * strength)
        style = f"black on rgb(255,{shade},{shade})" if strength >= 0.05 else ""
        text.append(token.replace("\n", "⏎\n"), style=style)
    return text
