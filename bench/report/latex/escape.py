"""Text from outside as LaTeX that every engine prints as it is."""

from __future__ import annotations

import re
import unicodedata

from bench.report.sentences import one_line

# What LaTeX takes for a command. Brackets and asterisks too: after the end of a row they would be its argument.
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
}
_SIGNS = {
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\dots{}",
    "±": r"\ensuremath{\pm}",
    "×": r"\ensuremath{\times}",
    "°": r"\ensuremath{^\circ}",
    "µ": r"\ensuremath{\mu}",
    "μ": r"\ensuremath{\mu}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
}
# Combining marks that the oldest font encoding has a command for.
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}
# Pairs that a font draws as another sign: -- as a dash, `` as a quotation mark, !` as one upside down.
_LIGATURE = re.compile(r"(?<=[-'`,!?<>])(?=[-'`,<>])")
# Private marks that no text from outside holds once it is on one line: they are replaced first.
_APART, _BREAK, _TIE = "\ue000", "\ue001", "\ue002"
_PRIVATE = re.compile("[\ue000-\ue002]")
_PERCENT = re.compile(r"(?<=\d) (?=%)")

# Words as long as this may be broken: after the signs that paths and names are made of, and, where they have none for
# long (hashes), every so many letters.
_WORD = re.compile(r"\S{12,}")
_AFTER = re.compile(r"(?<=[/\\_.:=,&])(?=[^\d/\\_.:=,&])")
_LETTERS = re.compile(r"[^/\\_.:=,&]{24,}")
_PIECE = 12


def escaped(text: str, breakable: bool = False) -> str:
    """The text on one line, with nothing in it that LaTeX would take for a command.

    Only ASCII comes out, so that it does not matter which engine and which encodings read it: letters with accents
    become their commands, and a sign that no common font has becomes its code, such as [U+4E2D].

    Args:
        text: from anywhere.
        breakable: lines may be broken after slashes, dots and the like, and inside very long words. For running
            text; the cells of a table are one line each.
    """
    text = unicodedata.normalize("NFC", _PRIVATE.sub(" ", one_line(text)))
    text = _PERCENT.sub(_TIE, text)
    if breakable:
        text = _WORD.sub(_in_pieces, text)
    text = _LIGATURE.sub(_APART, text)
    return "".join(map(_sign, text))


def _in_pieces(word: re.Match[str]) -> str:
    parts = _LETTERS.sub(lambda letters: _BREAK.join(re.findall(f".{{1,{_PIECE}}}", letters[0])), word[0])
    return _AFTER.sub(_BREAK, parts)


def _sign(sign: str) -> str:
    if sign == _APART:
        return "{}"
    if sign == _TIE:  # a number and its sign stay together
        return r"\,"
    if sign == _BREAK:
        return r"\allowbreak{}"
    if sign in _SPECIAL:
        return _SPECIAL[sign]
    if sign in _SIGNS:
        return _SIGNS[sign]
    if sign.isascii():
        return sign
    parts = unicodedata.normalize("NFKD", sign)
    if parts.isascii():
        return "".join(map(_sign, parts))
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in _ACCENTS:
        return rf"\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"{{[}}U+{ord(sign):04X}{{]}}"


def shortened(text: str, most: int) -> str:
    """The text on one line; where it is longer than ``most`` signs, its beginning and its end."""
    text = one_line(text)
    if len(text) <= most:
        return text
    tail = (most - 3) // 2
    return f"{text[: most - 3 - tail]}...{text[len(text) - tail :]}"
