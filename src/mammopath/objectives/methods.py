"""The table of training methods: each is a recipe, written out."""

import difflib
from typing import Any

from mammopath.config import parse
from mammopath.errors import ConfigError
from mammopath.objectives.recipe import (
    AlignRecipe,
    InvarianceRecipe,
    LinkRecipe,
    Recipe,
    StyleRecipe,
    TaskRecipe,
    Trial,
)

_ALL_TASKS = TaskRecipe(lesion=0.5, boxes=0.5, severity=0.5, ordinal=0.25, fusion=0.5, fusion_kind="cross")
_MIXSTYLE = StyleRecipe(kind="mixstyle", alpha=0.1, probability=0.5, share=0.5)
_IRM = InvarianceRecipe(kind="irm", weight=100.0, anneal=0.1)
_SUPCON = AlignRecipe(kind="supcon", weight=0.1, temperature=0.07)

_TUNED = (Trial(rate=0.3), Trial(), Trial(rate=3.0), Trial(length=3.0))

METHODS: dict[str, Recipe] = {
    "erm": Recipe(caption="Empirical risk minimisation: malignancy, all sites alike"),
    "erm_plus": Recipe(
        caption="ERM, learning rate and length tuned on source validation, moving average of the weights",
        average="ema",
        tune=_TUNED,
    ),
    "probe_start": Recipe(
        caption="ERM from heads that start as a linear probe of the training sites (LP-FT)", start="probe"
    ),
    "swad": Recipe(caption="ERM with stochastic weight averaging, densely", average="swad"),
    "mammogram": Recipe(caption="ERM on mammograms alone", modalities=("mammogram",)),
    "pathology": Recipe(caption="ERM on pathology alone", modalities=("pathology",)),
    "late_fusion": Recipe(
        caption="ERM, logits of the two modalities of a patient averaged",
        tasks=TaskRecipe(fusion=1.0, fusion_kind="late"),
    ),
    "multitask": Recipe(caption="ERM on all tasks", tasks=_ALL_TASKS),
    "uncertainty": Recipe(
        caption="All tasks, weighted by learned uncertainty",
        tasks=_ALL_TASKS.model_copy(update={"weighting": "uncertainty"}),
    ),
    "pcgrad": Recipe(
        caption="All tasks, conflicting gradients projected away",
        tasks=_ALL_TASKS.model_copy(update={"weighting": "pcgrad"}),
    ),
    "lesion": Recipe(
        caption="ERM with a lesion map learnt from image labels alone", tasks=TaskRecipe(lesion=1.0)
    ),
    "top_tokens": Recipe(
        caption="Image score from the highest tokens of the lesion map, taught by outlines where known",
        tasks=TaskRecipe(boxes=1.0, image_score="top_tokens"),
    ),
    "mixstyle": Recipe(caption="MixStyle on tokens", style=_MIXSTYLE),
    "efdmix": Recipe(
        caption="Exact feature distribution mixing", style=StyleRecipe(kind="efdmix", share=1.0)
    ),
    "dsu": Recipe(caption="Domain shifts with uncertainty", style=StyleRecipe(kind="dsu", share=1.0)),
    "irm": Recipe(caption="Invariant risk minimisation (IRMv1)", invariance=_IRM),
    "vrex": Recipe(
        caption="Variance of the sites' risks (V-REx)",
        invariance=InvarianceRecipe(kind="vrex", weight=10.0, anneal=0.1),
    ),
    "groupdro": Recipe(
        caption="Worst site's risk (GroupDRO)",
        invariance=InvarianceRecipe(kind="groupdro", weight=1.0, step_size=0.01),
    ),
    "coral": Recipe(
        caption="Mean and covariance of features (CORAL)",
        invariance=InvarianceRecipe(kind="coral", weight=1.0),
    ),
    "dann": Recipe(
        caption="Site discriminator, gradient reversed (DANN)",
        invariance=InvarianceRecipe(kind="dann", weight=1.0),
    ),
    "cdann": Recipe(
        caption="Site discriminator within a class (CDANN)",
        invariance=InvarianceRecipe(kind="cdann", weight=1.0),
    ),
    "fishr": Recipe(
        caption="Variance of the head's gradients (Fishr)",
        invariance=InvarianceRecipe(kind="fishr", weight=1000.0, anneal=0.3, weight_before=0.0),
    ),
    "ib_irm": Recipe(
        caption="IRMv1 with an information bottleneck",
        invariance=InvarianceRecipe(kind="ib_irm", weight=100.0, anneal=0.1, bottleneck=100.0),
    ),
    "align": Recipe(caption="Contrast of the modalities, same patient else same label", align=_SUPCON),
    "align_patient": Recipe(
        caption="Contrast of the modalities, true pairs alone (InfoNCE)",
        align=AlignRecipe(kind="infonce", pairing=("same_patient",), memory=0),
    ),
    "align_label": Recipe(
        caption="Contrast of the modalities, same label alone",
        align=AlignRecipe(kind="supcon", pairing=("same_label",)),
    ),
    "align_siglip": Recipe(
        caption="Contrast of the modalities, a sigmoid for each pair",
        align=AlignRecipe(kind="siglip", temperature=0.1, bias=-10.0),
    ),
    "align_permuted": Recipe(
        caption="Control: contrast of the modalities with partners shuffled",
        align=_SUPCON.model_copy(update={"permuted_label": True}),
    ),
    "linked": Recipe(
        caption="ERM on all tasks, and suspicious regions must find their own patient's tissue",
        tasks=_ALL_TASKS,
        link=LinkRecipe(weight=0.5),
    ),
    "full": Recipe(
        caption="The paper's method: alignment, MixStyle, IRM, all tasks",
        tasks=_ALL_TASKS,
        style=_MIXSTYLE,
        invariance=_IRM,
        align=_SUPCON,
    ),
    "full_no_align": Recipe(
        caption="The paper's method without alignment", tasks=_ALL_TASKS, style=_MIXSTYLE, invariance=_IRM
    ),
    "full_no_mixstyle": Recipe(
        caption="The paper's method without MixStyle", tasks=_ALL_TASKS, invariance=_IRM, align=_SUPCON
    ),
    "full_no_irm": Recipe(
        caption="The paper's method without IRM", tasks=_ALL_TASKS, style=_MIXSTYLE, align=_SUPCON
    ),
    "full_no_multitask": Recipe(
        caption="The paper's method with malignancy alone", style=_MIXSTYLE, invariance=_IRM, align=_SUPCON
    ),
    "full_permuted": Recipe(
        caption="Control: the paper's method with partners shuffled",
        tasks=_ALL_TASKS,
        style=_MIXSTYLE,
        invariance=_IRM,
        align=_SUPCON.model_copy(update={"permuted_label": True}),
    ),
}
"""Rows of the results table; ``train.method`` is a key, ``train.overrides`` changes single settings."""


def method_recipe(name: str, overrides: dict[str, Any]) -> Recipe:
    """The recipe of a method of the table, with some settings changed.

    Raises:
        ConfigError: unknown method or key (with the nearest known one), or bad value.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"these are known: {', '.join(METHODS)}"
        raise ConfigError(f"train.method: there is no method {name!r}; {hint}")
    return recipe_with(METHODS[name], overrides)


def recipe_with(recipe: Recipe, overrides: dict[str, Any]) -> Recipe:
    """The recipe with some settings changed, for example ``{"style": {"alpha": 0.3}}``.

    Raises:
        ConfigError: unknown key (with the nearest known one) or bad value.
    """
    return parse(Recipe, _merged(recipe.model_dump(), overrides), where="train.overrides")


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(values[key], change)
        for key, change in changes.items()
        if _are_groups(values, key, change)
    }
    return values | changes | both


def _are_groups(values: dict[str, Any], key: str, change: Any) -> bool:
    return isinstance(values.get(key), dict) and isinstance(change, dict)
