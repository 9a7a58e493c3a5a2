"""The ablation matrix: which ingredients each method is made of, and what it gains over plain training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mammopath.report.comparisons import Comparison
from mammopath.report.study import Study
from mammopath.report.tables import method_label

TASKS = {"malignancy": 1.0, "patient": 1.0, "top_share": 0.05}
"""Numbers that every method has unless told; every other task is off (``TaskRecipe``)."""

NAMED = {
    "align": ("kind", "pairing", "permuted_label"),
    "style": ("kind",),
    "invariance": ("kind",),
}
"""Parts of a recipe that are one ingredient each, and their keys that have a column of their own."""

TOLD = ("caption", "modalities", "tasks", "average", "tune", *NAMED)
"""Keys of a recipe that columns tell."""

SWITCH = {"align": "weight", "style": "probability", "invariance": "weight"}
"""Key of each that switches it off at zero."""


@dataclass(frozen=True, slots=True)
class AblationRow:
    """One method: an ingredient is empty where it has none.

    Attributes:
        tasks: every task that is taught beside malignancy, with its weight, and how they are balanced.
        settings: keys of its alignment, style and invariance that are not the same in every method that has
            such a part, any other key where it is not as in most methods, and what training was tuned over.
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
    settings: str
    gain: float
    low: float
    high: float
    p_holm: float


def ablation_rows(study: Study, compared: Sequence[Comparison]) -> list[AblationRow]:
    """One row per trained method, by falling gain; the reference and what was not compared stand last."""
    scope = "all" if any(c.scope == "all" for c in compared) else next((c.scope for c in compared), "")
    gains = {c.label: c for c in compared if c.scope == scope}
    recipes: dict[str, Mapping[str, Any]] = {}
    for line in study.lines:
        recipe = study.runs[line["run"]].get("recipe")
        label = method_label(line["method"], line["adaptation"], line.get("select", ""))
        if recipe and line["adaptation"] == "none":
            recipes.setdefault(label, recipe)
    varied, usual = _varied(list(recipes.values())), _usual(list(recipes.values()))
    found = [
        _row(label, recipe, gains.get(label), _settings(recipe, varied, usual))
        for label, recipe in recipes.items()
    ]
    return sorted(found, key=lambda r: (math.isnan(r.gain), -r.gain if r.gain == r.gain else 0.0))


def _row(label: str, recipe: Mapping[str, Any], gain: Comparison | None, settings: str) -> AblationRow:
    nothing = math.nan
    return AblationRow(
        label=label,
        modalities=" + ".join(recipe.get("modalities", ())),
        alignment=_alignment(recipe),
        style=_kind(recipe, "style"),
        invariance=_kind(recipe, "invariance"),
        tasks=_tasks(recipe.get("tasks", {})),
        averaging=recipe.get("average") or "",
        settings=settings,
        gain=gain.difference if gain else nothing,
        low=gain.low if gain else nothing,
        high=gain.high if gain else nothing,
        p_holm=gain.p_holm if gain else nothing,
    )


def _varied(recipes: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Part and key of every setting that is not the same wherever the part is on, but those of ``NAMED``."""
    found = []
    for part, named in NAMED.items():
        on = [recipe[part] for recipe in recipes if _kind(recipe, part)]
        for key in dict.fromkeys(key for values in on for key in values if key not in named):
            if any(values.get(key) != on[0].get(key) for values in on):
                found.append((part, key))
    return found


def _usual(recipes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What most methods have of every key that no column tells."""
    found: dict[str, list[Any]] = {}
    for recipe in recipes:
        for key, value in _untold(recipe).items():
            found.setdefault(key, []).append(value)
    return {key: max(values, key=values.count) for key, values in found.items()}


def _untold(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a recipe that no column tells, those of its further parts after the part's name."""
    further = {key: value for key, value in recipe.items() if key not in TOLD}
    parts = {key: value for key, value in further.items() if isinstance(value, Mapping)}
    inside = {f"{part} {key}": value for part, values in parts.items() for key, value in values.items()}
    return {key: value for key, value in further.items() if key not in parts} | inside


def _settings(recipe: Mapping[str, Any], varied: Sequence[tuple[str, str]], usual: Mapping[str, Any]) -> str:
    told = [
        f"{part} {key.replace('_', ' ')} {_value(recipe[part][key])}"
        for part, key in varied
        if _kind(recipe, part) and key in recipe[part]
    ]
    told += [f"{k.replace('_', ' ')} {_value(v)}" for k, v in _untold(recipe).items() if v != usual[k]]
    tuned = [f"tuned over {_trials(recipe['tune'])}"] if recipe.get("tune") else []
    return ", ".join(told + tuned)


def _trials(trials: Sequence[Mapping[str, float]]) -> str:
    """Rate and length of each trial, relative to the settings of the study."""
    return " / ".join(f"{_value(t.get('rate', 1))}x rate {_value(t.get('length', 1))}x steps" for t in trials)


def _kind(recipe: Mapping[str, Any], part: str) -> str:
    """Which kind of a part is on; empty for none."""
    values = recipe.get(part, {})
    kind = str(values.get("kind", "none"))
    return "" if kind == "none" or not values.get(SWITCH[part], 1) else kind


def _alignment(recipe: Mapping[str, Any]) -> str:
    kind, part = _kind(recipe, "align"), recipe.get("align", {})
    if not kind:
        return ""
    links = [str(link).removeprefix("same_") for link in part.get("pairing", ())]
    shuffled = ", shuffled (control)" if part.get("permuted_label") else ""
    return f"{kind}, {' else '.join(links)}{shuffled}"


def _tasks(part: Mapping[str, Any]) -> str:
    numbers = {name: value for name, value in part.items() if isinstance(value, int | float)}
    told = [
        f"{_task(name, part)} {_value(number)}"
        for name, number in numbers.items()
        if number != TASKS.get(name, 0.0)
    ]
    if part.get("image_score", "pooled") != "pooled":
        told.append("score from the highest tokens")
    how = part.get("weighting", "fixed")
    return ", ".join(told) + (f" ({how})" if told and how != "fixed" else "")


def _task(name: str, part: Mapping[str, Any]) -> str:
    kind = f" ({part['fusion_kind']})" if name == "fusion" and "fusion_kind" in part else ""
    return name.replace("_", " ") + kind


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
