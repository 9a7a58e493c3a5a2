"""A run of slides on new slides: scores of slides and patients, maps of tumour, detections, as files."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from mammopath import RESEARCH_USE_ONLY
from mammopath.errors import ConfigError, DataError, WeightsError
from mammopath.files import write_text
from mammopath.images.slide_spacing import spacing_of
from mammopath.progress import Track, silent
from mammopath.runs import versions
from mammopath.slides.extract import extract
from mammopath.slides.job import Job, Outcome, find_features, name_slides
from mammopath.slides.learn import SlideRun
from mammopath.slides.maps import map_of, pieces
from mammopath.slides.outlines import write_geojson
from mammopath.slides.score import SlideScore, score_patient, score_slide
from mammopath.slides.summary import write_csv
from mammopath.slides.written import DETECTION, detection, draw, write_map
from mammopath.types import UNKNOWN, Spacing

DONE = "predictions.json"
"""Appears last: a folder that holds it is finished."""


@dataclass(frozen=True)
class Asked:
    """Slides to predict.

    Attributes:
        paths: of the slides.
        patients: by file name of the slide, or by that without suffix; a slide that is not there is a
            patient of its own.
        spacings: of level-0 pixels by name, in place of headers.
        features: folder of features to take; none makes them beside the predictions.
    """

    paths: Sequence[Path]
    patients: Mapping[str, str]
    spacings: Mapping[str, Spacing]
    features: Path | None = None


@dataclass(frozen=True)
class Answer:
    """What a run says of one slide.

    Attributes:
        slide, path, patient: whose it is.
        score: probability of malignancy, uncalibrated. patient_score: of all of the patient's slides that
            could be read. Both NaN where nothing could be read.
        patches: how many it rests on. pieces: of tumour. longest_um: the longest of them.
        note: what is missing, and why.
    """

    slide: str
    path: str
    patient: str
    score: float = UNKNOWN
    patient_score: float = UNKNOWN
    patches: int = 0
    pieces: int = 0
    longest_um: float = 0.0
    note: str = ""


def predict_slides(
    run: SlideRun, asked: Asked, out: Path, *, workers: int = 0, track: Track = silent
) -> list[Answer]:
    """Score slides, map their tumour, and write it all down.

    ``out`` gets ``predictions.csv``, ``detections.csv``, ``maps/NAME.npz``, ``.png`` and ``.geojson``,
    and last ``predictions.json``. Features are made as of `mammopath slides features`; a command
    that was stopped goes on.

    Args:
        run: a run of slides.
        asked: the slides.
        out: folder of the predictions; a finished one is never overwritten.
        workers: processes for features; 0 makes them in this one (``extract``).
        track: shows progress.

    Raises:
        ConfigError: ``out`` holds finished predictions.
        WeightsError: the trunk is not the one that the run was trained on.
    """
    if (out / DONE).exists():
        raise ConfigError(f"{out}: holds finished predictions; name another folder")
    slides = name_slides(asked.paths)
    files, notes = _features(run, slides, asked, out, workers=workers, track=track)
    names, answers, told = list(slides), [], []
    embedded: defaultdict[str, list[SlideScore]] = defaultdict(list)
    for i in track(range(len(names)), "maps", len(names)):
        name, path = names[i], slides[names[i]]
        patient = asked.patients.get(path.name) or asked.patients.get(path.stem) or name
        answer = Answer(name, str(path), patient, note=notes.get(name, ""))
        if name in files:
            score = score_slide(run.network, files[name])
            embedded[patient].append(_light(score))
            answer, found = _answer(answer, score, run, out, spacing=spacing_of(path, asked.spacings))
            told += found
        answers.append(answer)
    patients = {p: _probability(score_patient(run.network, own)) for p, own in embedded.items()}
    answers = [replace(a, patient_score=patients.get(a.patient, UNKNOWN)) for a in answers]
    _write(out, run, answers, told)
    return answers


def read_patients(path: Path) -> dict[str, str]:
    """Patients by slide: a CSV with the columns ``slide`` and ``patient``, as a laboratory's table has them.

    Raises:
        DataError: no such file, a column is missing, or a slide stands there with two patients.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a table of patients ({error})") from None
    if not rows or not {"slide", "patient"} <= rows[0].keys():
        raise DataError(f"{path}: needs the columns slide,patient in its first line, and rows")
    found: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        name, patient = Path((row["slide"] or "").replace("\\", "/")).name, (row["patient"] or "").strip()
        if patient and found.setdefault(name, patient) != patient:
            raise DataError(f"{path}, line {line}: {name} stands twice, with different patients")
    return found


