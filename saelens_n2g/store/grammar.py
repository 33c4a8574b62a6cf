"""What may be asked of a store: which units name which tokens.

    query    = and ("or" and)*
    and      = not (("," | "and")? not)*              a comma and nothing at all are "and"
    not      = "not" not | "(" query ")" | term
    term     = ("activating" | "important" | "any") ":" text       DeepDecipher's terms
             | "layer" "=" number (".." number)? | "basis" "=" text
    text     = letters up to the next space, comma, parenthesis or quotation mark, or quoted: "a, \\"b\\"\\n"

    activating:york, important:new          fires on " York" and looks for " New"
    any:"," and not (layer=0 or basis=pca)

Tokens are compared without surrounding space and case (`graphs.structure.normal_form`). In quotes \\\\ \\" \\n \\r \\t
and \\uXXXX stand for characters. Words of the grammar may be in upper case. "and" binds before "or".
"""

import re
from dataclasses import dataclass
from typing import NoReturn

from saelens_n2g.errors import InputError

MOST_LETTERS, MOST_TERMS, MOST_DEPTH = 2000, 64, 20
ROLES = ("activating", "important", "any")
TERM = 'activating:TOKEN, important:TOKEN, any:TOKEN, layer=N, layer=N..M, basis=NAME, "not" or "("'
_STOP = r'\s,()"'
_SPACE = re.compile(r"\s*")
_WORD = re.compile(rf"[^{_STOP}]+")
_ROLE = re.compile(r"(activating|important|any):", re.IGNORECASE)
_FILTER = re.compile(r"(layer|basis)=", re.IGNORECASE)
_KEYWORD = re.compile(rf"(and|or|not)(?=[{_STOP}]|$)", re.IGNORECASE)
_RANGE = re.compile(r"(\d{1,9})(?:\.\.(\d{1,9}))?", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"\\": "\\", '"': '"', "n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Term:
    """Units that name a token."""

    role: str
    """One of `ROLES`."""
    text: str


@dataclass(frozen=True, slots=True)
class LayerIs:
    """Units of layers `low` to `high`, both included."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class BasisIs:
    """Units of a basis."""

    name: str


@dataclass(frozen=True, slots=True)
class And:
    """Units that each of the parts finds."""

    parts: "tuple[Query, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    """Units that some part finds."""

    parts: "tuple[Query, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """Units that the part does not find."""

    part: "Query"


Query = Term | LayerIs | BasisIs | And | Or | Not


def parse(query: str) -> Query:
    """The query as a tree. Raises `InputError` with the position of what cannot be read, the first letter being 1."""
    if len(query) > MOST_LETTERS:
        raise InputError("search", f"at most {MOST_LETTERS} letters", str(len(query)))
    return _Parser(query).parse()


def quoted(text: str) -> str:
    """A token as it may stand in a query, whatever is in it but half characters."""
    names = {char: f"\\{name}" for name, char in _ESCAPES.items()}
    return '"' + "".join(names.get(char, char) for char in text) + '"'


class _Parser:
    """Reads from left to right; `at` is where it is."""

    def __init__(self, query: str) -> None:
        self.query, self.at, self.terms, self.depth = query, 0, 0, 0

    def parse(self) -> Query:
        found = self._or()
        if self.at < len(self.query):
            self._refuse("an end, a comma, and, or")
        return found

    def _or(self) -> Query:
        parts = [self._and()]
        while self._keyword("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Query:
        parts = [self._not()]
        while True:
            joined = self._take(",") or self._keyword("and")
            if not joined and (self._ends() or self._sees("or")):
                return parts[0] if len(parts) == 1 else And(tuple(parts))
            parts.append(self._not())

    def _not(self) -> Query:
        self.depth += 1
        self._skip()
        if self.depth > MOST_DEPTH:
            self._refuse(f"at most {MOST_DEPTH} levels of not and parentheses")
        if self._keyword("not"):
            found: Query = Not(self._not())
        elif self._take("("):
            found = self._or()
            if not self._take(")"):
                self._refuse('")"')
        else:
            found = self._term()
        self.depth -= 1
        return found

    def _term(self) -> Query:
        self.terms += 1
        self._skip()
        if self.terms > MOST_TERMS:
            self._refuse(f"at most {MOST_TERMS} terms")
        if role := _ROLE.match(self.query, self.at):
            self.at = role.end()
            return Term(role[1].lower(), self._text("a token"))
        if named := _FILTER.match(self.query, self.at):
            self.at = named.end()
            return self._layers() if named[1].lower() == "layer" else BasisIs(self._text("a basis"))
        self._refuse(TERM)

    def _layers(self) -> LayerIs:
        start = self.at
        text = self._text("a layer")
        numbers = _RANGE.fullmatch(text)
        if numbers is None:
            self.at = start
            self._refuse("a layer such as 3 or 1..5")
        low = int(numbers[1])
        return LayerIs(low, low if numbers[2] is None else int(numbers[2]))

    def _text(self, what: str) -> str:
        """A word or what is in quotes. Half characters are refused: no text that is stored has any."""
        self._skip()
        if found := _QUOTED.match(self.query, self.at):
            text = _ESCAPE.sub(self._unescape, found[1])
        elif found := _WORD.match(self.query, self.at):
            text = found[0]
        else:
            self._refuse(f"{what}, in quotes if it has spaces, commas, parentheses or quotation marks")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            self._refuse(f"{what} of whole characters")
        self.at = found.end()
        return text

    def _unescape(self, escape: re.Match[str]) -> str:
        code = escape[1]
        if len(code) == 5:
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            self._refuse('\\\\, \\", \\n, \\r, \\t or \\uXXXX')
        return _ESCAPES[code]

    # --- letters --------------------------------------------------------------------------------------------------

    def _skip(self) -> None:
        match = _SPACE.match(self.query, self.at)
        assert match is not None
        self.at = match.end()

    def _take(self, letter: str) -> bool:
        self._skip()
        taken = self.query.startswith(letter, self.at)
        self.at += taken
        return taken

    def _sees(self, word: str) -> re.Match[str] | None:
        self._skip()
        found = _KEYWORD.match(self.query, self.at)
        return found if found and found[1].lower() == word else None

    def _keyword(self, word: str) -> bool:
        found = self._sees(word)
        if found:
            self.at = found.end()
        return found is not None

    def _ends(self) -> bool:
        self._skip()
        return self.at == len(self.query) or self.query[self.at] == ")"

    def _refuse(self, expected: str) -> NoReturn:
        rest = self.query[self.at : self.at + 20]
        found = repr(rest) if rest else "the end"
        raise InputError("search", expected, f"{found} at position {self.at + 1}")
