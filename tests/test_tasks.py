"""Losses of malignancy, severity and lesion map, and how tasks share the weights."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coral_pytorch.dataset import corn_label_from_logits
from coral_pytorch.losses import corn_loss as reference_corn_loss
from torch import Tensor, nn

import model_cases
from mammopath.objectives import tasks
from mammopath.objectives.methods import METHODS, recipe_with
from mammopath.objectives.recipe import TaskRecipe
from mammopath.objectives.supervision import late_fusion_loss, pair_labels, pair_of, task_losses
from mammopath.objectives.tasks import corn_loss
from mammopath.objectives.weighting import flat_gradient, uncertainty_weighted, without_conflicts
from mammopath.types import ORDINALS
from objective_toys import ToyNetwork, build, det, make_batch, make_batches, take_step

NAN = math.nan


# ---------------------------------------------------------------- malignancy


def test_unknown_labels_leave_the_mean() -> None:
    logits, labels = torch.tensor([2.0, -1.0, 50.0]), torch.tensor([1.0, 0.0, NAN])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
    assert tasks.malignancy_loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_unknown_labels_have_no_gradient() -> None:
    logits = torch.tensor([2.0, -1.0]).requires_grad_()
    tasks.malignancy_loss(logits, torch.tensor([1.0, NAN])).backward()
    assert logits.grad[0] != 0
    assert logits.grad[1] == 0


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: tasks.malignancy_loss(x[:, 0], torch.full((4,), NAN)),
        lambda x: tasks.corn_loss(x, torch.full((4,), NAN)),
        lambda x: tasks.box_loss(x, torch.full((4, 3), NAN), torch.ones(4)),
        lambda x: tasks.lesion_loss(x, torch.ones(4, 3, dtype=bool), torch.full((4,), NAN), top_share=0.1),
    ],
)
def test_without_any_label_the_loss_is_zero_and_has_a_gradient(loss) -> None:
    x = det((4, 3)).requires_grad_()
    value = loss(x)
    value.backward()
    assert value.item() == 0
    assert x.grad.abs().sum() == 0


def test_a_patient_is_what_the_worst_image_is() -> None:
    values = torch.tensor([0.0, 1.0, 0.0, NAN, NAN, NAN])
    patient = torch.tensor([7, 7, 3, 3, 9, 9])
    found = tasks.per_patient(values, patient, torch.tensor([3, 7, 9]))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, NAN]), equal_nan=True)


# ---------------------------------------------------------------- severity


def test_corn_is_that_of_its_authors() -> None:
    levels = torch.tensor([0, 3, 1, 2, 2, 0, 3, 1])
    logits = det((8, 3), 3, 0.4)
    ours = tasks.corn_loss(logits, levels.float())
    torch.testing.assert_close(ours, reference_corn_loss(logits, levels, num_classes=4))
    assert tasks.level(logits).tolist() == corn_label_from_logits(logits).tolist()


def test_corn_by_brute_force_with_an_unknown_level() -> None:
    levels, logits = [0.0, NAN, 3.0, 1.0], det((4, 3), 2, 1)
    losses = []
    for row, level in zip(logits.tolist(), levels, strict=True):
        for k, z in enumerate(row):
            if level > k - 1:
                p = 1 / (1 + math.exp(-z))
                losses.append(-math.log(p if level > k else 1 - p))
    assert tasks.corn_loss(logits, torch.tensor(levels)).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_level_probabilities_are_the_chain_of_conditionals() -> None:
    logits = det((5, 3), 2)
    p = logits.sigmoid()
    expected = torch.stack(
        [1 - p[:, 0], p[:, 0] * (1 - p[:, 1]), p[:, 0] * p[:, 1] * (1 - p[:, 2]), p.prod(1)], 1
    )
    torch.testing.assert_close(tasks.level_probabilities(logits), expected)
    assert (tasks.exceedance(logits).diff(dim=1) <= 0).all()


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_optimum_of_the_severity_loss_is_the_true_level(level: int) -> None:
    """A cross-entropy weighted by |level - i| + 1 has its optimum at the farthest level instead."""
    logits = torch.zeros(1, 3, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(40):
        optimizer.zero_grad()
        tasks.corn_loss(logits, torch.tensor([float(level)])).backward()
        optimizer.step()
    assert tasks.level(logits).item() == level


# ---------------------------------------------------------------- lesion map


def test_top_tokens_by_brute_force() -> None:
    logits = det((3, 10), 2)
    valid = torch.ones(3, 10, dtype=torch.bool)
    valid[1, 4:] = False
    valid[2] = False
    pooled = tasks.image_logit_from_tokens(logits, valid, top_share=0.25)
    for row, known, value in zip(logits, valid, pooled, strict=True):
        real = sorted(row[known].tolist(), reverse=True)
        count = max(1, math.ceil(0.25 * len(real)))
        assert value.item() == pytest.approx(sum(real[:count]) / count, abs=1e-6)


def test_padding_never_speaks_for_an_image() -> None:
    logits = torch.tensor([[0.1, 0.2, 99.0]], requires_grad=True)
    valid = torch.tensor([[True, True, False]])
    tasks.lesion_loss(logits, valid, torch.ones(1), top_share=1.0).backward()
    assert logits.grad[0, 2] == 0
    assert (logits.grad[0, :2] < 0).all()


def test_boxes_by_brute_force() -> None:
    logits = det((3, 4), 2)
    share = torch.tensor([[1.0, 0.5, 0.0, NAN], [1.0, 0.0, 0.0, 0.0], [NAN, NAN, NAN, NAN]])
    labels = torch.tensor([1.0, 0.0, 1.0])  # the second image's finding is benign: background
    target = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy(
        torch.cat([p[0, :3], p[1]]), torch.cat([target[0], torch.zeros(4)])
    )
    dice = 1 - (2 * (p[0, :3] * target[0]).sum() + 1) / (p[0, :3].sum() + target[0].sum() + 1)
    torch.testing.assert_close(tasks.box_loss(logits, share, labels), cross_entropy + dice)


def test_boxes_are_best_when_the_map_is_the_finding() -> None:
    share = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    right = (share - 0.5) * 20
    assert tasks.box_loss(right, share, torch.ones(1)).item() < 1e-3
    assert tasks.box_loss(-right, share, torch.ones(1)).item() > 5


# ---------------------------------------------------------------- both modalities


def test_late_fusion_joins_patients_by_their_key_alone() -> None:
    batches, network = make_batches(), ToyNetwork()
    outputs = network.outputs(batches)
    left, right = outputs["mammogram"].patient_logit, outputs["pathology"].patient_logit
    labels = torch.tensor([0.0, 0, 1, 1, 0, 0, 1, 1])
    expected = F.binary_cross_entropy_with_logits((left + right) / 2, labels)
    torch.testing.assert_close(late_fusion_loss(outputs, batches), expected)
    assert late_fusion_loss({"mammogram": outputs["mammogram"]}, batches) is None


def test_a_pair_key_is_found_whatever_image_carries_it() -> None:
    batch = make_batches()["mammogram"]
    batch.pair[::2] = -1
    assert pair_of(batch, batch.patient.unique()).tolist() == list(range(8))
    labels = pair_labels("severity", {"mammogram": batch}, torch.tensor([3, 0, 77]))
    torch.testing.assert_close(labels, torch.tensor([3.0, 0.0, NAN]), equal_nan=True)


def test_a_partner_chosen_by_label_never_reaches_a_classifier() -> None:
    """Without true pairs, the outputs of one modality have no gradient from the other's labels."""
    batches, network = make_batches(), ToyNetwork()
    batches["pathology"].pair.fill_(-1)
    batches["mammogram"].malignant.fill_(NAN)
    batches["mammogram"].severity.fill_(NAN)
    batches["mammogram"].ordinal.fill_(NAN)
    recipe = recipe_with(METHODS["full"], {"align": {"weight": 0.0}, "tasks": {"fusion_kind": "late"}})
    objective = build(recipe)
    take_step(objective, network, batches)["loss"].backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in network.parts["mammogram"].parameters())
    assert objective.counters["fusion"] == 0
    assert "both modalities" in objective.idle_reasons["fusion"]


