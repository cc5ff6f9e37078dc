"""What may stand in the HTML report, and how: text from outside, data for scripts, and scripts.

Text goes through the template's escaping; here is what escaping alone does not do.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.record.files import plain

PAGE = Path(__file__).parent / "page_files"

# Signs that turn the direction of what follows: a file's name could look like another.
_BIDI = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_VISIBLE = {**dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " "), **{code: f"[U+{code:04X}]" for code in _BIDI}}
del _VISIBLE[ord("\n")], _VISIBLE[ord("\t")]

# Inside a script element these end it, or begin a comment, whatever they mean in the script.
_ENDS_SCRIPT = re.compile(r"<(?=/script|!--)", re.IGNORECASE)
_ISLAND = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def visible(text: str) -> str:
    """The text with control characters as spaces, and signs that change the direction of writing spelled out."""
    return text.translate(_VISIBLE)


def island(value: Any) -> Markup:
    """The value as JSON for a ``<script type="application/json">``, which no content can end early.

    Raises:
        TypeError: it is not made of JSON types, dataclasses, paths or numpy scalars.
    """
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(_ISLAND))


def inlined(source: str) -> Markup:
    """The source of a script or style sheet, to stand inside its element: the same, and nothing in it ends that."""
    unix = source.replace("\r\n", "\n").replace("\r", "\n")  # as the browser reads it, which its digest is of
    return Markup(_ENDS_SCRIPT.sub(r"\\x3C", unix))


def content_policy(*scripts: str) -> str:
    """A Content-Security-Policy that runs these scripts alone and loads nothing from anywhere.

    Should a name of a file ever get past the escaping, it still cannot run: the browser wants the script's digest
    (https://www.w3.org/TR/CSP3/, hash-source).
    """
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # Vega sets styles on what it draws. Pictures are inlined.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def rendered(template: str, scripts: Sequence[Markup] = (), **values: Any) -> str:
    """A page from a template in ``page_files``, with its style, and a policy for these scripts.

    Args:
        values: what the template may name; functions among them it may call from anywhere. All that is not marked as
            safe is made visible and escaped.
    """
    pages = Environment(
        loader=PackageLoader("bench.report.html", "page_files"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    pages.globals.update({name: value for name, value in values.items() if callable(value)})
    style = inlined((PAGE / "style.css").read_text(encoding="utf-8"))
    return pages.get_template(template).render(style=style, policy=content_policy(*scripts), scripts=scripts, **values)
