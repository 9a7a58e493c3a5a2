"""Run folders: a trained model as files a person can read; never overwritten, never half-written.

model.safetensors   what was trained, and no more
config.json         resolved settings
run.json            versions, seed, sites, data fingerprint, timings, hashes
log.jsonl           a row per validation
predictions.parquet scores of validation and test images
"""

import json
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from mammopath import RESEARCH_USE_ONLY, __version__
from mammopath.config import dump, parse, parse_saved
from mammopath.errors import ConfigError, WeightsError
from mammopath.files import sha256, write_text, writing
from mammopath.model.network import Network
from mammopath.model.weights import build_network
from mammopath.objectives.recipe import Recipe
from mammopath.settings import RunSettings

SEALED = (
    "config.json",
    "confidence.json",
    "familiar.safetensors",
    "evidence.json",
    "evidence.safetensors",
    "predictions.parquet",
)
"""Files whose hashes run.json keeps, because a new case is judged by them."""

PACKAGES = ("torch", "numpy", "polars", "pydicom", "pillow", "scikit-learn")


@dataclass(frozen=True)
class Run:
    """A loaded run: the network in evaluation mode, its settings, and the facts of run.json."""

    folder: Path
    network: Network
    settings: RunSettings
    facts: Mapping[str, Any]


@contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """A folder under construction that becomes ``folder`` when the block succeeds.

    Raises:
        ConfigError: ``folder`` exists already; runs are never overwritten.
    """
    if folder.exists():
        raise ConfigError(f"{folder}: there is something already; name another folder, or remove it")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def save_model(folder: Path, state: Mapping[str, Tensor], settings: RunSettings) -> None:
    """Write weights and settings into a run folder under construction."""
    with writing(folder / "model.safetensors") as path:
        safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, path)
    write_text(folder / "config.json", json.dumps(dump(settings), indent=2))


def save_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write run.json: the facts given, versions of what ran, hashes of the weights and of what they need."""
    model, trunk = folder / "model.safetensors", _trunk_of(folder)
    common = {
        "notice": RESEARCH_USE_ONLY,
        "model_sha256": sha256(model) if model.exists() else None,
        "trunk_sha256": sha256(trunk) if trunk and trunk.exists() else None,
        "files_sha256": {name: sha256(folder / name) for name in SEALED if (folder / name).exists()},
        "versions": versions(),
    }
    write_text(folder / "run.json", json.dumps(common | dict(facts), indent=2))


def _trunk_of(folder: Path) -> Path | None:
    """The weights file of the trunk that a run under construction names, if it names one."""
    if not (folder / "config.json").exists():
        return None
    named = json.loads((folder / "config.json").read_text()).get("model", {}).get("weights")
    return Path(named) if named else None


def versions() -> dict[str, str]:
    """Versions of this program and of the packages that numbers depend on."""
    found = {"mammopath": __version__, "python": platform.python_version(), "platform": sys.platform}
    return found | {name: version(name) for name in PACKAGES}


def load_run(folder: Path) -> Run:
    """Rebuild the network of a run.

    Raises:
        WeightsError: a file is missing, damaged, edited by hand, or of another architecture; or the trunk's
            weights file is not the one that the run was trained on.
    """
    try:
        config, facts = (_object(folder / name) for name in ("config.json", "run.json"))
        settings = parse_saved(RunSettings, _only_run_keys(config))
        state = safetensors.torch.load_file(folder / "model.safetensors")
    except FileNotFoundError as error:
        raise WeightsError(f"{folder} is not a run folder: {error.filename} is missing") from None
    except (ValueError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{folder}: a file is damaged: {error}; train the run again") from None
    _check_hashes(folder, facts)
    _check_trunk(folder, settings, facts)
    network = build_network(settings.model)
    network.load_trained_state(state)
    return Run(folder, network.eval(), settings, facts)


def trained(run: Run, ingredient: str) -> bool:
    """Whether an ingredient of a run's method really ran in training, as its counters tell."""
    counters = run.facts.get("counters")
    return isinstance(counters, dict) and bool(counters.get(ingredient, 0))


def recipe_of(run: Run) -> Recipe:
    """The method that a run was trained with; the defaults where run.json does not tell.

    Raises:
        ConfigError: run.json tells of a recipe that there is not.
    """
    return parse(Recipe, run.facts.get("recipe", {}), where=f"{run.folder}/run.json, recipe")


def _object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ValueError: it holds something else, or is no JSON.
    """
    told = json.loads(path.read_text())
    if not isinstance(told, dict):
        raise ValueError(f"{path.name} holds {type(told).__name__}, not an object")
    return told


def _check_hashes(folder: Path, facts: Mapping[str, Any]) -> None:
    """Every sealed file is one that run.json tells of, and as it tells.

    Raises:
        WeightsError: one is not.
    """
    if sha256(folder / "model.safetensors") != facts.get("model_sha256"):
        raise WeightsError(f"{folder}/model.safetensors is not the file that run.json tells of")
    if wrong := [k for k in ("recipe", "sites", "counters") if not isinstance(facts.get(k, {}), dict)]:
        raise WeightsError(f"{folder}/run.json is damaged ({wrong[0]} is no object); train the run again")
    told = facts.get("files_sha256")
    if not isinstance(told, dict):
        raise WeightsError(f"{folder}/run.json tells no hashes (files_sha256); train the run again")
    for name in dict.fromkeys((*told, *SEALED)):
        there = (folder / name).exists()
        if there != (name in told) or (there and sha256(folder / name) != told[name]):
            raise WeightsError(f"{folder}/{name} is not the file that run.json tells of; train the run again")


def _check_trunk(folder: Path, settings: RunSettings, facts: Mapping[str, Any]) -> None:
    path, expected = settings.model.weights, facts.get("trunk_sha256")
    if path and expected and path.exists() and sha256(path) != expected:
        raise WeightsError(
            f"{path} is not the trunk that {folder} was trained on (SHA-256 {str(expected)[:16]}...);"
            " put that file back, or train the run again"
        )


def _only_run_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k in RunSettings.model_fields}
