"""A network of any slides with labels: split, trained, tested, and kept as a run folder."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mammopath.cohort.splits import Fold, fold, person_marks
from mammopath.config import dump, parse
from mammopath.errors import DataError, WeightsError
from mammopath.files import append_line
from mammopath.metrics.ranking import auc
from mammopath.model.network import Network
from mammopath.parallel import device_of, threads
from mammopath.predict import Scores, prediction_table, write_table
from mammopath.progress import Track, silent
from mammopath.runs import Run, load_run, save_facts, save_model, writing_folder
from mammopath.settings import RunSettings
from mammopath.slide_settings import BagSettings
from mammopath.slides.job import RECIPE, find_features
from mammopath.slides.maps import TUMOUR, map_of
from mammopath.slides.nodes import choose_threshold
from mammopath.slides.score import score_patient, score_slide
from mammopath.slides.store import read_features
from mammopath.slides.train import Trained, bag_model, bag_network, train_bags
from mammopath.types import NODE_CLASSES, Record


@dataclass(frozen=True)
class SlideRun:
    """A loaded run of slides.

    Attributes:
        run: as any other run; its network is on the device of its settings.
        settings: of patches, trunk and bags.
        recipe: of the features that it was trained on; empty where another program made them.
        threshold: probability from which a patch counts as tumour.
    """

    run: Run
    settings: BagSettings
    recipe: str
    threshold: float

    @property
    def network(self) -> Network:
        """In evaluation mode."""
        return self.run.network


def train_slides(
    records: Sequence[Record],
    features: Path,
    out: Path,
    settings: BagSettings,
    *,
    held_out: str | None = None,
    fingerprint: str = "",
    track: Track = silent,
) -> dict[str, Any]:
    """Train on slides with labels, test on others, and write a run folder.

    Args:
        records: of a manifest; pathology with a label and with features is used, the rest is counted.
        features: folder of `mammopath slides features`, whose patches and trunk then stand in place of those
            of ``settings``; or of files ``NAME.h5`` of CLAM or TRIDENT.
        out: the run folder; must not exist.
        settings: trunk, training, seed.
        held_out: the site to leave out and test on; none keeps ``test_share`` of the patients of each apart.
        fingerprint: of the manifest, for run.json.
        track: shows progress.

    Returns:
        The facts of run.json.

    Raises:
        ConfigError: ``out`` exists, or a setting does not fit.
        DataError: no slide has features, they are of another width, or the split leaves nobody.
    """
    settings, recipe = _as_made(features, settings)
    labelled = [r for r in records if r.modality == "pathology" and r.malignant in (0, 1)]
    found = find_features(features, [r.path for r in labelled])
    used = [r for r in labelled if r.path in found]
    if not used:
        raise DataError(
            f"{features}: holds features of none of the {len(labelled)} labelled slides; make them with"
            " `mammopath slides features SLIDES --out " + f"{features}`"
        )
    files = {i: found[r.path] for i, r in enumerate(used)}
    _check_width(files[0], settings)
    part = fold(
        used,
        held_out=held_out,
        validation=settings.validation,
        test_share=settings.test_share,
        seed=settings.seed,
    )
    with threads(settings.threads), writing_folder(out) as building:
        trained = train_bags(used, files, train=part.train, val=part.val, settings=settings, track=track)
        for row in trained.log:
            append_line(building / "log.jsonl", json.dumps(row))
        facts = _test(trained, used, files, part, building) | {
            "slides": {
                "settings": dump(settings),
                "recipe": recipe,
                "threshold": _threshold(trained.network, used, files, part.val, settings=settings),
                "unused": {
                    "without label": len(records) - len(labelled),
                    "without features": len(labelled) - len(used),
                },
            }
        }
        save_model(building, trained.network.trained_state(), _run_settings(settings))
        save_facts(
            building,
            facts
            | {
                "fingerprint": fingerprint,
                "seed": settings.seed,
                "method": "slides",
                "recipe": trained.recipe,
            },
        )
    return facts


def load_slide_run(folder: Path) -> SlideRun:
    """Rebuild the network of a run of slides.

    Raises:
        WeightsError: it is a run of something else, or a file is missing, damaged or edited.
    """
    run = load_run(folder)
    told = run.facts.get("slides")
    if not isinstance(told, dict):
        raise WeightsError(f"{folder}: was not trained by `mammopath slides train`; use `mammopath predict`")
    settings = parse(BagSettings, told["settings"], where=f"{folder}/run.json")
    run.network.to(device_of(settings.device))
    return SlideRun(run, settings, told["recipe"], told["threshold"])


def score_rows(
    network: Network, records: Sequence[Record], files: Mapping[int, Path], rows: Sequence[int]
) -> Scores:
    """Scores of slides and of their patients, from all slides of a patient among the rows.

    Args:
        network: of a run of slides.
        records: all of them.
        files: of features, by row.
        rows: which to score, ascending.
    """
    scored = {i: score_slide(network, files[i]) for i in rows}
    own = defaultdict(list)
    for i in rows:
        own[records[i].patient].append(scored[i])
    patients = {patient: score_patient(network, slides) for patient, slides in own.items()}
    return Scores(
        np.array(rows, dtype=np.int64),
        np.array([scored[i].logit for i in rows]),
        np.array([patients[records[i].patient] for i in rows]),
    )


def features_of(run: SlideRun, features: Path, records: Sequence[Record]) -> dict[int, Path]:
    """Files of the features of some slides, by row, made as those that the run was trained on.

    Raises:
        WeightsError: they are of other patches or of another trunk.
        DataError: a slide has none.
    """
    told = features / RECIPE
    made_with = json.loads(told.read_text())["recipe"] if told.exists() else ""
    if made_with != run.recipe:
        raise WeightsError(
            f"{features}: are not of the patches and the trunk that {run.run.folder} was trained on;"
            " make them with its settings"
        )
    found = find_features(features, [r.path for r in records])
    lacking = [r.path for r in records if r.path not in found]
    if lacking:
        raise DataError(
            f"{features}: holds no features of {len(lacking)} slides, first {lacking[0]}: make them with"
            " `mammopath slides features`, or leave the slides out of the manifest"
        )
    return {i: found[r.path] for i, r in enumerate(records)}


def _as_made(features: Path, settings: BagSettings) -> tuple[BagSettings, str]:
    """Settings with the patches and the trunk that the features are made with, and their recipe."""
    if not (features / RECIPE).exists():
        return settings, ""
    told = json.loads((features / RECIPE).read_text())
    return parse(BagSettings, dump(settings) | told["settings"], where=str(features / RECIPE)), told["recipe"]


def _check_width(path: Path, settings: BagSettings) -> None:
    width, own = read_features(path, slice(0)).values.shape[1], bag_network(settings).shape.width
    if width != own:
        raise DataError(
            f"{path}: features of width {width}, but trunk.encoder {settings.trunk.encoder} gives {own};"
            " name the encoder that they were made with"
        )


def _run_settings(settings: BagSettings) -> RunSettings:
    """What a run of any kind keeps in config.json."""
    return RunSettings(
        name="slides",
        model=bag_model(settings),
        train=settings.train,
        seed=settings.seed,
        device=settings.device,
        threads=settings.threads,
    )


def _test(
    trained: Trained, records: Sequence[Record], files: Mapping[int, Path], part: Fold, folder: Path
) -> dict[str, Any]:
    """Score validation and test slides, write them down, and say how well the test went."""
    rows = sorted([*part.val, *part.test])
    scores = score_rows(trained.network, records, files, rows)
    named = dict.fromkeys(part.test, "test") | dict.fromkeys(part.val, "val")
    table = prediction_table(records, scores, part=named, test_split=set(part.test_split))
    write_table(folder / "predictions.parquet", table)
    tested = np.isin(scores.rows, part.test)
    labels = np.array([records[i].malignant for i in rows])
    found = float(auc(labels[tested], scores.logit[tested]))
    return {
        "held_out": part.held_out,
        "sites": {"pathology": trained.sites},
        "best_step": trained.step,
        "val_auc": None if np.isnan(trained.score) else round(trained.score, 6),
        "test_auc": None if np.isnan(found) else round(found, 6),
        "rows": {name: len(getattr(part, name)) for name in ("train", "val", "test", "dropped")},
        "people": sorted(person_marks(records[i] for i in (*part.train, *part.val))),
        "warnings": list(part.warnings),
    }


def _threshold(
    network: Network,
    records: Sequence[Record],
    files: Mapping[int, Path],
    val: Sequence[int],
    *,
    settings: BagSettings,
) -> float:
    """Chosen by validation nodes whose class is known; the usual one where there are none."""
    known = [i for i in val if records[i].attributes.get("node") in NODE_CLASSES]
    if not known:
        return TUMOUR
    maps = {i: map_of(score_slide(network, files[i]), image_id=records[i].image_id) for i in known}
    return choose_threshold(maps, records, settings)
