"""The words that tables use for labels, sides and findings, and what they mean here."""

import math
from collections.abc import Mapping

from mammopath.types import UNKNOWN, Finding

Label = tuple[float, float]
"""Malignant (1, 0 or NaN) and severity (0..3 or NaN)."""

LABELS: Mapping[str, Label] = {
    "normal": (0.0, 0.0),
    "benign": (0.0, 1.0),
    "benign without callback": (0.0, 1.0),
    "in situ": (1.0, 2.0),
    "insitu": (1.0, 2.0),
    "dcis": (1.0, 2.0),
    "invasive": (1.0, 3.0),
    "idc": (1.0, 3.0),
    "non idc": (0.0, UNKNOWN),
    "malignant": (1.0, UNKNOWN),
    "not malignant": (0.0, UNKNOWN),
    "unknown": (UNKNOWN, UNKNOWN),
    "nan": (UNKNOWN, UNKNOWN),
    "": (UNKNOWN, UNKNOWN),
}
"""Label texts; case is ignored, ``_`` and ``-`` are spaces."""

SIDES: Mapping[str, str] = {"l": "L", "left": "L", "r": "R", "right": "R", "": ""}

_COUNTS = {"box": 4, "circle": 3, "point": 2}
"""Numbers after each kind of finding; a polygon has any even number from 6."""


def read_label(text: str) -> Label:
    """What a label text means; a remark in brackets after it is passed over.

    Raises:
        ValueError: an unknown word; the message lists the allowed ones.
    """
    word = " ".join(text.partition("(")[0].replace("_", " ").replace("-", " ").lower().split())
    if word not in LABELS:
        raise ValueError(f"label {text!r} is none of: {', '.join(name for name in LABELS if name)}, or empty")
    return LABELS[word]


def read_side(text: str) -> str:
    """``L``, ``R`` or empty.

    Raises:
        ValueError: another word.
    """
    if text.strip().lower() not in SIDES:
        raise ValueError(f"laterality {text!r} is none of L, R, left, right, or empty")
    return SIDES[text.strip().lower()]


def read_number(text: str, name: str, *, low: float = -math.inf) -> float:
    """A number, or NaN for an empty text.

    Raises:
        ValueError: not a number, infinite, or not above ``low``.
    """
    if text.strip().lower() in ("", "nan"):
        return UNKNOWN
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a number") from None
    if not math.isfinite(number) or number <= low:
        raise ValueError(
            f"{name} {text!r} must be finite" + (f" and above {low:g}" if low > -math.inf else "")
        )
    return number


def read_findings(text: str, malignant: float) -> tuple[Finding, ...]:
    """Findings of one row, in level-0 pixels, separated by ``;``.

    Each is a kind, its numbers, and perhaps a label: ``box LEFT TOP RIGHT BOTTOM``, ``circle X Y RADIUS``,
    ``point X Y``, ``polygon X Y X Y X Y ...``, for instance ``box 120 80 260 190 malignant``. A finding
    without a label takes ``malignant`` of its row where that leaves no doubt: if the row is benign, or the
    finding its only one.

    Raises:
        ValueError: an unknown kind or label, or not the right numbers.
    """
    parts = [part.split() for part in text.split(";") if part.strip()]
    default = malignant if len(parts) == 1 or malignant == 0 else UNKNOWN
    return tuple(_finding(words, default) for words in parts)


def _finding(words: list[str], default: float) -> Finding:
    kind, rest = words[0].lower(), words[1:]
    told = " ".join(words)
    cut = next((i for i, word in enumerate(rest) if word[0].isalpha()), len(rest))
    numbers = [read_number(word, f"finding {told!r}:") for word in rest[:cut]]
    malignant = read_label(" ".join(rest[cut:]))[0] if rest[cut:] else default
    points = tuple(zip(numbers[::2], numbers[1::2], strict=False))
    if kind == "polygon" and len(numbers) >= 6 and len(numbers) % 2 == 0:
        return Finding("polygon", points, malignant=malignant)
    if kind not in _COUNTS or len(numbers) != _COUNTS[kind]:
        raise ValueError(
            f"finding {told!r} is none of: box LEFT TOP RIGHT BOTTOM, circle X Y RADIUS, point X Y, "
            "polygon X Y X Y X Y ..."
        )
    if kind == "box":
        left, top, right, bottom = numbers
        if not (left < right and top < bottom):
            raise ValueError(f"finding {told!r}: a box needs LEFT < RIGHT and TOP < BOTTOM")
        return Finding("box", points, malignant=malignant)
    if kind == "circle":
        return Finding(
            "circle", points[:1], radius=read_number(rest[2], "radius", low=0.0), malignant=malignant
        )
    return Finding("point", points, malignant=malignant)
