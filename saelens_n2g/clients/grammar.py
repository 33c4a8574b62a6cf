"""A JSON schema as a grammar for llama.cpp (GBNF): every answer that is not cut off follows the schema.

The converter of llama-cpp-python is not used: it passes over keywords that it does not know, lets control characters
into strings, and writes constants with quotation marks down wrongly. Here what is not understood is refused.

A grammar may say more than its schema: properties come in the order in which they are described, further ones not at
all where some are described, numbers are of 16 digits at most, and white space is a space behind a comma or a colon.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from saelens_n2g.clients.places import Missing

NOTES = frozenset({"title", "description", "$schema", "$id", "$comment", "examples", "default"})
"""Keywords that say nothing of what is valid."""
BESIDE = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
    "number": set[str](),
    "integer": set[str](),
    "boolean": set[str](),
    "null": set[str](),
}
"""Type -> keywords that are understood beside it."""
KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}
MOST = 1000
"""Of items or letters that may be asked for; llama.cpp refuses more than 2000 repetitions."""
PLAIN = r"""
letter ::= [\x20-\x21\x23-\x5B\x5D-\x7E\x80-\uD7FF\uE000-\U0010FFFF]
escape ::= ["\\/bfnrt] | "u" ([0-9a-cA-CefEF] hex hex hex | [dD] [0-7] hex hex)
hex ::= [0-9a-fA-F]
char ::= letter | "\\" escape
string ::= "\"" char* "\""
integer ::= "-"? ("0" | [1-9] [0-9]{0,15})
number ::= integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?
boolean ::= "true" | "false"
null ::= "null"
comma ::= "," " "?
colon ::= ":" " "?
object ::= "{" (string colon value (comma string colon value)*)? "}"
array ::= "[" (value (comma value)*)? "]"
value ::= object | array | string | number | boolean | null
""".strip()
"""Rules that are always there; those of types have their names. Characters are whole ones, escaped or not."""


def grammar_of(schema: str) -> str:
    """The grammar of a schema in JSON, with the start `root`. Raises `Missing` for one that is not understood."""
    rules = _Rules()
    start = rules.of(json.loads(schema), "the schema")
    text = "\n".join((f"root ::= {start}", *rules.lines, PLAIN))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _no("the schema", "half a character") from None
    return text


class _Rules:
    """Rules as they are written down: each schema within the schema has one."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def named(self, text: str) -> str:
        """Another rule; returns its name."""
        self.lines.append(f"r{len(self.lines)} ::= {text}")
        return f"r{len(self.lines) - 1}"

    def of(self, schema: Any, where: str) -> str:
        """The name of a schema's rule. Raises `Missing`."""
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            raise _no(where, f"{schema!r:.40} for a schema")
        said, kind = schema.keys() - NOTES, schema.get("type")
        if "anyOf" in said:
            _only(said, {"anyOf"}, where)
            return self._choice(
                [self.of(one, f"{where}, choice {i}") for i, one in enumerate(schema["anyOf"], 1)], where
            )
        if "enum" in said or "const" in said:
            _only(said, {"enum" if "enum" in said else "const", "type"}, where)
            return self._constants(schema, where)
        if kind is None:
            _only(said, set(), where)
            return "value"
        if isinstance(kind, list):
            _only(said, {"type"}, where)
            return self._choice([self.of({"type": one}, where) for one in kind], where)
        if not isinstance(kind, str) or kind not in BESIDE:
            raise _no(where, f"type {kind!r:.40}")
        _only(said, {"type"} | BESIDE[kind], where)
        if said == {"type"}:
            return kind
        if kind == "string":
            least, most = _bounds(schema, "minLength", "maxLength", where)
            return self.named(rf'"\"" char{{{least},{most}}} "\""')
        return self._array(schema, where) if kind == "array" else self._object(schema, where)

    def _choice(self, names: Sequence[str], where: str) -> str:
        if not names:
            raise _no(where, "a choice of nothing")
        return self.named(" | ".join(names))

    def _constants(self, schema: Mapping[str, Any], where: str) -> str:
        constants, kind = schema["enum"] if "enum" in schema else [schema["const"]], schema.get("type")
        for constant in constants if kind is not None else ():
            truth = isinstance(constant, bool) and kind != "boolean"  # Python's are integers
            if kind not in KINDS or truth or not isinstance(constant, KINDS[kind]):
                raise _no(where, f"{constant!r:.40} beside type {kind!r:.40}")
        return self._choice([_literal(constant) for constant in constants], where)

    def _array(self, schema: Mapping[str, Any], where: str) -> str:
        least, most = _bounds(schema, "minItems", "maxItems", where)
        item = self.of(schema.get("items", True), f"items of {where}")
        if most == "0":
            return self.named('"[" "]"')
        more = f"{item} (comma {item}){{{max(0, least - 1)},{int(most) - 1 if most else ''}}}"
        return self.named(f'"[" {more} "]"' if least else f'"[" ({more})? "]"')

    def _object(self, schema: Mapping[str, Any], where: str) -> str:
        properties, required = schema.get("properties", {}), set(schema.get("required", ()))
        if lost := sorted(required - properties.keys()):
            raise _no(where, f"{lost[0]!r:.40} required and not described")
        if not properties:
            further = schema.get("additionalProperties", True)
            if further is False:
                return self.named('"{" "}"')
            name = self.of(further, f"properties of {where}")
            return self.named(f'"{{" (string colon {name} (comma string colon {name})*)? "}}"')
        pairs = [
            (f"{_literal(name)} colon {self.of(one, f'{name!r:.40} of {where}')}", name in required)
            for name, one in properties.items()
        ]
        behind = first = '""'  # what may follow where something stands before it, and where nothing does
        for pair, needed in reversed(pairs):
            here = self.named(f"{pair} {behind}")
            first = here if needed else self.named(f"{here} | {first}")
            behind = self.named(f"comma {here}" if needed else f"comma {here} | {behind}")
        return self.named(f'"{{" {first} "}}"')


def _literal(value: Any) -> str:
    """A JSON value as a literal of the grammar."""
    text = json.dumps(value, ensure_ascii=False)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _bounds(schema: Mapping[str, Any], least: str, most: str, where: str) -> tuple[int, str]:
    """The least number of something, and the most as a text, empty for no bound."""
    low, high = schema.get(least, 0), schema.get(most)
    for bound in (low, 0 if high is None else high):
        if isinstance(bound, bool) or not isinstance(bound, int) or not 0 <= bound <= MOST:
            raise _no(where, f"a number of {bound!r:.40}")
    if high is not None and low > high:
        raise _no(where, f"at least {low} and at most {high}")
    return low, "" if high is None else str(high)


def _only(said: set[str], understood: set[str], where: str) -> None:
    """Raises `Missing` for a keyword that is not understood."""
    if unread := sorted(said - understood):
        raise _no(where, f"keyword {unread[0]!r}")


def _no(where: str, why: str) -> Missing:
    return Missing(f"no grammar can be made of the JSON schema: {where} has {why}")
