"""Contracts over the whole table of adaptations, on a small trained network."""

import copy
import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor

from adaptation_toys import SHAPE, batch_of, det, source_facts, stream_of, tiny_source
from mammopath.adaptation.adapt import adapt
from mammopath.adaptation.methods import ADAPTATIONS
from mammopath.adaptation.movable import head_of, movable
from mammopath.adaptation.setup import severity_logits
from mammopath.adaptation.values import Adapted, SourceFacts, Views
from mammopath.errors import AdaptationError
from mammopath.model.network import Network
from mammopath.objectives.tasks import level_probabilities
from mammopath.settings import AdaptSettings, GuardSettings, ModelSettings

MODES = ("calibrate", "online", "episodic")
OFF = GuardSettings(enabled=False)
WEIGHTS = [name for name, method in ADAPTATIONS.items() if method.moves != "nothing"]


def eager(mode: str = "calibrate", lr: float | None = 0.01) -> AdaptSettings:
    """Settings under which every method moves."""
    return AdaptSettings(mode=mode, lr=lr, margin=0.95, drop=-1.0, least_steps=0, guard=OFF)


def run(method: str, settings: AdaptSettings, *, network: Network | None = None, size: int = 8) -> Adapted:
    """Adapt to a shifted site."""
    _, stream = stream_of("spread", count=24, size=size, styled=2 if method in WEIGHTS else 3)
    return adapt(network or tiny_source(), stream, method=method, settings=settings, source=source_facts())


def state_of(network: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(v, second[n]) for n, v in first.items())


def source_scores(stream: list[Views]) -> Tensor:
    with torch.no_grad():
        return torch.cat([tiny_source()(views.plain).logit for views in stream])


# ---------------------------------------------------------------- the source and the copy


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ADAPTATIONS)
def test_the_source_stays_bit_for_bit(method: str, mode: str) -> None:
    network = copy.deepcopy(tiny_source()).train()
    before, gradients = state_of(network), [p.requires_grad for p in network.parameters()]
    result = run(method, eager(mode), network=network)
    assert same_state(before, state_of(network))
    assert network.training
    assert all(p.grad is None for p in network.parameters())
    assert [p.requires_grad for p in network.parameters()] == gradients
    assert not result.network.training
    assert result.network is not network


@pytest.mark.parametrize("method", [m for m in ADAPTATIONS if m != "none"])
def test_every_method_adapts_and_says_what_moved(method: str) -> None:
    result, before = run(method, eager()), state_of(tiny_source())
    after = state_of(result.network)
    differ = {name for name in before if not torch.equal(before[name], after[name])}
    assert differ == {m.name for m in result.report.moved} != set()
    assert result.report.decision == "adapted"
    for moved in result.report.moved:
        gone = (after[moved.name] - before[moved.name]).norm().item()
        assert moved.distance == pytest.approx(gone, rel=1e-5)
        assert moved.relative == pytest.approx(gone / max(before[moved.name].norm().item(), 1e-12), rel=1e-5)
    assert all(name.startswith("parts.mammogram.") for name in differ)


def test_style_moves_norms_and_adapters_alone() -> None:
    names = {m.name.removeprefix("parts.mammogram.") for m in run("style", eager()).report.moved}
    assert all(n.startswith(("blocks.", "norm.")) for n in names)
    assert any("beside_mlp" in n for n in names)
    assert not any("heads" in n for n in names)


@pytest.mark.parametrize("method", ["t3a", "tact"])
def test_head_methods_move_the_malignancy_head_alone(method: str) -> None:
    names = {m.name for m in run(method, eager()).report.moved}
    assert names <= {f"parts.mammogram.heads.malignancy.{n}" for n in ("weight", "bias")}


@pytest.mark.parametrize("method", ADAPTATIONS)
def test_zero_steps_are_the_source(method: str) -> None:
    _, stream = stream_of("spread", count=24, size=8)
    for mode in ("calibrate", "episodic"):
        settings = AdaptSettings(mode=mode, epochs=0, steps=0, guard=OFF)
        result = run(method, settings)
        assert same_state(state_of(result.network), state_of(tiny_source()))
        assert torch.allclose(result.scores, source_scores(stream), atol=1e-5)
        assert result.report.decision == "source"


@pytest.mark.parametrize("mode", MODES)
def test_none_is_the_source(mode: str) -> None:
    _, stream = stream_of("spread", count=24, size=8)
    result = run("none", AdaptSettings(mode=mode))
    assert torch.equal(result.scores, source_scores(stream))
    assert (result.report.decision, result.report.moved, result.report.reasons) == ("source", (), ())


