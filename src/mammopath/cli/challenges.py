"""Commands for the challenges: judge submissions by their rules, write submissions from what a run said."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mammopath.cli.console import say, table

ManifestFile = Annotated[
    Path, typer.Option("--manifest", help="Manifest of the data set, written by `mammopath index`.")
]
Split = Annotated[str, typer.Option("--split", help="Slides to judge: test, train (as published), or all.")]
JsonFile = Annotated[Path | None, typer.Option("--out", help="Also write the figures as JSON.")]


def score_camelyon16(
    manifest: ManifestFile,
    slides: Annotated[
        Path | None, typer.Option("--slides", help="CSV slide,probability of every slide (task 2).")
    ] = None,
    detections: Annotated[
        Path | None, typer.Option("--detections", help="Folder of SLIDE.csv: confidence,x,y (task 1).")
    ] = None,
    split: Split = "test",
    draws: Annotated[
        int, typer.Option(help="Of the bootstrap over slides for the limits of the FROC score.")
    ] = 1000,
    out: JsonFile = None,
) -> None:
    """CAMELYON16: AUC of slides, and FROC of lesions painted from their outlines at level 5, by its rules.

    Lesions are judged on slides without tumour and where all tumour is outlined; other slides are named.

    Example: `mammopath score camelyon16 --manifest c16.parquet --slides slides.csv --detections detections`
    """
    from mammopath.cohort import manifest as table_of
    from mammopath.errors import ConfigError
    from mammopath.export.challenges import read_camelyon16_detections
    from mammopath.export.judging import judge_lesions, judge_slides, slides_of
    from mammopath.export.submissions import read_camelyon16_slides

    if slides is None and detections is None:
        raise ConfigError("give --slides, --detections, or both")
    judged, told = slides_of(table_of.read(manifest).records, split), dict[str, Any]()
    if slides:
        told["slide_auc"] = _interval(judge_slides(judged, read_camelyon16_slides(slides)))
    if detections:
        task, left_out = judge_lesions(judged, read_camelyon16_detections(detections), draws=draws)
        rates = dict(zip(("1/4", "1/2", "1", "2", "4", "8"), task.curve.at.tolist(), strict=True))
        told["froc"] = _interval(task.interval) | {"value": task.curve.score, "sensitivity_at": rates}
        told |= {"slides": task.slides, "lesions": task.lesions, "not_outlined": left_out}
        for name in left_out:
            say(f"{name}: not all of its tumour is outlined, so its detections are not judged")
    _tell("CAMELYON16", told, out)


def score_camelyon17(
    manifest: ManifestFile,
    submission: Annotated[
        Path, typer.Option("--submission", help="CSV patient,stage with a row per patient and node.")
    ],
    partial: Annotated[
        bool, typer.Option("--partial", help="Judge the patients that the submission has, on purpose.")
    ] = False,
    out: JsonFile = None,
) -> None:
    """CAMELYON17: quadratically weighted kappa of the pN stages of patients, and of the classes of nodes.

    Example: `mammopath score camelyon17 --manifest c17.parquet --submission runs/c17/submission.csv`
    """
    from mammopath.cohort import manifest as table_of
    from mammopath.errors import DataError
    from mammopath.export.judging import judge_stages
    from mammopath.metrics.camelyon17 import pn_stage
    from mammopath.sources.camelyon_tables import read_stages

    stages = read_stages(submission)
    if stages.skipped:
        raise DataError(f"{stages.skipped[0].where}: {stages.skipped[0].why}")
    nodes: dict[str, list[str]] = {}
    for name, node in stages.nodes.items():
        nodes.setdefault(name[: len("patient_000")], []).append(node)
    for patient, own in nodes.items():
        if (follows := pn_stage(own)) != stages.patients.get(patient, follows):
            say(f"{patient}: is submitted as {stages.patients[patient]}, but its nodes make {follows}")
    records = table_of.read(manifest).records
    found = judge_stages(records, stages.patients, stages.nodes, partial=partial)
    for patient in found.missing:
        say(f"{patient}: has no submitted stage, and is not judged")
    told = {"kappa": _interval(found.kappa), "patients": found.patients}
    told |= {"node_kappa": found.node_kappa, "nodes": found.nodes, "not_judged": list(found.missing)}
    _tell("CAMELYON17", told, out)


def score_bach(
    manifest: ManifestFile,
    fields: Annotated[
        Path | None, typer.Option("--fields", help="CSV case,class of every field, 0 to 3 (part A).")
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", help="Folder of SLIDE.png whose pixels are classes 0 to 3 (part B)."),
    ] = None,
    out: JsonFile = None,
) -> None:
    """BACH: accuracy of fields (part A), and the score of labelled slides (part B), by its formula.

    Example: `mammopath score bach --manifest bach.parquet --fields pred.csv`
    """
    from mammopath.cohort import manifest as table_of
    from mammopath.errors import ConfigError
    from mammopath.export.judging import find_masks, judge_fields, judge_masks
    from mammopath.export.submissions import read_bach

    if fields is None and masks is None:
        raise ConfigError("give --fields, --masks, or both")
    records, told = table_of.read(manifest).records, dict[str, Any]()
    if fields:
        told["accuracy"], told["fields"] = judge_fields(records, read_bach(fields))
    if masks:
        scores = judge_masks(records, find_masks(masks))
        told |= {"slide_score": sum(scores.values()) / len(scores), "by_slide": scores}
    _tell("BACH", told, out)


def submit_camelyon16(
    said: Annotated[
        Path, typer.Argument(help="Folder of a finished `mammopath slides predict` or `slides stages`.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder that gets slides.csv and detections/.")],
) -> None:
    """Write what a run said of slides in the formats of CAMELYON16: probabilities and detections.

    `slides stages` writes the submission of CAMELYON17 itself.

    Example: `mammopath submit camelyon16 predictions --out submission`
    """
    from mammopath import RESEARCH_USE_ONLY
    from mammopath.export.submissions import write_said_camelyon16

    count, unread = write_said_camelyon16(said, out)
    for name in unread:
        say(f"{name}: could not be read, so it has no score")
    typer.echo(f"{count} slides -> {out}\n{RESEARCH_USE_ONLY}")


def submit_bach(
    predictions: Annotated[Path, typer.Argument(help="Folder made by `mammopath predict`.")],
    out: Annotated[Path, typer.Option("--out", help="CSV to write: case,class.")],
) -> None:
    """Write the likeliest severity of every predicted field as a submission to part A of BACH.

    Example: `mammopath submit bach predictions --out pred.csv`
    """
    from mammopath import RESEARCH_USE_ONLY
    from mammopath.export.submissions import write_predicted_bach

    count, without = write_predicted_bach(predictions, out)
    for name in without:
        say(f"{name}: has no severity, and is left out")
    typer.echo(f"{count} fields -> {out}\n{RESEARCH_USE_ONLY}")


def _interval(found: Any) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high, "method": found.method}


def _tell(name: str, told: Mapping[str, Any], out: Path | None) -> None:
    """Print the figures, and write them, with null for those that are not defined."""
    from mammopath import RESEARCH_USE_ONLY
    from mammopath.files import write_text

    rows: list[list[Any]] = []
    for key, value in told.items():
        if isinstance(value, dict) and "value" in value:
            rows.append([key, value["value"], f"{value['low']:.3f} to {value['high']:.3f}"])
            rows += [
                [f"at {rate} per slide", found, ""] for rate, found in value.get("sensitivity_at", {}).items()
            ]
        elif isinstance(value, dict):
            rows += [[name, found, ""] for name, found in value.items()]
        else:
            rows.append([key, len(value) if isinstance(value, list) else value, ""])
    table(name, ["what", "value", "95 % limits"], rows)
    if out:
        write_text(out, json.dumps({"notice": RESEARCH_USE_ONLY} | _plain(dict(told)), indent=1))
    typer.echo(RESEARCH_USE_ONLY)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