def _features(
    run: SlideRun, slides: Mapping[str, Path], asked: Asked, out: Path, *, workers: int, track: Track
) -> tuple[dict[str, Path], dict[str, str]]:
    """Files of features by slide, and what is missing or odd."""
    if asked.features:
        found = find_features(asked.features, list(slides.values()))
        notes = {name: "has no features" for name, path in slides.items() if path not in found}
        return {name: found[path] for name, path in slides.items() if path in found}, notes
    if not run.recipe:
        raise ConfigError(f"{run.run.folder}: was trained on features of another program; give --features")
    job = Job(out / "features", run.settings, asked.spacings)
    outcomes = extract(slides, job, workers=workers, track=track)
    made_with = json.loads((job.out / "recipe.json").read_text())["recipe"]
    if made_with != run.recipe:
        raise WeightsError(
            f"{run.run.folder}: the weights of the trunk are not those of its training; put that file back"
        )
    notes = {o.slide: _note(o) for o in outcomes}
    return {o.slide: job.features(o.slide) for o in outcomes if o.patches}, notes


def _note(outcome: Outcome) -> str:
    told = [] if outcome.verdict == "good" else [f"{outcome.verdict}: {outcome.why}".removesuffix(": ")]
    told += [f"{outcome.skipped} patches could not be read"] if outcome.skipped else []
    return "; ".join([*told, *outcome.notes])


def _answer(
    answer: Answer, score: SlideScore, run: SlideRun, out: Path, *, spacing: Spacing | None
) -> tuple[Answer, list[dict[str, object]]]:
    """A scored slide with its map written down, and its detections."""
    answer = replace(answer, score=_probability(score.logit), patches=len(score.tumour))
    try:
        found = map_of(score, image_id=answer.slide)
    except DataError as error:  # features of other programs may not tell where they lie
        return replace(answer, note=_joined(answer.note, str(error))), []
    told = sorted(pieces(found, threshold=run.threshold), key=lambda p: -p.confidence)
    rows = [detection(answer.slide, piece, found) for piece in told]
    write_map(out / "maps" / f"{answer.slide}.npz", found, score, threshold=run.threshold)
    facts = {"slide": answer.slide, "run": run.run.folder.name}
    write_geojson(out / "maps" / f"{answer.slide}.geojson", found, told, facts=facts)
    note = draw(out / "maps" / f"{answer.slide}.png", Path(answer.path), found, told, spacing=spacing)
    longest = max((float(str(row["length_um"])) for row in rows), default=0.0)
    return replace(answer, pieces=len(rows), longest_um=longest, note=_joined(answer.note, note)), rows


def _light(score: SlideScore) -> SlideScore:
    """What a patient's score needs of a slide, so that the patches of many slides never stand in memory."""
    nothing = np.zeros(0)
    places = replace(score.places, values=score.places.values[:0], corners=score.places.corners[:0])
    return replace(score, tumour=nothing, attention=nothing, places=places)


def _probability(logit: float) -> float:
    return 1 / (1 + math.exp(-max(min(logit, 700.0), -700.0)))


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _write(out: Path, run: SlideRun, answers: Sequence[Answer], rows: Sequence[Mapping[str, object]]) -> None:
    told = [{key: _known(value) for key, value in asdict(answer).items()} for answer in answers]
    write_csv(out / "detections.csv", DETECTION, rows)
    write_csv(out / "predictions.csv", tuple(asdict(Answer("", "", ""))), told)
    whole = {
        "notice": RESEARCH_USE_ONLY,
        "run": str(run.run.folder),
        "model_sha256": run.run.facts["model_sha256"],
        "threshold": run.threshold,
        "versions": versions(),
        "slides": told,
    }
    write_text(out / DONE, json.dumps(whole, indent=1, allow_nan=False))


def _known(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value