@pytest.mark.parametrize("method", ADAPTATIONS)
def test_the_same_again_gives_the_same(method: str) -> None:
    first, second = run(method, eager("online")), run(method, eager("online"))
    assert torch.equal(first.scores, second.scores)
    assert same_state(state_of(first.network), state_of(second.network))
    assert first.report == second.report


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ADAPTATIONS)
def test_one_case_at_a_time(method: str, mode: str) -> None:
    _, stream = stream_of("spread", count=3, size=1)
    result = adapt(tiny_source(), stream, method=method, settings=eager(mode), source=source_facts())
    assert result.scores.shape == (3,)
    assert result.scores.isfinite().all()


@pytest.mark.parametrize("method", WEIGHTS)
def test_the_severity_head_can_guide(method: str) -> None:
    settings = eager().model_copy(update={"head": "severity"})
    assert run(method, settings).report.moved


def test_severity_logits_are_the_categories_of_the_ordinal_head() -> None:
    corn = det((5, 3), 2.0)
    assert torch.allclose(severity_logits(corn).softmax(1), level_probabilities(corn), atol=1e-4)


def test_the_result_answers_batches_of_both_modalities() -> None:
    result = run("tent", eager())
    _, stream = stream_of("none", count=4, size=4)
    assert not torch.equal(result(stream[0].plain).logit, source_scores(stream))
    tissue = batch_of(stream[0].plain.tokens, modality="pathology", prefix=1)
    with torch.no_grad():
        assert torch.equal(result(tissue).logit, tiny_source()(tissue).logit)


def test_labels_are_not_read() -> None:
    _, stream = stream_of("spread", count=24, size=8)
    told = [
        dataclasses.replace(
            v, plain=dataclasses.replace(v.plain, malignant=torch.ones(8), severity=torch.ones(8))
        )
        for v in stream
    ]
    one, two = (
        adapt(tiny_source(), s, method="shot_im", settings=eager(), source=source_facts())
        for s in (stream, told)
    )
    assert torch.equal(one.scores, two.scores)


# ---------------------------------------------------------------- report and modes


def test_the_report_tells_cases_losses_and_hashes() -> None:
    report = run("sar", eager("online", lr=0.01).model_copy(update={"margin": 0.5})).report
    assert (report.method, report.mode, report.modality) == ("sar", "online", "mammogram")
    assert report.cases == report.used + report.left_out == 24
    assert 0 < report.used < 24
    assert 0 < len(report.losses) <= 3
    assert report.rows == tuple(range(24))
    assert len(set(report.hashes)) == 24
    assert all(len(h) == 64 for h in report.hashes)
    json.dumps(dataclasses.asdict(report))


def test_hashes_do_not_depend_on_padding() -> None:
    _, stream = stream_of("none", count=4, size=4)
    batch = stream[0].plain
    padded = dataclasses.replace(
        batch,
        tokens=torch.cat([batch.tokens, torch.zeros(4, 3, SHAPE.width)], dim=1),
        valid=torch.cat([batch.valid, torch.zeros(4, 3, dtype=torch.bool)], dim=1),
        lesion=torch.cat([batch.lesion, torch.full((4, 3), math.nan)], dim=1),
    )
    one, two = (
        adapt(
            tiny_source(), [Views(b)], method="none", settings=AdaptSettings(), source=SourceFacts()
        ).report.hashes
        for b in (batch, padded)
    )
    assert one == two


def test_calibration_takes_the_first_cases_and_answers_all() -> None:
    settings = eager().model_copy(update={"cases": 9})
    result = run("tent", settings, size=4)
    assert result.report.used == 12  # whole batches that hold nine cases
    assert result.report.cases == len(result.scores) == 24
    _, stream = stream_of("spread", count=24, size=4)
    again = torch.cat([result(views.plain).logit for views in stream])
    assert torch.allclose(result.scores, again, atol=1e-6)


def test_more_calibration_cases_than_there_are_take_them_all() -> None:
    assert run("tent", eager().model_copy(update={"cases": 1000})).report.used == 24


def test_few_cases_are_passed_over_until_there_are_enough_steps() -> None:
    report = run("tent", eager().model_copy(update={"least_steps": 50})).report
    assert (report.rules["passes"], report.rules["steps"]) == (17, 51)  # three batches
    assert run("tent", eager().model_copy(update={"least_steps": 50, "epochs": 0})).report.used == 0
    assert (
        run("t3a", eager().model_copy(update={"least_steps": 50})).report.used == 24
    )  # counts each case once


def test_deyo_refuses_where_nothing_notices_what_is_hidden() -> None:
    readout = {"mammogram": (2,), "pathology": (2,)}
    settings = ModelSettings(adapter="none", modality_norms=True, cut={"mammogram": 2}, readout=readout)
    network = Network(settings, SHAPE)
    _, stream = stream_of("spread", count=8, size=8)
    with pytest.raises(AdaptationError, match="no block lies above the cut"):
        adapt(network, stream, method="deyo", settings=eager(), source=source_facts())