# ---------------------------------------------------------------- weighting


def test_uncertainty_weighting_is_kendalls_and_settles_at_the_log_of_the_loss() -> None:
    s = torch.tensor(0.7, requires_grad=True)
    loss = uncertainty_weighted(torch.tensor(2.0), s)
    assert loss.item() == pytest.approx(2 / (2 * math.exp(0.7)) + 0.35)
    optimizer = torch.optim.Adam([s], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        uncertainty_weighted(torch.tensor(2.0), s).backward()
        optimizer.step()
    assert s.item() == pytest.approx(math.log(2.0), abs=0.01)


def test_the_variance_of_an_absent_task_does_not_drift() -> None:
    objective, network = build(METHODS["uncertainty"]), ToyNetwork()
    optimizer = torch.optim.AdamW([*network.parameters(), *objective.parameters()], lr=0.01)
    for step in range(6):
        batches = make_batches()
        if step > 2:
            batches["mammogram"].severity.fill_(NAN)
            batches["pathology"].severity.fill_(NAN)
        optimizer.zero_grad()
        objective.backward(take_step(objective, network, batches), network, clip=1.0)
        optimizer.step()
        value = objective.log_variances["severity"].item()
        before = value if step <= 2 else before
        assert value == before
    assert before != -0.5
    assert objective.log_variances["malignancy"].item() != before


@pytest.mark.parametrize("kind", ["late", "cross"])
def test_pairs_without_a_label_are_an_absent_task(kind: str) -> None:
    """A fused loss of 0 that counted as known would let its variance drift."""
    batches = make_batches()
    for batch in batches.values():
        batch.malignant.fill_(NAN)
        batch.severity.fill_(NAN)
        batch.ordinal.fill_(NAN)
    recipe = recipe_with(METHODS["uncertainty"], {"tasks": {"fusion_kind": kind}})
    objective, network = build(recipe), ToyNetwork()
    objective.backward(take_step(objective, network, batches), network, clip=1.0)
    assert objective.counters["fusion"] == 0
    assert all(value.grad is None for value in objective.log_variances.values())


def test_conflicting_gradients_by_hand() -> None:
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    merged = without_conflicts(gradients, torch.Generator().manual_seed(0))
    torch.testing.assert_close(merged, torch.tensor([0.5, 0.5]) + torch.tensor([0.0, 1.0]))


def test_gradients_that_agree_are_summed() -> None:
    gradients = torch.tensor([[1.0, 0.2], [0.5, 1.0], [0.1, 0.1]])
    torch.testing.assert_close(without_conflicts(gradients, torch.Generator()), torch.tensor([1.6, 1.3]))


def test_projected_gradients_oppose_no_task_when_there_are_two() -> None:
    gradients = det((2, 5), 1, 2)
    gradients[1] -= 2 * gradients[0]
    merged = without_conflicts(gradients, torch.Generator())
    assert (gradients @ merged >= -1e-5).all()


def test_pcgrad_without_conflict_is_the_plain_gradient() -> None:
    """With a single task, projecting changes nothing, penalties and alignment included."""
    grads = []
    for weighting in ("fixed", "pcgrad"):
        recipe = recipe_with(
            METHODS["full_no_multitask"], {"tasks": {"patient": 0.0, "weighting": weighting}}
        )
        objective, network = build(recipe), ToyNetwork()
        norm = objective.backward(take_step(objective, network, make_batches()), network, clip=1e9)
        grads.append([norm, *[p.grad for p in network.parameters()]])
    assert grads[0][0] == pytest.approx(grads[1][0], rel=1e-5)
    for a, b in zip(grads[0][1:], grads[1][1:], strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-6)


def test_pcgrad_projects_what_the_tasks_say() -> None:
    recipe = METHODS["pcgrad"]
    objective, network = build(recipe), ToyNetwork()
    terms = take_step(objective, network, make_batches())
    parameters = list(network.parameters())
    each = torch.stack(
        [flat_gradient(objective.weights[n] * terms[n], parameters) for n in objective.weights]
    )
    expected = without_conflicts(each, torch.Generator().manual_seed(0))
    objective.backward(terms, network, clip=1e9)
    got = torch.cat([p.grad.flatten() for p in parameters])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got, each.sum(0), atol=1e-4)


