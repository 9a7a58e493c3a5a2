"""Configuration: unknown keys, changes, schema, and every file that ships."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mammopath.config import COMMANDS, dump, load, parse, parse_saved, schema
from mammopath.errors import ConfigError
from mammopath.settings import AdaptSettings, LodoSettings, RunSettings

ROOT = Path(__file__).parent.parent


def test_an_unknown_key_is_an_error_that_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown key train\.stepz; did you mean 'steps'\?"):
        parse(RunSettings, {"train": {"stepz": 3}})


def test_an_unknown_key_deep_in_a_list_is_found() -> None:
    source = {"source": "mias", "root": "x", "domian": "y"}
    with pytest.raises(ConfigError, match="did you mean 'domain'"):
        parse(RunSettings, {"data": {"sources": [source]}})


def test_a_bad_value_names_its_key_and_itself() -> None:
    with pytest.raises(ConfigError, match=r"train\.lr: .*greater than 0.*-1"):
        parse(RunSettings, {"train": {"lr": -1}})


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(RunSettings, {"train": {"lr": -1}, "sed": 1})
    assert "train.lr" in str(caught.value)
    assert "did you mean 'seed'" in str(caught.value)


def test_changes_reach_nested_keys_and_keep_yaml_types() -> None:
    settings = load(LodoSettings, None, ["train.lr=0.5", "seeds=[1, 2]", "model.cut.mammogram=3"])
    assert settings.train.lr == 0.5
    assert settings.seeds == (1, 2)
    assert settings.model.cut["mammogram"] == 3


@pytest.mark.parametrize("change", ["train.lr", "=3", "seed.x=1", "seed=0"])
def test_a_change_must_be_a_key_and_a_value(change: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 4")
    if change == "seed=0":
        assert load(RunSettings, path, [change]).seed == 0
    else:
        with pytest.raises(ConfigError, match="--set"):
            load(RunSettings, path, [change])


@pytest.mark.parametrize(("text", "what"), [("a: [", "not a readable YAML"), ("- a", "keys and values")])
def test_a_file_that_is_no_configuration_is_refused(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=what):
        load(RunSettings, path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(RunSettings, tmp_path / "none.yaml")


@given(seed=st.integers(0, 2**31), lr=st.floats(1e-6, 1.0), sites=st.lists(st.text(min_size=1), max_size=3))
def test_settings_survive_json(seed: int, lr: float, sites: list[str]) -> None:
    settings = parse(LodoSettings, {"seed": seed, "train": {"lr": lr}, "held_out": sites})
    assert parse(LodoSettings, json.loads(json.dumps(dump(settings)))) == settings


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_a_schema_is_described(command: str) -> None:
    found = json.loads(schema(command))
    parts = [found, *found["$defs"].values()]
    keys = [(part["title"], key, value) for part in parts for key, value in part["properties"].items()]
    undescribed = [f"{title}.{key}" for title, key, v in keys if "description" not in v and "$ref" not in v]
    assert undescribed == []


def test_the_guard_is_switched_off_in_yaml(tmp_path: Path) -> None:
    """``on`` is a boolean in YAML 1.1, so it cannot be a key."""
    (tmp_path / "c.yaml").write_text("guard:\n  enabled: false\n")
    assert not load(AdaptSettings, tmp_path / "c.yaml").guard.enabled


def test_a_saved_configuration_may_hold_keys_that_are_gone() -> None:
    saved = {"prepare": {"draws": 1, "styled": 1}, "adapt": {"guard": {"on": True}}}
    assert parse_saved(LodoSettings, saved).prepare.draws == 1
    assert saved["prepare"]["styled"] == 1
    with pytest.raises(ConfigError, match="styled"):
        parse(LodoSettings, saved)


def test_a_command_without_configuration_has_no_schema() -> None:
    with pytest.raises(ConfigError, match="takes no configuration"):
        schema("doctor")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_configuration_that_ships_is_read(path: Path) -> None:
    settings = load(LodoSettings, path)
    assert set(yaml.safe_load(path.read_text())) <= set(dump(settings))