def test_deyo_looks_at_the_hidden_view_that_comes_with_a_case() -> None:
    """A view that is as sure as the case itself shows that its call does not depend on shape."""
    _, stream = stream_of("spread", count=24, size=8)
    same = [dataclasses.replace(views, hidden=views.plain) for views in stream]
    settings = eager().model_copy(update={"drop": 0.0})
    report = adapt(tiny_source(), same, method="deyo", settings=settings, source=source_facts()).report
    assert report.used == 0
    assert run("deyo", settings).report.used > 0


def test_an_episode_does_not_reach_the_next() -> None:
    _, stream = stream_of("spread", count=24, size=8)
    whole = run("tent", eager("episodic", lr=0.1))
    alone = adapt(
        tiny_source(), stream[2:], method="tent", settings=eager("episodic", lr=0.1), source=source_facts()
    )
    assert torch.equal(whole.scores[16:], alone.scores)
    assert whole.report.decision == "adapted"  # the answers are, the network that is returned is not
    assert whole.report.moved == ()
    assert same_state(state_of(whole.network), state_of(tiny_source()))
    assert not torch.equal(whole.scores, source_scores(stream))


def test_online_answers_come_from_the_state_before_the_update() -> None:
    _, stream = stream_of("spread", count=24, size=8)
    result = run("tent", eager("online", lr=0.1))
    assert torch.equal(result.scores[:8], source_scores(stream[:1]))
    assert not torch.equal(result.scores[8:], source_scores(stream[1:]))


def test_supports_beyond_the_memory_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    many = run("t3a", eager().model_copy(update={"supports": None}))
    single = run("t3a", eager().model_copy(update={"supports": 1}))
    monkeypatch.setattr("mammopath.adaptation.heads.MOST_SUPPORTS", 1)
    few = run("t3a", eager().model_copy(update={"supports": None}))
    assert torch.equal(few.scores, single.scores)
    assert not torch.equal(few.scores, many.scores)


# ---------------------------------------------------------------- known defects of public versions


def test_the_anchor_binds() -> None:
    """In the public code the anchor is about statistics that the network does not have, and is zero."""
    loose, tight = (
        run("style", AdaptSettings(guard=OFF, epochs=3, lr=0.01, radius=100.0, anchor=a)).report
        for a in (0.0, 100.0)
    )
    assert math.hypot(*(m.distance for m in tight.moved)) < 0.5 * math.hypot(
        *(m.distance for m in loose.moved)
    )
    assert tight.losses[1] > loose.losses[1]


def test_the_radius_holds() -> None:
    radius = 0.002
    report = run("style", AdaptSettings(guard=OFF, epochs=3, lr=0.05, radius=radius, anchor=0.0)).report
    start = movable(tiny_source(), "mammogram", "style")
    length = math.hypot(*(v.norm().item() for v in start.values()))
    assert math.hypot(*(m.distance for m in report.moved)) <= radius * length * 1.001


def test_rolling_back_restores_everything() -> None:
    """In the public code a reset restores batch statistics alone: nothing."""
    settings = AdaptSettings(mode="online", lr=50.0, guard=GuardSettings(min_cases=8, window=32))
    result = run("style", settings.model_copy(update={"anchor": 0.0, "radius": 50.0}))
    assert result.report.rollbacks > 0
    assert result.report.reasons
    assert same_state(state_of(result.network), state_of(tiny_source()))


@pytest.mark.parametrize("method", ["style", "tent", "shot_im"])
def test_dropout_is_off(method: str) -> None:
    """In the public code the network is in training mode: dropout makes every answer another."""
    network = copy.deepcopy(tiny_source()).train()
    assert any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in network.modules())
    torch.manual_seed(1)
    first = run(method, eager(), network=network)
    torch.manual_seed(2)
    assert torch.equal(run(method, eager(), network=network).scores, first.scores)


def test_sar_and_deyo_leave_the_top_quarter_of_blocks_alone() -> None:
    deep = Network(
        ModelSettings(
            readout={"mammogram": (8,)}, cut={"mammogram": 0}, token_pool={"mammogram": 1}, adapter="none"
        ),
        dataclasses.replace(SHAPE, depth=8),
    )
    names = movable(deep, "mammogram", "lower norms")
    assert {int(n.split(".")[3]) for n in names} == set(range(6))
    assert all(".norm" in n for n in names)
    assert len(movable(deep, "mammogram", "norms")) == len(names) + 2 * 2 * 2 + 4


# ---------------------------------------------------------------- bad input