def test_the_gradient_is_clipped() -> None:
    objective, network = build(METHODS["erm"]), ToyNetwork()
    norm = objective.backward(take_step(objective, network, make_batches()), network, clip=1e-3)
    clipped = nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
    assert norm > 1e-3
    assert clipped.item() == pytest.approx(1e-3, rel=1e-3)


def test_a_step_without_a_trained_modality_is_refused() -> None:
    objective, network = build(METHODS["mammogram"]), ToyNetwork()
    batches = make_batches()
    outputs = network.outputs(batches)
    with pytest.raises(ValueError, match="none of mammogram"):
        objective({"pathology": outputs["pathology"]}, batches, step=1)


def test_modalities_count_alike_whatever_their_size() -> None:
    batches = {"mammogram": make_batch("mammogram"), "pathology": make_batch("pathology", per_site=16)}

    def malignancy(modalities: list[str]) -> Tensor:
        step = {m: batches[m] for m in modalities}
        return build(METHODS["erm"])(ToyNetwork().outputs(step), step, step=1)["malignancy"]

    alone = (malignancy(["mammogram"]) + malignancy(["pathology"])) / 2
    torch.testing.assert_close(malignancy(["mammogram", "pathology"]), alone)


def test_levels_of_further_ordinal_targets_are_read_from_attributes() -> None:
    birads, pn = ORDINALS["mammogram"], ORDINALS["pathology"]
    assert [birads.level({"birads": value}) for value in ("1", "5")] == [0, 4]
    assert all(math.isnan(birads.level(a)) for a in ({}, {"birads": "0"}, {"birads": "6"}, {"pn": "pN1"}))
    assert pn.level({"pn": "pN1mi"}) == 2


