"""Cases on disk: one folder each, whole or not at all, and one line each in ``predictions.jsonl``."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mammopath import RESEARCH_USE_ONLY
from mammopath.case.page import write_page
from mammopath.case.pictures import album, link_picture
from mammopath.case.predictor import Predictor
from mammopath.case.values import Case, Prediction, plain
from mammopath.errors import ConfigError, MammopathError
from mammopath.files import append_line, write_text
from mammopath.maps.overlay import save, sheet
from mammopath.progress import Track, silent
from mammopath.runs import writing_folder
from mammopath.types import Skipped

LINES, FAILED = "predictions.jsonl", "failed.json"


@dataclass(frozen=True)
class Predicted:
    """What became of a batch of cases."""

    predictions: tuple[Prediction, ...]
    failed: tuple[Skipped, ...]


def predict_cases(
    predictor: Predictor, cases: Sequence[Case], out: Path, *, track: Track = silent
) -> Predicted:
    """Predict every case into ``out``; one that fails is listed in ``failed.json``, the others go on.

    Args:
        predictor: the run.
        cases: in the order in which they are done.
        out: folder to make.
        track: shows progress.

    Raises:
        ConfigError: ``out`` holds something already, or two cases have one name.
    """
    names = [folder_name(c.name) for c in cases]
    if twice := [n for n in names if names.count(n) > 1]:
        raise ConfigError(f"two cases would be written to {twice[0]}; give them names of their own")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out}: is not empty; predictions are never written over others")
    found: list[Prediction] = []
    failed: list[Skipped] = []
    for i in track(range(len(cases)), "cases", len(cases)):
        try:
            prediction = predictor(cases[i])
            with writing_folder(out / names[i]) as building:
                write_case(building, prediction)
        except (MammopathError, MemoryError, RuntimeError) as error:
            failed.append(Skipped(cases[i].name, *_reason(error)))
            continue
        append_line(out / LINES, json.dumps(prediction.to_json()))
        found.append(prediction)
    if failed:
        write_text(out / FAILED, json.dumps([plain(_told(s)) for s in failed], indent=2))
    return Predicted(tuple(found), tuple(failed))


def write_case(folder: Path, prediction: Prediction) -> None:
    """Write a case into a folder under construction: numbers, links, maps, the page."""
    write_text(folder / "prediction.json", json.dumps(prediction.to_json(), indent=1))
    links = {"notice": RESEARCH_USE_ONLY} | plain(vars(prediction.links))
    write_text(folder / "links.json", json.dumps(links, indent=1))
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
    """Reason code and sentence; programming errors are not swallowed.

    Raises:
        RuntimeError: one that is not about memory.
    """
    if isinstance(error, MammopathError):
        return getattr(error, "code", "case"), str(error)
    is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "memory" in str(error).lower()
    if not is_memory:
        raise error
    return "memory", "not enough memory for this case: give fewer images at a time, or use a larger machine"


def _told(skipped: Skipped) -> dict[str, str]:
    return {"case": skipped.where, "code": skipped.code, "why": skipped.why}
