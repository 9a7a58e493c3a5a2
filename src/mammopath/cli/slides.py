"""Commands for whole slides: features of patches, training, prediction, stages of patients."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mammopath.cli.console import Changes, Spacings, listed, say, table


def slides_features(
    slides: Annotated[list[Path], typer.Argument(help="Slides, or folders of slides.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the features; gone on with if it is there.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML; `mammopath config schema slides` lists its keys.")
    ] = None,
    spacings: Spacings = None,
    changes: Changes = None,
) -> None:
    """Find tissue, cut patches, run the frozen trunk: one HDF5 file per slide, in the layout of CLAM.

    Can be stopped and started at any time, and run beside itself. A slide that cannot be read is listed.

    Example: `mammopath slides features slides/ --out features --set patches.um=0.5`
    """
    from mammopath import RESEARCH_USE_ONLY
    from mammopath.config import load
    from mammopath.images.slide_files import find_slides
    from mammopath.images.slide_spacing import read_spacings
    from mammopath.progress import track
    from mammopath.slide_settings import SlideSettings
    from mammopath.slides.extract import extract
    from mammopath.slides.job import Job, name_slides
    from mammopath.slides.summary import write_summary

    settings = load(SlideSettings, config, changes or [])
    job = Job(out, settings, read_spacings(spacings) if spacings else {})
    found = extract(name_slides(find_slides(slides)), job, workers=settings.workers, track=track)
    write_summary(out, found)
    rows = [[o.slide, o.verdict, o.patches, o.skipped, f"{o.um[0]:.3g} {o.spacing_source}"] for o in found]
    table("slides", ["slide", "verdict", "patches", "unreadable", "um"], rows)
    for outcome in found:
        if outcome.verdict in ("unreadable", "busy"):
            say(f"skipped {outcome.path} ({outcome.code or outcome.verdict}): {outcome.why}")
    typer.echo(f"{sum(o.patches > 0 for o in found)} of {len(found)} slides have features -> {out}")
    typer.echo(RESEARCH_USE_ONLY)


def slides_train(
    manifest: Annotated[Path, typer.Argument(help="Manifest of slides with labels (mammopath index).")],
    features: Annotated[
        Path, typer.Option("--features", help="Folder of `slides features`, or of NAME.h5 files.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Run folder to make.")],
    held_out: Annotated[
        str | None,
        typer.Option("--held-out", help="Site to leave out and test on; else a share of patients."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="YAML; `mammopath config schema slides-stages` lists its keys."),
    ] = None,
    changes: Changes = None,
) -> None:
    """Train on slides of any laboratory: bags of patches, labels of slides, outlines where there are some.

    Example: `mammopath slides train lab.parquet --features features --out runs/lab --held-out north`
    """
    from mammopath import RESEARCH_USE_ONLY
    from mammopath.cohort.manifest import read
    from mammopath.config import load
    from mammopath.progress import track
    from mammopath.slide_settings import BagSettings
    from mammopath.slides.learn import train_slides

    settings = load(BagSettings, config, changes or [])
    cohort = read(manifest)
    facts = train_slides(
        cohort.records,
        features,
        out,
        settings,
        held_out=held_out,
        fingerprint=cohort.fingerprint,
        track=track,
    )
    for why, count in facts["slides"]["unused"].items():
        if count:
            say(f"{count} slides {why} take no part")
    for warning in facts["warnings"]:
        say(warning)
    told = ", ".join(f"{name} {count}" for name, count in facts["rows"].items())
    typer.echo(f"slides: {told}; best step {facts['best_step']}")
    typer.echo(f"AUC of slides: validation {facts['val_auc']}, test {facts['test_auc']} -> {out}")
    typer.echo(RESEARCH_USE_ONLY)


def slides_predict(
    run: Annotated[Path, typer.Argument(help="Run folder of `slides train`.")],
    slides: Annotated[list[Path], typer.Argument(help="Slides, or folders of slides.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the predictions.")],
    patients: Annotated[
        Path | None, typer.Option("--patients", help="CSV slide,patient; else every slide is a patient.")
    ] = None,
    spacings: Spacings = None,
    features: Annotated[
        Path | None, typer.Option("--features", help="Folder of features to take, in place of making them.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes for features.")] = 1,
) -> None:
    """Score new slides and their patients; map tumour, outline it, list detections in pixels and micrometres.

    Ends with exit code 1 if a slide could not be read; the others are written.

    Example: `mammopath slides predict runs/lab new_slides/ --out predictions --patients slides.csv`
    """
    from mammopath import RESEARCH_USE_ONLY
    from mammopath.images.slide_files import find_slides
    from mammopath.images.slide_spacing import read_spacings
    from mammopath.progress import track
    from mammopath.slides.apply import Asked, predict_slides, read_patients
    from mammopath.slides.learn import load_slide_run

    asked = Asked(
        find_slides(slides),
        read_patients(patients) if patients else {},
        read_spacings(spacings) if spacings else {},
        features,
    )
    found = predict_slides(load_slide_run(run), asked, out, workers=workers, track=track)
    rows = [[a.slide, a.patient, a.score, a.patient_score, a.pieces, f"{a.longest_um:.0f}"] for a in found]
    table("slides", ["slide", "patient", "score", "patient score", "pieces", "longest um"], rows)
    for answer in found:
        if answer.note:
            say(f"{answer.slide}: {answer.note}")
    typer.echo(f"predictions.csv, detections.csv, maps -> {out}\n{RESEARCH_USE_ONLY}")
    if unread := [a for a in found if not a.patches and not a.note.startswith("empty")]:
        say(f"{len(unread)} slides could not be read")
        raise typer.Exit(1)


def slides_stages(
    root: Annotated[Path, typer.Argument(help="Slides in a layout of CAMELYON17, with its table of stages.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the study; a finished one is not overwritten.")
    ],
    config: Annotated[
        Path | None,
        typer.Option("--config", help="YAML; `mammopath config schema slides-stages` lists its keys."),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option("--features", help="Folder of `slides features` to take, in place of an own one."),
    ] = None,
    spacings: Spacings = None,
    changes: Changes = None,
) -> None:
    """Leave every centre out in turn: map its tumours, class its nodes, stage its patients; kappa.

    Example: `mammopath slides stages CAMELYON17 --out runs/camelyon17 --set patches.um=0.5`
    """
    from mammopath.config import load
    from mammopath.slide_settings import BagSettings

    found = list(listed("camelyon17", root, spacings))
    _stages(found, out, load(BagSettings, config, changes or []), features=features)


def slides_demo(
    out: Annotated[
        Path, typer.Option("--out", help="Folder of slides and study; unfinished ones are gone on with.")
    ] = Path("runs/slides"),
    changes: Changes = None,
) -> None:
    """The way from slides to stages without data: a phantom of CAMELYON17, every laboratory left out in turn.

    Its numbers show that the path works. They are not clinical.
    """
    from mammopath.slides.demo import demo_settings, make_slides

    make_slides(out / "phantom")
    _stages(list(listed("camelyon17", out / "phantom", None)), out / "study", demo_settings(changes or []))


def _stages(found: list[Any], out: Path, settings: Any, *, features: Path | None = None) -> None:
    from mammopath import RESEARCH_USE_ONLY
    from mammopath.progress import track
    from mammopath.slides.stages import stage_study
    from mammopath.types import Record, Skipped

    records = [one for one in found if isinstance(one, Record)]
    skipped = [one for one in found if isinstance(one, Skipped)]
    for one in skipped:
        say(f"skipped {one.where} ({one.code}): {one.why}")
    study = stage_study(
        records, out, settings, skipped=skipped, features=features, workers=settings.workers, track=track
    )
    rows = [
        [centre, study.slide_auc[centre], study.thresholds[centre], *_hits(study.nodes, centre)]
        for centre in sorted(study.thresholds)
    ]
    table("every centre left out", ["centre", "slide AUC", "threshold", "nodes", "classed right"], rows)
    for patient, why in study.unstaged.items():
        say(f"{patient} has no stage: {why}")
    if study.unlabelled:
        say(f"{study.unlabelled} slides of patients without any label take no part")
    typer.echo(f"{len(study.patients)} patients staged, {len(study.unstaged)} not: nodes could not be read")
    if study.kappa:
        limits = f"{study.kappa.low:.3f} to {study.kappa.high:.3f}"
        typer.echo(f"kappa of the stages: {study.kappa.value:.3f} ({limits})")
    typer.echo(f"stages.json, submission.csv -> {out}\n{RESEARCH_USE_ONLY}")


def _hits(nodes: Any, centre: str) -> tuple[int, int]:
    own = [node for node in nodes if node.centre == centre and node.truth and node.told]
    return len(own), sum(node.told == node.truth for node in own)
