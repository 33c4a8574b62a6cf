"""Wikitext to plain prose: what a reader of the page sees, without tables, notes, pictures and apparatus.

    clean("'''Albedo''' ({{IPAc-en|æ|l}}) is a [[ratio|fraction]] of [[light]].<ref>x</ref>")
    == "Albedo is a fraction of light."

MediaWiki has no grammar; this reads it in four passes: whole blocks that are no prose go first, then a stack
machine resolves what nests (templates, tables, links), then inline markup, then lines (headings, lists, sections).
Templates are dropped except those that carry words of the sentence (`TEMPLATES`); a dropped one leaves a mark, so
that brackets and commas that held nothing else go with it.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import NamedTuple

PROTECTED, HOLE, VOID, BREAK = 0xE000, "\uf000", "\uf001", "\uf002"
"""Private-use characters: `PROTECTED + ord(c)` stands for a literal `c` that is no markup any more, `HOLE` for
something dropped, `VOID` for something dropped without which the bracket around it makes no sense, `BREAK` for a
line break that the reader sees (a single one in the source is only a blank)."""

APPARATUS = frozenset({
    "see also", "references", "notes", "footnotes", "citations", "sources", "bibliography", "works cited",
    "further reading", "external links", "notes and references", "references and notes", "notes and citations",
    "references and further reading", "external links and references", "gallery", "image gallery", "primary sources",
    "secondary sources", "cited sources", "select bibliography", "selected bibliography", "etymological bibliography",
    "reference literature", "filmography", "discography", "explanatory notes", "related lists",
})  # fmt: skip
"""Sections that hold lists of titles and links, not prose."""


def protect(text: str) -> str:
    """`text` with every markup character replaced, so that no later pass reads it as markup."""
    return re.sub(r"[][{}|=<>'*#:;&_]", lambda m: chr(PROTECTED + ord(m[0])), text)


def _unprotect(text: str) -> str:
    return re.sub("[\ue000-\ue07f]", lambda m: chr(ord(m[0]) - PROTECTED), text)


def clean(wikitext: str) -> str:
    """The prose of one article: paragraphs and headings as lines, list items as lines without their marks."""
    text = re.sub("[\ue000-\uf8ff]", "", wikitext).replace("\r\n", "\n")
    text = _drop_blocks(text)
    text = _resolve(text)
    text = _inline(text)
    text = _fill_holes(text)
    return _lines(_unprotect(html.unescape(text)))


# --- pass 1: blocks -------------------------------------------------------------------------------------------

_DROPPED_TAGS = "ref|gallery|timeline|imagemap|score|references|syntaxhighlight|source|pre|hiero|includeonly"


def _drop_blocks(text: str) -> str:
    text = re.sub(r"<!--.*?(-->|\Z)", "", text, flags=re.S)
    text = re.sub(r"<nowiki>(.*?)</nowiki>", lambda m: protect(m[1]), text, flags=re.S | re.I)
    text = re.sub(r"<source\b[^<>]*\binline\b[^<>]*>(.*?)</source>", lambda m: protect(m[1]), text, flags=re.S | re.I)
    text = re.sub(r"(?m)^[:\s]*<math\b[^<>]*>.*?</math>[ ,.;]*$", "", text, flags=re.S | re.I)
    text = re.sub(r"<math\b[^<>]*>(.*?)</math>", lambda m: _formula(m[1]), text, flags=re.S | re.I)
    text = re.sub(rf"<(?:{_DROPPED_TAGS}|nowiki)\b[^<>]*/\s*>", "", text, flags=re.I)
    text = re.sub(rf"<({_DROPPED_TAGS})\b[^<>]*>.*?</\1\s*>", "", text, flags=re.S | re.I)
    text = re.sub(r"<poem\b[^<>]*>(.*?)</poem>", lambda m: _verse(m[1]), text, flags=re.S | re.I)
    return re.sub(r"__[A-Z]{3,}__", "", text)


def _verse(text: str) -> str:
    return BREAK + text.strip().replace("\n", BREAK) + BREAK


_LATEX = {
    "times": "×", "cdot": "·", "leq": "≤", "le": "≤", "geq": "≥", "ge": "≥", "neq": "≠", "infty": "∞", "sum": "∑",
    "int": "∫", "partial": "∂", "sqrt": "√", "pm": "±", "to": "→", "approx": "≈", "in": "∈", "ldots": "…",
    "cdots": "…", "dots": "…", "dotsc": "…", "dotsb": "…", "langle": "⟨", "rangle": "⟩", "mid": "|", "quad": " ",
    "hbar": "ħ", "Rightarrow": "⇒", "rightarrow": "→", "log": "log", "sin": "sin", "cos": "cos", "tan": "tan",
    "exp": "exp", "ln": "ln", "lim": "lim", "max": "max", "min": "min",
}  # fmt: skip


def _formula(latex: str) -> str:
    """A formula inside a sentence as one line of characters: no layout, Greek letters by name."""

    def command(match: re.Match[str]) -> str:
        name = match[1]
        if name in _LATEX:
            return _LATEX[name]
        case = "CAPITAL" if name[0].isupper() else "SMALL"
        try:
            return unicodedata.lookup(f"GREEK {case} LETTER {name.removeprefix('var').upper()}")
        except KeyError:
            return ""  # a font or an accent

    braced = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
    text = re.sub(rf"\\d?frac\s*{braced}\s*{braced}", r"\1/\2", html.unescape(latex))
    text = re.sub(r"\\([A-Za-z]+)", command, text)
    text = re.sub(r"\\\\|\\.|[&~]", " ", text).replace("{", "").replace("}", "")
    return protect(" ".join(text.split()))


# --- pass 2: what nests ---------------------------------------------------------------------------------------


class Args(NamedTuple):
    """Arguments of a template, in order and by name, already resolved and stripped."""

    positional: list[str]
    named: dict[str, str]

    def get(self, index: int) -> str:
        """The positional argument `index`, from 0, or nothing. Negative counts from the end."""
        return self.positional[index] if -len(self.positional) <= index < len(self.positional) else ""


def _resolve(text: str) -> str:
    """Templates, tables and double-bracket links, innermost first, by a stack of open ones.

    A closer closes the nearest opener of its kind; openers above it that were never closed are plain text.
    """
    token = re.compile(r"\{\{|\}\}|\[\[|\]\]|^[ \t:*#]*\{\||^[ \t]*\|\}|\|", re.M)
    stack: list[tuple[str, list[list[str]]]] = [("", [[]])]
    at = 0
    while match := token.search(text, at):
        mark, start = match[0].strip(" \t:*#"), at
        at = match.end()
        if mark == "|}" and (stack[-1][0] == "{{" or all(kind != "{|" for kind, _ in stack)):
            mark, at = "|", at - 1  # the last, empty argument of a template
        stack[-1][1][-1].append(text[start : match.start()])
        if mark in ("{{", "[[", "{|"):
            stack.append((mark, [[]]))
        elif mark == "|":
            if stack[-1][0]:
                stack[-1][1].append([])
            else:
                stack[-1][1][-1].append("|")
        else:
            _close(stack, {"}}": "{{", "]]": "[[", "|}": "{|"}[mark])
    stack[-1][1][-1].append(text[at:])
    while len(stack) > 1:
        _abandon(stack)
    return "".join(stack[0][1][0])


def _close(stack: list[tuple[str, list[list[str]]]], opener: str) -> None:
    """Close the nearest `opener`; without one the closer is dropped. A table is a wall: no link or template
    reaches through it."""
    for kind, _ in reversed(stack):
        if kind == opener:
            break
        if kind == "{|":
            return
    else:
        return
    while stack[-1][0] != opener:
        _abandon(stack)
    _, parts = stack.pop()
    render = {"{{": _template, "[[": _link, "{|": lambda _: HOLE}[opener]
    stack[-1][1][-1].append(render(["".join(part) for part in parts]))


def _abandon(stack: list[tuple[str, list[list[str]]]]) -> None:
    """Take an opener that was never closed as text (a table as nothing: its rows are no prose)."""
    kind, parts = stack.pop()
    if kind != "{|":
        stack[-1][1][-1].append(" ".join("".join(part) for part in parts))


def _link(parts: list[str]) -> str:
    """`[[target|label]]` -> label; pictures, categories and links to other languages leave nothing."""
    target = parts[0].strip()
    prefix, colon, rest = target.partition(":")
    if colon and (prefix.strip().lower() in ("file", "image", "category", "media") or re.fullmatch("[a-z]{2}", prefix)):
        return HOLE
    if len(parts) > 1:
        label = parts[-1].strip()
        return label or re.sub(r"\s*\([^()]*\)$", "", rest or target)
    if colon and prefix in ("", "s", "wikt", "wiktionary", "doi", "hdl"):
        return re.sub(r"^(?i:category):", "", rest)
    return target


def _template(parts: list[str]) -> str:
    name = re.sub(r"[\s_]+", " ", parts[0]).strip().lower()
    positional: list[str] = []
    named: dict[str, str] = {}
    for part in parts[1:]:
        key, equals, value = part.partition("=")
        if equals and re.fullmatch(r"\s*[\w -]+\s*", key):
            named[key.strip().lower()] = value.strip()
        else:
            positional.append(part.strip())
    for index in range(1, 10):  # `1=text` is the way to pass a first argument that holds an equals sign
        if str(index) in named and len(positional) == index - 1:
            positional.append(named[str(index)])
    args = Args(positional, named)
    if name in TEMPLATES:
        return TEMPLATES[name](args)
    if name.startswith("lang-"):
        return args.get(0)
    return VOID if name.startswith(("formatnum", "inflation", "age")) else HOLE


_UNITS = {
    "mi": "mile", "km": "kilometre", "ft": "foot", "m": "metre", "in": "inch", "cm": "centimetre", "mm": "millimetre",
    "yd": "yard", "lb": "pound", "kg": "kilogram", "g": "gram", "t": "tonne", "oz": "ounce", "acre": "acre",
    "ha": "hectare", "sqmi": "square mile", "km2": "square kilometre", "m2": "square metre", "sqft": "square foot",
    "sqkm": "square kilometre", "mph": "mile per hour", "nmi": "nautical mile", "l": "litre", "gal": "gallon",
}  # fmt: skip


def _convert(args: Args) -> str:
    """`{{convert|10|to|20|mi|km}}` -> `10 to 20 miles`: the quantity as the author gave it."""
    values = list(args.positional)
    words = [values.pop(0)] if values else []
    while len(values) > 1 and values[0].lower() in ("to", "and", "or", "by", "x", "-", "–", "to(-)", "&ndash;", "×"):
        link = values.pop(0)
        words += [link if link.isalpha() else "to", values.pop(0)]
    unit = values.pop(0) if values else ""
    scale = re.match(r"e(3|6|9)(?=[a-z])", unit)
    if scale:
        words.append({"3": "thousand", "6": "million", "9": "billion"}[scale[1]])
        unit = unit[2:]
    name = {"C": "°C", "F": "°F", "K": "K"}.get(unit) or _UNITS.get(unit.lower(), unit)
    if args.named.get("adj") in ("on", "mid", "pre"):
        return "-".join([*words, name.replace(" ", "-")])
    if unit.lower() in _UNITS and words != ["1"]:
        first, space, last = name.partition(" per ")
        first = {"foot": "feet", "square foot": "square feet", "inch": "inches"}.get(first, first + "s")
        name = first + space + last
    out = " ".join([*words, name])
    if len(values) > 1 and re.fullmatch(r"[\d.]+", values[0]):  # feet and inches, pounds and ounces
        out += " " + _convert(Args(values[:2], {}))
    return out


def _fraction(args: Args) -> str:
    numbers = args.positional
    if len(numbers) == 1:
        return f"1/{numbers[0]}"
    return " ".join([*numbers[:-2], "/".join(numbers[-2:])])


_MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip


def _as_of(args: Args) -> str:
    words = [args.get(0)]
    if args.get(1).isdigit() and 1 <= int(args.get(1)) <= 12:
        words = [_MONTHS[int(args.get(1)) - 1], *words]
    return ("as of " if "lc" in args.named else "As of ") + " ".join([args.get(2), *words]).strip()


def _quotation(args: Args) -> str:
    text = args.named.get("quote") or args.named.get("text") or args.get(0)
    return _verse(text)


def _words(*names: str, take: Callable[[Args], str]) -> dict[str, Callable[[Args], str]]:
    return dict.fromkeys(names, take)


def _joined(separator: str) -> Callable[[Args], str]:
    return lambda args: separator.join(part for part in args.positional if part)


def _literal(text: str) -> Callable[[Args], str]:
    return lambda _: protect(text)


TEMPLATES: dict[str, Callable[[Args], str]] = {
    **_words(
        "nowrap", "small", "smaller", "big", "large", "larger", "nobold", "noitalic", "normal", "linktext", "nastaliq",
        "vanchor", "sub", "sup", "ipa", "val", "tooltip", "abbr", "flag", "math", "mvar", "nihongo", "nobr", "nts",
        "poemquote", "plainlist", "okina", "unicode", "gloss", "flagcountry", "railgauge", "center", "pre2",
        take=lambda a: a.named.get("content") or a.get(0),
    ),
    **_words("lang", "native name", "ill", take=lambda a: a.get(1)),
    **_words("transl", "script", "resize", take=lambda a: a.get(-1)),
    **_words("angbr", "vr", take=lambda a: f"⟨{a.get(0)}⟩"),
    **_words("sc", take=lambda a: a.get(0).upper()),
    **_words("convert", "cvt", take=_convert),
    **_words("frac", "sfrac", take=_fraction),
    **_words("quote", "quotation", "cquote", "blockquote", "quote box", "rquote", take=_quotation),
    **_words("as of", take=_as_of),
    **_words("chem", take=_joined("")),
    **_words("hlist", "unbulleted list", take=_joined(", ")),
    **_words("keypress", take=_joined("+")),
    **_words("nuclide", "nuclide2", "simplenuclide", "simplenuclide2", take=lambda a: f"{a.get(0)}-{a.get(1)}"),
    **_words("uss", take=lambda a: f"USS {a.get(0)}"),
    **_words("circa", "c.", take=lambda a: f"c. {a.get(0)}".strip()),
    **_words("e", take=lambda a: f"×10^{a.get(0)}"),
    **_words("!", "pipe", take=_literal("|")),
    **_words("=", take=_literal("=")),
    **_words("'s", take=_literal("'s")),
    **_words("'", take=_literal("'")),
    **_words("ndash", take=_literal("–")),
    **_words("mdash", "mdashb", take=_literal("—")),
    **_words("snd", "spaced ndash", take=_literal(" – ")),
    **_words("nbsp", "spaces", "thinsp", "space", take=_literal(" ")),
    **_words("·", "dot", take=_literal(" · ")),
    **_words("eqm", take=_literal("⇌")),
    **_words("bce", take=_literal("BCE")),
}  # fmt: skip
"""Templates that carry words of the sentence, by lower-case name, and what stands there instead."""


# --- pass 3: inline markup ------------------------------------------------------------------------------------


def _inline(text: str) -> str:
    """External links, emphasis and tags."""
    text = re.sub(r"\[(?:(?:https?|ftp):)?//[^\s\]]+\s*([^\]\n]*)\]", r"\1", text, flags=re.I)
    text = re.sub(r"(?:https?|ftp)://[^\s<>\]]+", HOLE, text)
    text = re.sub(r"(?<=[\w)\]])<sup>\s*([-+−–]?\d+)\s*</sup>", r"^\1", text, flags=re.I)
    text = re.sub(r"<(?:br|hr|/?p|/?div|/?poem|/?blockquote|/?li|/?ol|/?ul)\b[^<>]*>", BREAK, text, flags=re.I)
    text = re.sub(r"</?[a-z][^<>]*>", "", text, flags=re.I)
    # Five quotes are bold and italic, four an apostrophe and bold, three bold, two italic.
    return re.sub(r"'{2,}", lambda m: "'" if len(m[0]) == 4 else "", text)


def _fill_holes(text: str) -> str:
    """Take the marks of what was dropped out, with the brackets, commas and blanks that belonged to them."""
    text = re.sub(rf"\s*\([^()\n]*{VOID}[^()\n]*\)", "", text).replace(VOID, HOLE)
    text = re.sub(rf" *\((?=[^()\n]*{HOLE})[{HOLE}\s;,:/]*\)", "", text)
    text = re.sub(rf"\((?:[ ;,]*{HOLE})+[ ;,:]*", "(", text)
    text = re.sub(rf"[ ;,]*(?:{HOLE}[ ;,]*)+\)", ")", text)
    text = re.sub(rf"([;,]) *{HOLE} *(?=[;,.])", "", text)
    text = re.sub(rf" *{HOLE}+(?=[,.;:)])", "", text)
    text = re.sub(rf"(?m)^[*#:; ]*(?:{HOLE}[ .,;]*)+$", "", text)
    return text.replace(HOLE, "")


# --- pass 4: lines --------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    level: int  # of a heading, 0 for text
    text: str


def _lines(text: str) -> str:
    """Headings as plain lines, list marks off, apparatus and empty sections out, one blank line at most.

    As in MediaWiki, text lines that follow each other are one paragraph; items and indented lines stand alone.
    """
    lines: list[_Line] = []
    open_paragraph = False
    for raw in text.split("\n"):
        # Blanks of every width become one; marks of direction and breaking go.
        line = re.sub(r"\s+", " ", re.sub("[\u200b\u200e\u200f\u2060\ufeff\xad]", "", raw)).strip()
        if heading := re.fullmatch(r"(={1,6})\s*(.*?)\s*={1,6}", line):
            if heading[2]:
                lines.append(_Line(len(heading[1]), heading[2]))
            open_paragraph = False
        elif not line.startswith(("|", "{|", "!")):  # rows of a table that was never opened
            continues, open_paragraph = open_paragraph, bool(line) and raw[0] not in "*#:; "
            line = _prose(line)
            if continues and open_paragraph and lines[-1].text:
                lines[-1] = _Line(0, f"{lines[-1].text} {line}")
            else:
                lines.append(_Line(0, line))
    kept = _without_empty(_without_apparatus(lines))
    joined = "\n".join(f"\n{t}\n" if level else t for level, t in kept)
    return re.sub(r"\n{3,}", "\n\n", re.sub(rf" *{BREAK}[{BREAK} ]*", "\n", joined)).strip()


def _prose(line: str) -> str:
    """A line without its list mark; nothing if it holds no word or is the entry of a book list."""
    line = re.sub(r"^[*#:;]+ *", "", line).replace("( ", "(").replace(" )", ")")
    return line if re.search(r"\w", line) and not re.search(r"\bISBN[ -]*\d", line) else ""


def _without_apparatus(lines: Iterable[_Line]) -> list[_Line]:
    kept: list[_Line] = []
    dropping = 7  # level of the section being left out; 7 is deeper than any heading
    for line in lines:
        if line.level and (line.level <= dropping or dropping == 7):
            dropping = line.level if line.text.lower().rstrip(":") in APPARATUS else 7
        if dropping == 7:
            kept.append(line)
    return kept


def _without_empty(lines: list[_Line]) -> list[_Line]:
    """Leave out headings with no text below them before the next heading of their own level or above."""
    kept: list[_Line] = []
    level_below = 0  # of the nearest kept line below: 0 = text, so the heading above it stays
    for line in reversed(lines):
        if line.level == 0:
            kept.append(line)
            level_below = 0 if line.text else level_below
        elif kept and (level_below == 0 or level_below > line.level):
            kept.append(line)
            level_below = line.level
    return kept[::-1]