def test_a_further_ordinal_target_is_taught_where_it_is_known() -> None:
    recipe = TaskRecipe(ordinal=1.0)
    net = model_cases.network(dropout=0.0)
    model_cases.stir(net, "heads")
    own = model_cases.batch([model_cases.sample(seed=i) for i in range(3)])
    unknown = replace(own, ordinal=torch.full((3,), math.nan))
    assert "ordinal" not in task_losses(recipe, {"mammogram": net(own)}, {"mammogram": unknown})
    known = replace(own, patient=torch.tensor([4, 4, 7]), ordinal=torch.tensor([1.0, 3.0, math.nan]))
    output = net(known)
    assert output.ordinal is not None
    loss = task_losses(recipe, {"mammogram": output}, {"mammogram": known})["ordinal"]
    assert torch.allclose(loss, corn_loss(output.ordinal[:1], torch.tensor([3.0])))


def test_an_image_score_from_top_tokens_is_that_of_the_lesion_map() -> None:
    net = model_cases.network(image_score="top_tokens", top_share=0.1)
    model_cases.stir(net, "heads")
    own = replace(
        model_cases.batch([model_cases.sample(seed=i, padded=4) for i in range(3)]),
        patient=torch.tensor([1, 1, 5]),
    )
    output = net(own)
    for place in range(3):
        best = output.token_logit[place][own.valid[place]].sort(descending=True).values
        count = math.ceil(0.1 * len(best))
        assert output.logit[place].item() == pytest.approx(best[:count].mean().item(), abs=1e-6)
    assert output.patient_logit.tolist() == pytest.approx(
        [output.logit[:2].mean().item(), output.logit[2].item()], abs=1e-6
    )
