"""Contrast of the two modalities: links, losses, memory, controls, retrieval."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning.losses import SupConLoss
from sklearn.metrics import average_precision_score
from torch import Tensor

from mammopath.objectives.align import Links, Side, contrast_loss, links, sigmoid_loss
from mammopath.objectives.alignment import Alignment, Memory, side_of
from mammopath.objectives.ledger import Ledger
from mammopath.objectives.methods import METHODS, recipe_with
from mammopath.objectives.recipe import AlignRecipe
from mammopath.objectives.retrieval import chance_precision, chance_recall, modality_gap, retrieval
from objective_toys import ToyNetwork, build, det, make_batches, take_step

NAN = math.nan
BOTH = ("same_patient", "same_label")


def side(labels: list[float], pairs: list[int] | None = None, *, phase: float = 0.0) -> Side:
    projection = F.normalize(det((len(labels), 4), 1, phase), dim=1)
    return Side(projection, torch.tensor(labels).float(), torch.tensor(pairs or [-1] * len(labels)))


# ---------------------------------------------------------------- links


def test_true_pairs_alone_push_every_other_patient_apart() -> None:
    known = links(side([0, 1, NAN], [5, 6, -1]), side([1, 0], [6, 9]), pairing=("same_patient",))
    assert known.positive.tolist() == [[False, False], [True, False], [False, False]]
    assert known.counted.all()


def test_labels_link_every_case_of_the_class_and_leave_the_unknown_out() -> None:
    known = links(side([0, 1, NAN]), side([1, 0, NAN]), pairing=("same_label",))
    assert known.positive.tolist() == [[False, True, False], [True, False, False], [False] * 3]
    assert known.counted.tolist() == [[True, True, False], [True, True, False], [False] * 3]


def test_a_true_partner_comes_before_the_label() -> None:
    known = links(side([1, 1, 0], [5, -1, -1]), side([1, 1, 0], [5, 7, 8]), pairing=BOTH)
    assert known.positive.tolist() == [[True, False, False], [True, True, False], [False, False, True]]
    assert known.counted.tolist() == [[True, False, True], [True, True, True], [True, True, True]]


def test_where_labels_link_no_case_of_the_same_class_is_pushed_apart() -> None:
    """Diagonal targets over a batch with two classes train most same-class pairs as negatives."""
    labels = [0.0, 1.0, NAN]
    for left in itertools.product(labels, repeat=3):
        rows, columns = side(list(left), [1, 2, -1]), side([0.0, 1.0, 1.0, NAN], [2, -1, 1, 3])
        for pairing in (("same_label",), BOTH):
            known = links(rows, columns, pairing=pairing)
            pushed = known.counted & ~known.positive
            same = rows.label[:, None] == columns.label
            assert not (pushed & same).any()
            assert not (pushed & (rows.label.isnan()[:, None] | columns.label.isnan())).any()


def test_without_a_pairing_nobody_is_linked() -> None:
    assert not links(side([0, 1]), side([0, 1]), pairing=()).positive.any()


# ---------------------------------------------------------------- losses


def brute_force_contrast(logits: Tensor, known: Links) -> float:
    """SupCon, equation 2, a row at a time."""
    losses = []
    for z, positive, counted in zip(logits.tolist(), known.positive, known.counted, strict=True):
        chosen = [j for j, p in enumerate(positive) if p]
        if chosen:
            total = sum(math.exp(z[j]) for j, c in enumerate(counted) if c)
            losses.append(-sum(math.log(math.exp(z[j]) / total) for j in chosen) / len(chosen))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("pairing", [("same_patient",), ("same_label",), BOTH])
def test_contrast_by_brute_force(pairing: tuple[str, ...]) -> None:
    rows, columns = side([0, 1, 1, NAN], [1, 2, -1, 4]), side([1, 0, 1, NAN, 0], [2, 1, 9, -1, -1], phase=2)
    logits, known = rows.projection @ columns.projection.T / 0.07, links(rows, columns, pairing=pairing)
    assert contrast_loss(logits, known).item() == pytest.approx(brute_force_contrast(logits, known), rel=1e-5)


def test_with_one_true_partner_each_it_is_the_symmetric_loss_of_clip() -> None:
    rows, columns = side([NAN] * 4, [1, 2, 3, 4]), side([NAN] * 4, [1, 2, 3, 4], phase=1)
    logits = rows.projection @ columns.projection.T / 0.07
    known = links(rows, columns, pairing=("same_patient",))
    expected = F.cross_entropy(logits, torch.arange(4))
    torch.testing.assert_close(contrast_loss(logits, known), expected)


def test_unicl_targets_give_the_same() -> None:
    """Soft cross-entropy against label equality, rows normalised (Yang et al. 2022)."""
    rows, columns = side([0, 1, 1]), side([1, 0, 1, 1], phase=1)
    logits = rows.projection @ columns.projection.T / 0.07
    same = (rows.label[:, None] == columns.label).float()
    expected = F.cross_entropy(logits, same / same.sum(1, keepdim=True))
    known = links(rows, columns, pairing=("same_label",))
    torch.testing.assert_close(contrast_loss(logits, known), expected)


def test_label_contrast_is_supcon_of_an_independent_library() -> None:
    """pytorch-metric-learning contrasts a set with a reference set, as we do one modality with the other."""
    rows, columns = side([0, 1, 1, 0, 1]), side([1, 0, 1, 1], phase=1)
    known = links(rows, columns, pairing=("same_label",))
    ours = contrast_loss(rows.projection @ columns.projection.T / 0.07, known)
    theirs = SupConLoss(temperature=0.07)(
        rows.projection, rows.label.long(), ref_emb=columns.projection, ref_labels=columns.label.long()
    )
    torch.testing.assert_close(ours, theirs)


def test_sigmoid_contrast_by_brute_force() -> None:
    rows, columns = side([0, 1, NAN]), side([1, 0, NAN], phase=1)
    logits = rows.projection @ columns.projection.T * 10 - 10
    expected = 0.0
    for i, j in itertools.product(range(2), range(2)):  # the unknown ones take no part
        z = 1 if rows.label[i] == columns.label[j] else -1
        expected -= math.log(1 / (1 + math.exp(-z * logits[i, j].item()))) / 2
    known = links(rows, columns, pairing=("same_label",))
    assert sigmoid_loss(logits, known).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [contrast_loss, sigmoid_loss])
def test_without_links_the_loss_is_zero_and_has_a_gradient(loss) -> None:
    logits = det((2, 2)).requires_grad_()
    value = loss(logits, links(side([NAN, NAN]), side([0, 1]), pairing=BOTH))
    value.backward()
    assert value.item() == 0
    assert logits.grad.abs().sum() == 0


@pytest.mark.parametrize("loss", [contrast_loss, sigmoid_loss])
def test_left_out_pairs_have_no_gradient(loss) -> None:
    logits = det((2, 3)).requires_grad_()
    known = links(side([0, 1]), side([0, 1, NAN]), pairing=("same_label",))
    loss(logits, known).backward()
    assert (logits.grad[:, 2] == 0).all()
    assert (logits.grad[:, :2] != 0).all()


# ---------------------------------------------------------------- the term


def test_the_term_is_the_mean_of_both_directions() -> None:
    batches, network = make_batches(), ToyNetwork()
    outputs = network.outputs(batches)
    terms = build(METHODS["align_label"])(outputs, batches, step=1)
    left, right = (side_of(outputs[m], batches[m]) for m in ("mammogram", "pathology"))
    logits = left.projection @ right.projection.T / 0.07
    expected = [
        contrast_loss(z, links(a, b, pairing=("same_label",)))
        for z, a, b in ((logits, left, right), (logits.T, right, left))
    ]
    torch.testing.assert_close(terms["align"], sum(expected) / 2)


def test_two_images_of_a_patient_are_one_case() -> None:
    batch = make_batches()["mammogram"]
    case = side_of(ToyNetwork().outputs({"mammogram": batch})["mammogram"], batch)
    assert len(case) == len(batch) // 2
    assert case.pair.tolist() == list(range(8))
    assert case.label.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_small_batches_are_contrasted_with_what_is_remembered() -> None:
    objective, network, batches = build(METHODS["align_label"]), ToyNetwork(), make_batches()
    first = take_step(objective, network, {"mammogram": batches["mammogram"]})
    assert "align" not in first  # nothing of the other modality yet
    assert "link" in objective.idle_reasons["align"]
    second = take_step(objective, network, {"pathology": batches["pathology"]})
    second["align"].backward()
    assert objective.counters["align"] == 8
    assert network.parts["pathology"].align.weight.grad.abs().sum() > 0
    assert network.parts["mammogram"].align.weight.grad is None  # what is remembered is not trained


def test_memory_keeps_the_last_cases() -> None:
    memory = Memory(5, 4)
    assert len(memory.read()) == 0
    memory.push(side([0, 1, 0]))
    assert memory.read().label.tolist() == [0, 1, 0]
    memory.push(side([1, 1, NAN], [7, 8, 9]))
    assert sorted(memory.read().pair.tolist()) == [-1, -1, 7, 8, 9]
    memory.push(side([0.0] * 12, list(range(12))))
    assert sorted(memory.read().pair.tolist()) == [7, 8, 9, 10, 11]
    assert not memory.read().projection.requires_grad


def test_a_memory_of_size_zero_remembers_nothing() -> None:
    memory = Memory(0, 4)
    memory.push(side([0, 1]))
    assert len(memory.read()) == 0


def test_the_temperature_is_learned_and_bounded() -> None:
    alignment = Alignment(AlignRecipe(kind="supcon"), width=4, ledger=Ledger())
    assert alignment._scale().item() == pytest.approx(1 / 0.07, rel=1e-5)
    with torch.no_grad():
        alignment.log_scale.fill_(20.0)
    assert alignment._scale().item() == pytest.approx(100.0, rel=1e-5)
    alignment._scale().backward()
    assert alignment.log_scale.grad.item() > 0  # it can come back


def test_the_permuted_control_keeps_the_labels_and_loses_the_links() -> None:
    true = side([0.0] * 50 + [1.0] * 50, list(range(100)))
    shuffled = true.shuffled(torch.Generator().manual_seed(3))
    assert shuffled.projection is true.projection
    assert sorted(shuffled.label.tolist()) == sorted(true.label.tolist())
    assert (shuffled.pair < 50).tolist() == (shuffled.label == 0).tolist()  # label and key move together
    agree = (shuffled.label == true.label).float().mean().item()
    assert 0.3 < agree < 0.7


def test_the_permuted_control_has_other_links_than_the_method() -> None:
    batches, outputs = make_batches(), ToyNetwork().outputs(make_batches())
    values = [
        build(METHODS[n])(outputs, batches, step=1)["align"].item() for n in ("align", "align_permuted")
    ]
    assert values[0] != values[1]


def test_alignment_of_one_modality_is_not_built_and_says_so() -> None:
    recipe = recipe_with(METHODS["align"], {"modalities": ["mammogram"]})
    objective = build(recipe)
    assert objective.counters["align"] == 0
    assert objective.idle_reasons["align"] == "only one modality in training"
    assert list(objective.parameters()) == []


@pytest.mark.parametrize("kind", ["align", "align_patient", "align_siglip"])
def test_training_brings_partners_together(kind: str) -> None:
    recipe = recipe_with(METHODS[kind], {"align": {"weight": 1.0, "memory": 0}})
    objective, network, batches = build(recipe), ToyNetwork(), make_batches()
    optimizer = torch.optim.Adam([*network.parameters(), *objective.parameters()], lr=0.02)
    scores = []
    for _ in range(60):
        outputs = network.outputs(batches)
        left, right = (outputs[m].projection.detach() for m in batches)
        scores.append(retrieval(left @ right.T, torch.eye(8, dtype=torch.bool), ks=(1,)).mean_precision)
        optimizer.zero_grad()
        objective(outputs, batches, step=1)["align"].backward()
        optimizer.step()
    assert scores[-1] > scores[0] + 0.2


# ---------------------------------------------------------------- retrieval


def test_retrieval_is_that_of_scikit_learn() -> None:
    similarity = det((6, 9), 1, 0.3)
    relevant = torch.rand(6, 9, generator=torch.Generator().manual_seed(0)) < 0.3
    relevant[5] = False
    found = retrieval(similarity, relevant, ks=(1, 3))
    asked = [i for i in range(6) if relevant[i].any()]
    expected = [average_precision_score(relevant[i], similarity[i]) for i in asked]
    assert found.queries == len(asked)
    assert found.mean_precision == pytest.approx(sum(expected) / len(asked))
    top = [relevant[i][similarity[i].argsort(descending=True)[:3]].any().item() for i in asked]
    assert found.recall[3] == pytest.approx(sum(top) / len(asked))


@pytest.mark.parametrize(("relevant", "size"), [(1, 1), (1, 6), (3, 6), (6, 6)])
def test_chance_is_the_mean_over_all_orders(relevant: int, size: int) -> None:
    truth = [1] * relevant + [0] * (size - relevant)
    precisions, firsts = [], []
    for order in itertools.permutations(truth):
        hits = [i + 1 for i, hit in enumerate(order) if hit]
        precisions.append(sum((n + 1) / place for n, place in enumerate(hits)) / relevant)
        firsts.append(any(order[:2]))
    assert chance_precision(relevant, size) == pytest.approx(sum(precisions) / len(precisions))
    assert chance_recall(relevant, size, 2) == pytest.approx(sum(firsts) / len(firsts))


def test_random_projections_retrieve_at_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) < 60
    found = retrieval(torch.randn(200, 200, generator=generator), labels[:, None] == labels)
    assert found.mean_precision == pytest.approx(found.chance_precision, abs=0.01)
    assert found.recall[1] == pytest.approx(found.chance_recall[1], abs=0.1)


def test_the_modality_gap_is_the_distance_of_the_centres() -> None:
    left, right = torch.tensor([[1.0, 0.0]]).repeat(3, 1), torch.tensor([[0.0, 1.0]]).repeat(2, 1)
    assert modality_gap(left, right) == pytest.approx(math.sqrt(2))
    assert modality_gap(left, left) == 0


def test_nothing_to_find_is_nan() -> None:
    found = retrieval(torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.bool))
    assert found.queries == 0
    assert math.isnan(found.mean_precision)
