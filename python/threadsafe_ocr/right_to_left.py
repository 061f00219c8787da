"""Arabic script: networks read it from the left, as it stands; its text is in the order in which it is spoken."""

from __future__ import annotations

import re

_ARABIC = re.compile("[\u0600-\u065f\u066a-\u06ef\u06fa-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufefc]")
# Numbers and Latin words keep their direction, also several in a row.
_LATIN = "[\u0660-\u0669\u06f0-\u06f9A-Za-z0-9]"
_FROM_THE_LEFT = re.compile(f"[+-]?{_LATIN}(?:[ */.:%+-]*{_LATIN})*%?|.", re.DOTALL)


def spoken_order(text: str) -> list[int] | None:
    """The indices of a line's characters, read from the left, in the order in which they are spoken; None where that is the same.

    >>> "".join("50.42 :عومجملا"[i] for i in spoken_order("50.42 :عومجملا"))
    'المجموع: 50.42'
    """
    if not _ARABIC.search(text):
        return None
    pieces = [range(*match.span()) for match in _FROM_THE_LEFT.finditer(text)]
    return [index for piece in reversed(pieces) for index in piece]
