"""Contracts that hold for every row of the table of methods."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from mammopath.errors import ConfigError
from mammopath.objectives.methods import METHODS, method_recipe, recipe_with
from mammopath.objectives.recipe import AlignRecipe, InvarianceRecipe, Recipe, StyleRecipe, TaskRecipe
from mammopath.types import MODALITIES
from objective_toys import ToyNetwork, build, make_batch, make_batches, take_step

SURELY = {"style": {"probability": 1.0}}
"""Leaves nothing to chance in a single step."""
OFF = {
    "style": {"probability": 0.0},
    "invariance": {"weight": 0.0},
    "align": {"weight": 0.0},
    "link": {"weight": 0.0},
}
PARTS = ("tasks", "style", "invariance", "align", "link")
EVERY_METHOD = pytest.mark.parametrize("name", METHODS)
LIKE_ERM = ("erm", "erm_plus", "probe_start", "swad", "mammogram", "pathology")
"""Differ from ERM in data, averaging or start alone."""
ON = {name: recipe for name, recipe in METHODS.items() if recipe.style.kind != "none"}


def modalities_of(recipe: Recipe, **sizes: int) -> dict:
    return {m: make_batch(m, **sizes) for m in recipe.modalities}


@EVERY_METHOD
def test_with_zero_weights_every_method_is_erm_exactly(name: str) -> None:
    recipe = recipe_with(METHODS[name], OFF | {"tasks": TaskRecipe().model_dump()})
    plain = recipe_with(METHODS["erm"], {"modalities": recipe.modalities})
    results = []
    for one in (recipe, plain):
        network, objective = ToyNetwork(), build(one)
        terms = take_step(objective, network, modalities_of(recipe))
        objective.backward(terms, network, clip=1e9)
        results.append((terms, [p.grad for p in network.parameters()], objective))
    (terms, grads, objective), (erm_terms, erm_grads, erm) = results
    assert {k: v.item() for k, v in terms.items()} == {k: v.item() for k, v in erm_terms.items()}
    for ours, theirs in zip(grads, erm_grads, strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    assert objective.switch_steps == ()
    assert list(objective.parameters()) == []
    assert objective.counters == erm.counters


@pytest.mark.parametrize("step", [1, 10])
def test_a_bottleneck_without_its_penalty_is_erm_before_and_after_annealing(step: int) -> None:
    off = recipe_with(METHODS["ib_irm"], {"invariance": {"weight": 0.0}})
    assert off.invariance.bottleneck > 0
    terms = [take_step(build(one), ToyNetwork(), make_batches(), step=step) for one in (off, METHODS["erm"])]
    assert {k: v.item() for k, v in terms[0].items()} == {k: v.item() for k, v in terms[1].items()}
    assert build(off).counters == build(METHODS["erm"]).counters


def test_ib_irm_without_its_bottleneck_is_refused_as_it_would_be_irm() -> None:
    with pytest.raises(ConfigError, match="without a bottleneck is irm"):
        method_recipe("ib_irm", {"invariance": {"bottleneck": 0.0}})


def test_a_bottleneck_reads_features_whatever_its_penalty() -> None:
    tasks = {"tasks": {"image_score": "top_tokens", "boxes": 1.0}}
    assert method_recipe("irm", tasks).invariance.bottleneck == 0
    with pytest.raises(ConfigError, match="looks at pooled features"):
        method_recipe("irm", tasks | {"invariance": {"bottleneck": 1.0}})


@EVERY_METHOD
def test_every_configured_ingredient_runs(name: str) -> None:
    recipe = recipe_with(METHODS[name], SURELY if METHODS[name].style.kind != "none" else {})
    objective, network = build(recipe), ToyNetwork()
    terms = take_step(objective, network, modalities_of(recipe))
    objective.backward(terms, network, clip=1.0)
    assert all(objective.counters.values()), f"idle: {objective.counters} {objective.idle_reasons}"
    assert objective.idle_reasons == {}
    assert all(torch.isfinite(value) for value in terms.values())


@EVERY_METHOD
def test_gradients_reach_every_declared_parameter(name: str) -> None:
    objective, network = build(METHODS[name]), ToyNetwork()
    terms = take_step(objective, network, modalities_of(METHODS[name]))
    objective.backward(terms, network, clip=1e9)
    for key, parameter in objective.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", [name for name in METHODS if name not in LIKE_ERM])
def test_a_switched_on_ingredient_changes_the_gradient(name: str) -> None:
    """A penalty that is computed and not applied would leave the gradient of ERM."""
    recipe = METHODS[name]
    grads = []
    for one in (recipe_with(recipe, SURELY if name in ON else {}), METHODS["erm"]):
        network, objective = ToyNetwork(), build(one)
        objective.backward(take_step(objective, network, make_batches()), network, clip=1e9)
        every = network.parts["mammogram"].parameters()
        grads.append(
            torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in every])
        )
    assert not torch.allclose(grads[0], grads[1], atol=1e-6)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "uncertainty"])
def test_the_loss_is_the_weighted_sum_of_its_terms(name: str) -> None:
    recipe = METHODS[name]
    terms = take_step(build(recipe), ToyNetwork(), modalities_of(recipe))
    weights = {
        recipe.invariance.kind: recipe.invariance.weight,
        "bottleneck": recipe.invariance.bottleneck,
        "align": recipe.align.weight,
        "link": recipe.link.weight,
    } | recipe.tasks.model_dump()
    total = sum(weights[key] * value for key, value in terms.items() if key != "loss")
    torch.testing.assert_close(terms["loss"], total)


@EVERY_METHOD
def test_in_evaluation_nothing_is_drawn_counted_or_remembered(name: str) -> None:
    objective, network = build(recipe_with(METHODS[name], SURELY)), ToyNetwork()
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    objective.eval()
    take_step(objective, network, modalities_of(METHODS[name]))
    assert not any(objective.counters.values())
    assert all(torch.equal(before[k], v) for k, v in objective.state_dict().items())


@EVERY_METHOD
def test_a_step_is_the_same_with_the_same_seed(name: str) -> None:
    first, second = (
        take_step(build(METHODS[name]), ToyNetwork(), modalities_of(METHODS[name])) for _ in range(2)
    )
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in second.items()}


@EVERY_METHOD
def test_batches_without_labels_give_a_zero_with_a_gradient(name: str) -> None:
    batches = {
        m: replace(
            batch,
            malignant=torch.full_like(batch.malignant, torch.nan),
            severity=torch.full_like(batch.severity, torch.nan),
            ordinal=torch.full_like(batch.severity, torch.nan),
            pair=torch.full_like(batch.pair, -1),
        )
        for m, batch in modalities_of(METHODS[name]).items()
    }
    objective, network = build(METHODS[name]), ToyNetwork()
    terms = take_step(objective, network, batches)
    objective.backward(terms, network, clip=1.0)
    assert terms["loss"].item() == 0.0
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in network.parameters())
    assert set(objective.idle_reasons) >= {"malignancy", "patient"}


def test_ablations_of_full_take_out_one_ingredient() -> None:
    full, plain = METHODS["full"], Recipe()
    parts = {"no_align": "align", "no_mixstyle": "style", "no_irm": "invariance", "no_multitask": "tasks"}
    for name, part in parts.items():
        without = METHODS[f"full_{name}"]
        assert without.model_copy(update={"caption": full.caption, part: getattr(full, part)}) == full
        assert getattr(without, part) == getattr(plain, part)


def test_controls_differ_from_their_method_by_the_shuffling_alone() -> None:
    for method, control in (("align", "align_permuted"), ("full", "full_permuted")):
        changed = recipe_with(METHODS[control], {"align": {"permuted_label": False}, "caption": ""})
        assert changed == METHODS[method].model_copy(update={"caption": ""})


def test_the_rows_of_the_table_are_different() -> None:
    bare = [recipe.model_copy(update={"caption": ""}) for recipe in METHODS.values()]
    assert all(a != b for a, b in itertools.combinations(bare, 2))
    assert all(recipe.caption for recipe in METHODS.values())


def test_published_defaults() -> None:
    weights = {
        name: METHODS[name].invariance for name in ("groupdro", "coral", "dann", "cdann", "fishr", "ib_irm")
    }
    assert {name: w.weight for name, w in weights.items()} == {
        "groupdro": 1, "coral": 1, "dann": 1, "cdann": 1, "fishr": 1000, "ib_irm": 100,
    }  # fmt: skip
    assert (weights["groupdro"].step_size, weights["ib_irm"].bottleneck) == (0.01, 100)
    assert (weights["fishr"].anneal, weights["fishr"].memory) == (0.3, 0.95)
    assert METHODS["align_siglip"].align == AlignRecipe(kind="siglip", temperature=0.1, bias=-10)
    assert METHODS["irm"].invariance == InvarianceRecipe(kind="irm", weight=100, anneal=0.1, weight_before=1)
    assert METHODS["vrex"].invariance == InvarianceRecipe(kind="vrex", weight=10, anneal=0.1, weight_before=1)
    assert METHODS["mixstyle"].style == StyleRecipe(kind="mixstyle", alpha=0.1, probability=0.5)
    assert METHODS["align"].align == AlignRecipe(kind="supcon", weight=0.1, temperature=0.07)
    assert METHODS["full"].modalities == MODALITIES


# ---------------------------------------------------------------- overrides


def test_overrides_change_single_keys() -> None:
    recipe = recipe_with(METHODS["full"], {"style": {"alpha": 0.3}, "align": {"weight": 0.5}})
    assert recipe.style == METHODS["full"].style.model_copy(update={"alpha": 0.3})
    assert recipe.align.weight == 0.5
    assert recipe.invariance == METHODS["full"].invariance


def test_overrides_survive_yaml() -> None:
    recipe = recipe_with(Recipe(), METHODS["full"].model_dump(mode="json"))
    assert recipe == METHODS["full"]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"styl": {}}, "'style'"),
        ({"style": {"alfa": 1}}, "'alpha'"),
        ({"style": {"kind": "mixstile"}}, "mixstyle"),
        ({"invariance": {"weight": -1}}, "greater than or equal to 0"),
        ({"modalities": []}, "modalities"),
        ({"align": {"kind": "infonce"}}, "true pairs"),
        ({"tasks": 3}, "tasks"),
        ({"link": {"weight": 1.0}}, "nothing reads"),
        ({"tasks": {"image_score": "top_tokens"}, "invariance": {"kind": "fishr"}}, "reads nothing"),
    ],
)
def test_wrong_overrides_are_explained(overrides: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=r"train\.overrides") as caught:
        recipe_with(METHODS["erm"], overrides)
    assert told in str(caught.value)


def test_an_unknown_method_names_the_nearest() -> None:
    assert method_recipe("irm", {}) == METHODS["irm"]
    with pytest.raises(ConfigError, match="did you mean 'mixstyle'"):
        method_recipe("mixtyle", {})
    with pytest.raises(ConfigError, match="erm, erm_plus"):
        method_recipe("???", {})


# ---------------------------------------------------------------- documents


def test_every_method_and_every_key_is_explained() -> None:
    page = (Path(__file__).parent.parent / "docs/explanation/methods.md").read_text()
    keys = [key for part in PARTS for key in type(getattr(Recipe(), part)).model_fields]
    kinds = [kind for part in PARTS for kind in kinds_of(part)]
    told = set(re.findall(r"[a-z_]+", page))
    assert {*METHODS, *PARTS, *keys, *kinds, "average"} - told == set()


def kinds_of(part: str) -> tuple[str, ...]:
    field = type(getattr(Recipe(), part)).model_fields.get("kind")
    return get_args(field.annotation) if field else ()
