"""The ablation matrix: which ingredients each method is made of, and what it gains over plain training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mammopath.report.comparisons import Comparison
from mammopath.report.study import Study
from mammopath.report.tables import method_label

COLUMNS = ("modalities", "alignment", "style", "invariance", "tasks", "averaging")
"""Ingredients of a method, in the order of the matrix."""


@dataclass(frozen=True, slots=True)
class AblationRow:
    """One method: an ingredient is empty where it has none.

    Attributes:
        gain: mean AUC over all sites minus that of the reference, with limits; NaN where not compared.
        p_holm: after Holm over the methods.
    """

    label: str
    modalities: str
    alignment: str
    style: str
    invariance: str
    tasks: str
    averaging: str
    gain: float
    low: float
    high: float
    p_holm: float


def ablation_rows(study: Study, compared: Sequence[Comparison]) -> list[AblationRow]:
    """One row per trained method, by falling gain; the reference and what was not compared stand last."""
    scope = "all" if any(c.scope == "all" for c in compared) else next((c.scope for c in compared), "")
    gains = {c.label: c for c in compared if c.scope == scope}
    found: dict[str, AblationRow] = {}
    for line in study.lines:
        recipe = study.runs[line["run"]].get("recipe")
        label = method_label(line["method"], line["adaptation"], line.get("select", ""))
        if recipe and line["adaptation"] == "none" and label not in found:
            found[label] = _row(label, recipe, gains.get(label))
    return sorted(found.values(), key=lambda r: (math.isnan(r.gain), -r.gain if r.gain == r.gain else 0.0))


def _row(label: str, recipe: Mapping[str, Any], gain: Comparison | None) -> AblationRow:
    nothing = math.nan
    return AblationRow(
        label=label,
        modalities=" + ".join(recipe.get("modalities", ())),
        alignment=_alignment(recipe.get("align", {})),
        style=_kind(recipe.get("style", {}), "probability"),
        invariance=_kind(recipe.get("invariance", {}), "weight"),
        tasks=_tasks(recipe.get("tasks", {})),
        averaging=recipe.get("average") or "",
        gain=gain.difference if gain else nothing,
        low=gain.low if gain else nothing,
        high=gain.high if gain else nothing,
        p_holm=gain.p_holm if gain else nothing,
    )


def _kind(part: Mapping[str, Any], switch: str) -> str:
    kind = str(part.get("kind", "none"))
    return "" if kind == "none" or not part.get(switch, 1) else kind


def _alignment(part: Mapping[str, Any]) -> str:
    kind = _kind(part, "weight")
    if not kind:
        return ""
    if part.get("permuted_label"):
        return f"{kind}, shuffled (control)"
    links = [str(link).removeprefix("same_") for link in part.get("pairing", ())]
    return f"{kind}, {' else '.join(links)}"


def _tasks(part: Mapping[str, Any]) -> str:
    more = [name for name in ("lesion", "severity", "fusion") if part.get(name, 0)]
    how = part.get("weighting", "fixed")
    return ", ".join(more) + (f" ({how})" if more and how != "fixed" else "")