def refused(stream: list[Views], *, method: str = "tent", facts: SourceFacts | None = None) -> str:
    """The message of the error."""
    with pytest.raises(AdaptationError) as error:
        adapt(tiny_source(), stream, method=method, settings=AdaptSettings(), source=facts or source_facts())
    return str(error.value)


def test_what_cannot_be_adapted_to_is_named() -> None:
    _, stream = stream_of("none", count=8, size=4)
    plain = stream[0].plain
    broken = plain.tokens.clone()
    broken[2, 0, 0] = float("nan")
    tissue = dataclasses.replace(plain, modality="pathology")
    assert "no cases" in refused([])
    assert "[2]" in refused([Views(plain.with_tokens(broken))])
    assert "pathology" in refused([Views(plain), Views(tissue)])
    assert "other cases" in refused([Views(plain, stream[1].styled)])
    assert "style-only views" in refused([Views(plain)], method="tact")
    assert "style-only views" in refused([stream[0], Views(plain)], method="tact_adapt")
    assert "no adaptation 'tents'" in refused(stream, method="tents")
    assert "24 wide" in refused([Views(plain.with_tokens(torch.zeros(4, 10, 24)))])
    assert "prevalence" in refused(stream, facts=SourceFacts(1.0))
    assert "pathology" in refused(stream, facts=SourceFacts(0.5, probe=(tissue,)))


def test_a_network_of_the_other_modality_is_refused() -> None:
    settings = ModelSettings(readout={"pathology": (2,)}, cut={"pathology": 0}, token_pool={"pathology": 1})
    _, stream = stream_of("none", count=4, size=4)
    with pytest.raises(AdaptationError, match="these are mammogram"):
        adapt(Network(settings, SHAPE), stream, method="tent", settings=AdaptSettings(), source=SourceFacts())


def test_a_network_without_parts_that_move_is_refused() -> None:
    settings = tiny_source().settings.model_copy(update={"modality_norms": False, "adapter": "none"})
    _, stream = stream_of("none", count=4, size=4)
    with pytest.raises(AdaptationError, match="modality_norms"):
        adapt(
            Network(settings, SHAPE), stream, method="style", settings=AdaptSettings(), source=SourceFacts()
        )


def test_severity_shares_must_be_four() -> None:
    _, stream = stream_of("none", count=4, size=4)
    settings, facts = AdaptSettings(head="severity"), SourceFacts(0.5, (0.5, 0.5))
    with pytest.raises(AdaptationError, match="4 shares"):
        adapt(tiny_source(), stream, method="tent", settings=settings, source=facts)


def test_a_source_that_answers_nan_is_named() -> None:
    network = copy.deepcopy(tiny_source())
    with torch.no_grad():
        head_of_mammogram = network.of("mammogram").heads.malignancy
        head_of_mammogram.weight.fill_(float("inf"))
    _, stream = stream_of("none", count=4, size=4)
    with pytest.raises(AdaptationError, match="not finite"):
        adapt(network, stream, method="none", settings=AdaptSettings(), source=SourceFacts())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ADAPTATIONS)
def test_awkward_sites_never_break_the_answers(method: str, mode: str) -> None:
    """One case; constant images; one class."""
    _, stream = stream_of("none", count=20, size=20)
    one = [Views(_rows(stream[0].plain, 1), tuple(_rows(b, 1) for b in stream[0].styled))]
    flat = stream[0].plain.with_tokens(torch.full_like(stream[0].plain.tokens, 0.3))
    _, benign = stream_of("none", count=40, size=20, order="sorted")
    settings = AdaptSettings(mode=mode, lr=0.1)
    for site in (one, [Views(flat, (flat, flat))], benign[:1]):
        result = adapt(tiny_source(), site, method=method, settings=settings, source=source_facts())
        assert result.scores.isfinite().all()
        assert all(p.isfinite().all() for p in result.network.parameters())
        if len(result.scores) == 1:
            assert torch.allclose(result.scores, source_scores(site))


def test_a_head_of_one_modality_is_its_own() -> None:
    mammogram, pathology = (head_of(tiny_source(), m) for m in ("mammogram", "pathology"))
    assert mammogram.names != pathology.names
    assert not torch.equal(mammogram.weight, pathology.weight)


def test_a_site_too_small_to_judge_is_answered_by_the_source() -> None:
    _, stream = stream_of("none", count=6, size=2)
    settings = AdaptSettings(mode="online", lr=0.1)
    result = adapt(tiny_source(), stream, method="tent", settings=settings, source=source_facts())
    assert torch.allclose(result.scores, source_scores(stream), atol=1e-6)
    assert result.report.reasons == ("6 cases are too few to judge; it takes 48",)
    assert result.report.decision == "source"


def _rows(batch, count: int):
    cut = {n: v[:count] for n, v in vars(batch).items() if isinstance(v, Tensor)}
    return dataclasses.replace(batch, **cut)
