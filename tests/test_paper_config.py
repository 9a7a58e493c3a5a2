"""The study of the paper, as configured: data sets, units, every baseline, method and adaptation, seeds."""

import json
from pathlib import Path

from typer.testing import CliRunner

from mammopath.adaptation.methods import ADAPTATIONS
from mammopath.cli.app import app
from mammopath.config import load
from mammopath.evaluate import units_of
from mammopath.experiment import BASELINES
from mammopath.model.encoders import ENCODERS
from mammopath.model.tuning import check_settings
from mammopath.objectives.methods import METHODS, method_recipe
from mammopath.settings import LodoSettings
from mammopath.sources import SOURCES

PAPER = Path(__file__).parent.parent / "configs" / "paper.yaml"
SETTINGS = load(LodoSettings, PAPER, [])


def test_it_names_the_five_data_sets_and_five_seeds():
    named = [s.source for s in SETTINGS.data.sources]
    assert named == ["cbis_ddsm", "inbreast", "bach", "camelyon16", "camelyon17"]
    assert set(named) <= set(SOURCES)
    assert len(set(SETTINGS.seeds)) >= 5
    assert SETTINGS.select == "source_val"
    assert SETTINGS.in_domain
    assert SETTINGS.held_out == ()


def test_every_baseline_method_and_adaptation_is_a_row():
    assert set(SETTINGS.methods) == {*BASELINES, *METHODS}
    assert set(SETTINGS.adaptation) == {"none", *ADAPTATIONS}
    for name in set(SETTINGS.methods) - set(BASELINES):
        assert method_recipe(name, {}).caption


def test_units_are_those_of_each_data_set():
    units = {s: units_of(SETTINGS.data).of(s) for s in ("cbis_ddsm", "bach", "camelyon17_3")}
    assert units == {"cbis_ddsm": "breast", "bach": "image", "camelyon17_3": "slide"}


def test_the_model_can_be_built_as_configured():
    shape = ENCODERS[SETTINGS.model.encoder].shape
    check_settings(SETTINGS.model, shape)
    for part in (SETTINGS.prepare.mammogram, SETTINGS.prepare.pathology):
        assert part.height % shape.patch == part.width % shape.patch == 0


def test_it_can_be_shown_and_the_other_studies_still_load():
    result = CliRunner().invoke(app, ["config", "show", str(PAPER)])
    assert result.exit_code == 0, result.output
    assert "camelyon17" in result.output
    for path in PAPER.parent.glob("*.yaml"):
        assert json.loads(load(LodoSettings, path, []).model_dump_json())["name"]
