"""JSON schemas that become grammars, and those that do not. What llama.cpp makes of a grammar is tested with its
client."""

import json

import pytest

from saelens_n2g.clients.grammar import grammar_of
from saelens_n2g.clients.places import Missing


def rules(schema: object) -> list[str]:
    """Those that the schema adds."""
    return grammar_of(json.dumps(schema)).partition("\nletter ::=")[0].splitlines()


def test_every_kind_of_schema_has_a_rule():
    assert rules({}) == ["root ::= value"]
    assert rules({"type": "integer", "title": "a number"}) == ["root ::= integer"]
    assert rules({"type": ["string", "null"]}) == ["root ::= r0", "r0 ::= string | null"]
    assert rules({"type": "string", "maxLength": 9}) == ["root ::= r0", r'r0 ::= "\"" char{0,9} "\""']
    assert rules({"const": 'say "a\\b"'}) == ["root ::= r0", r'r0 ::= "\"say \\\"a\\\\b\\\"\""']
    assert rules({"type": "array", "items": {"type": "null"}, "minItems": 2}) == [
        "root ::= r0", 'r0 ::= "[" null (comma null){1,} "]"',
    ]  # fmt: skip
    assert rules({"type": "array", "maxItems": 1}) == ["root ::= r0", 'r0 ::= "[" (value (comma value){0,0})? "]"']
    assert rules({"type": "object", "additionalProperties": {"enum": [1, None]}}) == [
        "root ::= r1", 'r0 ::= "1" | "null"', 'r1 ::= "{" (string colon r0 (comma string colon r0)*)? "}"',
    ]  # fmt: skip


def test_commas_stand_between_properties_and_nowhere_else():
    schema = {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"]}
    assert rules(schema) == [
        "root ::= r5",
        r'r0 ::= "\"b\"" colon value ""', "r1 ::= comma r0",
        r'r2 ::= "\"a\"" colon value r1', "r3 ::= r2 | r0", "r4 ::= comma r2 | r1",
        'r5 ::= "{" r3 "}"',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "integer", "minimum": 3}, "keyword 'minimum'"),
        ({"type": "array", "items": {"type": "number"}, "uniqueItems": True}, "keyword 'uniqueItems'"),
        ({"type": "array", "items": False}, "items of the schema has False"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "at least 3 and at most 2"),
        ({"type": "string", "maxLength": 5000}, "a number of 5000"),
        ({"type": "string", "minLength": -1}, "a number of -1"),
        ({"type": "string", "minLength": True}, "a number of True"),
        ({"minLength": 3}, "keyword 'minLength'"),
        ({"type": "thing"}, "type 'thing'"),
        ({"type": 3}, "type 3"),
        ({"type": []}, "a choice of nothing"),
        ({"enum": []}, "a choice of nothing"),
        ({"type": ["string", "null"], "maxLength": 3}, "keyword 'maxLength'"),
        ({"type": "string", "pattern": "^a+$"}, "keyword 'pattern'"),
        ({"$ref": "#/$defs/a"}, "keyword '\\$ref'"),
        ({"oneOf": [{"type": "string"}]}, "keyword 'oneOf'"),
        ({"anyOf": [{"type": "string"}], "type": "string"}, "keyword 'type'"),
        ({"anyOf": [{"type": "string"}, {"not": {}}]}, "the schema, choice 2 has keyword 'not'"),
        ({"enum": ["a"], "minLength": 1}, "keyword 'minLength'"),
        ({"type": "string", "enum": ["a", 3]}, "3 beside type 'string'"),
        ({"type": "integer", "const": True}, "True beside type 'integer'"),
        ({"const": "\ud800"}, "half a character"),
        ({"type": "object", "properties": {"a": {"maximum": 3}}}, "'a' of the schema has keyword"),
        ({"type": "object", "required": ["a"]}, "'a' required and not described"),
        ({"type": "object", "additionalProperties": {"type": "integer", "maximum": 3}}, "properties of the schema has"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(schema, why):
    with pytest.raises(Missing, match=f"no grammar can be made of the JSON schema: .*{why}"):
        grammar_of(json.dumps(schema))
