"""Cases on disk: one folder each, whole or not at all, and one line each in ``predictions.jsonl``."""

import json
import re
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mammopath import RESEARCH_USE_ONLY
from mammopath.case.page import write_page
from mammopath.case.pictures import album, link_picture
from mammopath.case.predictor import Predictor
from mammopath.case.values import Case, Prediction
from mammopath.errors import ConfigError, MammopathError
from mammopath.files import append_line, read_lines, write_text
from mammopath.maps.overlay import save, sheet
from mammopath.progress import Track, silent
from mammopath.runs import writing_folder
from mammopath.types import Skipped

LINES, FAILED, BATCH = "predictions.jsonl", "failed.json", "batch.json"


@dataclass(frozen=True)
class Predicted:
    """What became of a batch of cases; ``before`` names those that were there already."""

    predictions: tuple[Prediction, ...]
    failed: tuple[Skipped, ...]
    before: tuple[str, ...] = ()


def predict_cases(
    predictor: Predictor, cases: Sequence[Case], out: Path, *, track: Track = silent
) -> Predicted:
    """Predict every case into ``out``; one that fails is listed in ``failed.json``, the others go on.

    A folder of the same run is gone on with: cases that are finished are left as they are.

    Args:
        predictor: the run.
        cases: in the order in which they are done.
        out: folder to make.
        track: shows progress: of cases, or of a lone case how far its slides are.

    Raises:
        ConfigError: ``out`` holds something else already, or two cases have one name.
    """
    names = [folder_name(c.name) for c in cases]
    counts = Counter(n.lower() for n in [*names, LINES, FAILED, BATCH])
    if twice := [n for n in names if counts[n.lower()] > 1]:
        raise ConfigError(f"two cases would be written to {twice[0]}; give them names of their own")
    _open(out, predictor)
    done = _finished(out, dict(zip(names, cases, strict=True)))
    found: list[Prediction] = []
    failed: list[Skipped] = []
    outer, inner = (silent, track) if len(cases) == 1 else (track, silent)  # one bar at a time
    for i in outer(range(len(cases)), "cases", len(cases)):
        if names[i] in done:
            continue
        try:
            found.append(_written(predictor, cases[i], out, names[i], track=inner))
        except Exception as error:  # whatever is wrong with one case, the others go on
            failed.append(Skipped(cases[i].name, *_reason(error)))
            _write_failed(out, failed)
    if not failed:
        (out / FAILED).unlink(missing_ok=True)
    return Predicted(
        tuple(found), tuple(failed), tuple(c.name for n, c in zip(names, cases, strict=True) if n in done)
    )


def _written(predictor: Predictor, case: Case, out: Path, name: str, *, track: Track) -> Prediction:
    prediction = predictor(case, track=track)
    with writing_folder(out / name) as building:
        write_case(building, prediction)
    append_line(out / LINES, json.dumps(prediction.to_json()))
    return prediction


def _open(out: Path, predictor: Predictor) -> None:
    """Make the folder, or see that it is one of this very run that can be gone on with.

    Raises:
        ConfigError: it is something else.
    """
    told = {
        "notice": RESEARCH_USE_ONLY,
        "run": predictor.run.folder.name,
        "model_sha256": predictor.run.facts.get("model_sha256"),
        "maps": list(predictor.maps),
    }
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; name a folder to make")
    if not out.exists() or not any(out.iterdir()):
        write_text(out / BATCH, json.dumps(told, indent=1))
        return
    if not (out / BATCH).is_file() or json.loads((out / BATCH).read_text()) != told:
        raise ConfigError(
            f"{out}: is not empty, and not an unfinished prediction of this run with these maps;"
            " predictions are never written over others"
        )


def _finished(out: Path, cases: Mapping[str, Case]) -> set[str]:
    """Folders of cases that are there, each with its line, which a crash may have kept back.

    Raises:
        ConfigError: one is of other images than the case of that name.
    """
    lines = {json.loads(line)["case"] for line in read_lines(out / LINES)}
    done = {name for name in cases if (out / name / "prediction.json").is_file()}
    for name in sorted(done):
        told = json.loads((out / name / "prediction.json").read_text())
        images = [i["image_id"] for i in told["images"]] + [s["where"] for s in told["skipped"]]
        if sorted(images) != sorted(r.image_id for r in cases[name].records):
            raise ConfigError(f"{out / name}: is of other images of {cases[name].name}; name another --out")
        if told["case"] not in lines:
            append_line(out / LINES, json.dumps(told))
    return done


def write_case(folder: Path, prediction: Prediction) -> None:
    """Write a case into a folder under construction: numbers, links, maps, the page."""
    write_text(folder / "prediction.json", json.dumps(prediction.to_json(), indent=1))
    write_text(folder / "links.json", json.dumps(prediction.links.to_json(), indent=1))
    kept = album(prediction)
    for number, seen in enumerate(prediction.images, start=1):
        boxes = tuple(s.box for s in seen.spots)
        for name, found in seen.maps.items():
            stem = f"maps/{number:02d}_{folder_name(seen.record.path.stem)}_{name}"
            write_text(folder / f"{stem}.json", json.dumps(found.to_json()))
            page = sheet(found, kept.pictures[seen.record.image_id], boxes=boxes if name == "lesion" else ())
            save(page, folder / f"{stem}.png")
    if drawn := link_picture(prediction, kept):
        save(drawn, folder / "links.png")
    write_page(folder, prediction)


def folder_name(name: str) -> str:
    """A case's name as a folder may be called on any system."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "case"


def _reason(error: Exception) -> tuple[str, str]:
    """Reason code and sentence: of errors that are not ours, where they happened too."""
    if isinstance(error, MammopathError):
        return getattr(error, "code", "case"), str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in str(error).lower():
        why = "not enough memory for this case: give fewer images at a time, or use a larger machine"
        return "memory", why
    told = traceback.format_exception_only(error)[-1].strip()
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return "fault", f"{told}{place}"


def _write_failed(out: Path, failed: Sequence[Skipped]) -> None:
    told = [{"case": s.where, "code": s.code, "why": s.why} for s in failed]
    write_text(out / FAILED, json.dumps({"notice": RESEARCH_USE_ONLY, "failed": told}, indent=2))
