"""Recorded: where a unit's explanation comes from, in words."""

from collections.abc import Mapping
from typing import Any

from saelens_n2g.server.catalogue import Entry
from saelens_n2g.store.records import Basis, Source, Unit

UNKNOWN = "not recorded"
Lines = list[tuple[str, str]]


def lines(entry: Entry, basis: Basis, unit: Unit, source: Source, body: Mapping[str, Any]) -> Lines:
    """Terms and what is recorded of them. body: the unit's `provenance`."""
    shared, own = source.provenance, _dict(body.get("graph"))
    protocol, corpus, subject = (_dict(shared.get(name)) for name in ("protocol", "corpus", "subject"))
    return [
        ("Model", _model(entry, subject)),
        ("Text", _corpus(corpus)),
        ("Beginning of text", _bos(subject, entry)),
        ("Context", "texts as long as they were published" if "files" in corpus else _context(protocol, shared)),
        ("Unit", f"{basis.title}, layer {unit.layer} at {basis.kind}" + _after(basis.facts.get("signs"), "; ")),
        ("Fires", _fires(protocol)),
        ("Held-out text", _text(protocol, "held_out")),
        ("Random text", _text(protocol, "random")),
        ("Method", _method(own, protocol)),
        ("Seed", _said(_seed(shared, protocol))),
        ("Versions", _pairs(_dict(shared.get("versions"))) or UNKNOWN),
        ("Run", f"{source.kind} {source.name}, {source.done} of {source.total} units"),
    ]


def texts(source: Source) -> dict[str, str]:
    """What the scores are of, where that is recorded: title -> words."""
    protocol = _dict(source.provenance.get("protocol"))
    named = {"Held-out text": protocol.get("held_out"), "Random text": protocol.get("random")}
    return {title: str(words) for title, words in named.items() if words}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _said(value: Any) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _after(value: Any, sign: str) -> str:
    return "" if value is None else f"{sign}{value}"


def _model(entry: Entry, subject: Mapping[str, Any]) -> str:
    facts = {**entry.model.config, **subject}
    revision = facts.get("revision")
    said = [entry.model.name, "default revision" if revision is None else f"revision {revision}"]
    said += [f"{entry.model.n_layers} layers"]
    said += [str(facts[name]) for name in ("dtype", "device") if facts.get(name)]
    return ", ".join(said)


def _corpus(corpus: Mapping[str, Any]) -> str:
    if not corpus:
        return UNKNOWN
    if "files" in corpus:
        return _published(corpus)
    counted = [f"{_said(corpus[name])} {name}" for name in ("documents", "windows", "tokens") if name in corpus]
    parts = [f"{_said(corpus[f'{name}_tokens'])} to {word}" for name, word in (("fit", "fit"), ("test", "test"))
             if f"{name}_tokens" in corpus]  # fmt: skip
    said = [_said(corpus.get("source")), *counted]
    words = ", ".join(said) + (f" ({' and '.join(parts)})" if parts else "")
    return words + _after(corpus.get("fingerprint"), ", fingerprint ")


def _text(protocol: Mapping[str, Any], name: str) -> str:
    return "none" if name in protocol and protocol[name] is None else _said(protocol.get(name))


def _published(corpus: Mapping[str, Any]) -> str:
    """Texts that others published, and what the graphs were scored on beside them."""
    named = [f"{_dict(one).get('name')} ({_dict(one).get('format')})" for one in corpus["files"]]
    scored = _dict(corpus.get("scored_on"))
    beside = f"; scored on {_corpus(scored)} too" if scored else "; scored on no other text"
    return f"published by others: {', '.join(named)}{beside}"


def _bos(subject: Mapping[str, Any], entry: Entry) -> str:
    facts = {**entry.model.config, **subject}
    if "bos_id" not in facts:
        return UNKNOWN
    if facts["bos_id"] is None:
        return "no BOS token"
    return f"BOS token {facts['bos_id']} before every window, left out of exemplars and scores"


def _context(protocol: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    config = _dict(shared.get("config"))
    text = _dict(config.get("text")) or _dict(_dict(config.get("run")).get("text"))
    width = protocol.get("window", text.get("width"))
    return UNKNOWN if width is None else f"windows of {_said(width)} tokens, the BOS token counted"


def _fires(protocol: Mapping[str, Any]) -> str:
    threshold = protocol.get("firing_threshold", protocol.get("threshold"))
    if threshold is None:
        return UNKNOWN
    return f"at {threshold} of its maximum over the fit text or more"


def _seed(shared: Mapping[str, Any], protocol: Mapping[str, Any]) -> Any:
    config = _dict(shared.get("config"))
    found = (config.get("seed"), _dict(config.get("run")).get("seed"), protocol.get("seed"))
    return next((seed for seed in found if seed is not None), None)


def _method(own: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    described = _dict(protocol.get("method"))
    name = own.get("method", described.get("name"))
    if name is None:
        return UNKNOWN
    options = _dict(own.get("options")) or {key: value for key, value in described.items() if key != "name"}
    counted = [f"{_said(own[key])} {word}" for key, word in (("examples", "examples"), ("firing", "firing tokens"))
               if own.get(key) is not None]  # fmt: skip
    augmenter = own.get("augmenter", protocol.get("augmenter"))
    said = [str(name), *counted] + ([f"augmented by {augmenter}"] if augmenter else [])
    return ", ".join(said) + (f"; {_pairs(options)}" if options else "")


def _pairs(values: Mapping[str, Any]) -> str:
    """`a 1, b (c 2)`."""
    said = []
    for name, value in values.items():
        if isinstance(value, dict):
            said.append(f"{name} ({_pairs(value)})")
        else:
            shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
            said.append(f"{name} {shown}")
    return ", ".join(said)
