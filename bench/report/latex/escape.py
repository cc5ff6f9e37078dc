"""Text from outside as LaTeX that every engine prints as it is."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from pylatexenc.latexencode import (
    RULE_DICT,
    UnicodeToLatexConversionRule,
    UnicodeToLatexEncoder,
    get_builtin_uni2latex_dict,
)

from bench.report.text import one_line

# Private characters that no text from outside holds once it is on one line: they are replaced first.
_APART, _BREAK, _TIE = "\ue000", "\ue001", "\ue002"
_PRIVATE = re.compile("[\ue000-\ue002]")
_PERCENT = re.compile(r"(?<=\d) (?=%)")  # a number and its sign stay together
# Pairs that a font draws as another sign: -- as a dash, `` as a quotation mark, !` as one upside down.
_LIGATURE = re.compile(r"(?<=[-'`,!?<>])(?=[-'`,<>])")

# What pylatexenc leaves as it is, although a font draws it otherwise or a row's end would take it for an argument; what
# reads better than its command; and two letters that it takes for others.
_OWN = {
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "–": "--",
    "—": "---",
    "ű": r"\H{u}",
    "Ű": r"\H{U}",
    _APART: "{}",
    _BREAK: r"\allowbreak{}",
    _TIE: r"\,",
}
# Signs beyond Latin and Greek letters whose commands need no package, and the start of those that the oldest font
# encoding has not.
_COMMON = frozenset("‘’“”…†‡•‰€™←→−≤≥≠≈∞")
_MISSING = re.compile(r"\\(guillemot|[DT]H|[dt]h|k\b|DJ|dj|nument|NG|ng)")

# Words as long as this may be broken: after the signs that paths and names are made of, and, where they have none for
# long (hashes), after every so many letters.
_WORD = re.compile(r"\S{12,}")
_AFTER = re.compile(r"(?<=[/\\_.:=,&])(?=[^\d/\\_.:=,&])")
_LETTERS = re.compile(r"[^/\\_.:=,&]{24,}")
_PIECE = 12


def escaped(text: str, breakable: bool = False) -> str:
    """The text on one line, with nothing in it that LaTeX would take for a command.

    Only ASCII comes out, so that it does not matter which engine and which encodings read it: letters with accents
    become their commands, and a sign that no common font has becomes its code, such as [U+4E2D].

    Args:
        breakable: lines may be broken after slashes, dots and the like, and inside very long words. For running
            text; the cells of a table are one line each.
    """
    text = unicodedata.normalize("NFC", _PRIVATE.sub(" ", one_line(text)))
    text = _PERCENT.sub(_TIE, text)
    if breakable:
        text = _WORD.sub(_in_pieces, text)
    encoded: str = _encoder().unicode_to_latex(_LIGATURE.sub(_APART, text))
    return encoded


def _in_pieces(word: re.Match[str]) -> str:
    parts = _LETTERS.sub(lambda letters: _BREAK.join(re.findall(f".{{1,{_PIECE}}}", letters[0])), word[0])
    return _AFTER.sub(_BREAK, parts)


@lru_cache(maxsize=1)
def _encoder() -> UnicodeToLatexEncoder:
    commands = {
        code: command
        for code, command in get_builtin_uni2latex_dict().items()
        if (code < 0x180 or 0x391 <= code <= 0x3C9 or chr(code) in _COMMON) and not _MISSING.match(command)
    }
    commands |= {ord(sign): command for sign, command in _OWN.items()}

    def unknown(sign: str) -> str:
        parts = unicodedata.normalize("NFKD", sign)
        if all(part.isascii() or ord(part) in commands for part in parts):
            return str(encoder.unicode_to_latex(parts))
        return f"{{[}}U+{ord(sign):04X}{{]}}"

    encoder = UnicodeToLatexEncoder(
        conversion_rules=[UnicodeToLatexConversionRule(RULE_DICT, commands)],
        replacement_latex_protection="braces-after-macro",
        unknown_char_policy=unknown,
        unknown_char_warning=False,
    )
    return encoder


def shortened(text: str, most: int) -> str:
    """The text on one line; where it is longer than ``most`` signs, its beginning and its end."""
    text = one_line(text)
    if len(text) <= most:
        return text
    tail = (most - 3) // 2
    return f"{text[: most - 3 - tail]}...{text[len(text) - tail :]}"
