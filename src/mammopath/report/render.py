"""From the parts of a report to one HTML page that loads nothing: templates, and how they print values."""

import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape

from mammopath.report.tables import grouped, number, p_value, signed, signed_limits, with_limits

TEMPLATES = ("page.html", "macros.html", "results.html", "behaviour.html", "record.html")


def render(parts: Mapping[str, Any]) -> str:
    """The page; a part that a template names and that is not there is an error."""
    source = files("mammopath.report")
    loader = DictLoader({name: source.joinpath(name).read_text() for name in TEMPLATES})
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader
    )
    environment.filters |= {
        "num": number,
        "p": p_value,
        "signed": signed,
        "percent": _percent,
        "breakable": _breakable,
        "tied": lambda text: text.replace(", ", ",\u00a0"),
        "limits": with_limits,
        "signed_limits": signed_limits,
        "groupby_site": _by_site,
    }
    sheets = (files("mammopath").joinpath("base.css"), source.joinpath("page.css"))
    style = Markup("".join(sheet.read_text() for sheet in sheets))  # noqa: S704 - files of ours
    return environment.get_template("page.html").render(parts, style=style)


def _by_site(rows: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """Rows of each site and modality, which lie together already."""
    return [(site, group) for (_, site), group in grouped(rows, lambda r: (r.modality, r.site))]


def _breakable(name: str) -> Markup:
    """A name that may be wrapped after its underscores and slashes."""
    return Markup(re.sub(r"([_/])", r"\1<wbr>", str(escape(name))))  # noqa: S704 - escaped just here


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"
