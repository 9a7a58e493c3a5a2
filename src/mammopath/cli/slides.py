"""Commands for whole slides: features of patches, stages of patients."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mammopath.cli.console import Changes, say, table


def slides_features(
    slides: Annotated[list[Path], typer.Argument(help="Slides, or folders of slides.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the features; gone on with if it is there.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML; `mammopath config schema slides` lists its keys.")
    ] = None,
    spacings: Annotated[
        Path | None,
        typer.Option("--spacings", help="CSV slide,um for slides whose header is silent or wrong."),
    ] = None,
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
    changes: Changes = None,
) -> None:
    """Leave every centre out in turn: map its tumours, class its nodes, stage its patients; kappa.

    Example: `mammopath slides stages CAMELYON17 --out runs/camelyon17 --set patches.um=0.5`
    """
    from mammopath.config import load
    from mammopath.slide_settings import BagSettings

    _stages(root, out, load(BagSettings, config, changes or []), features=features)


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
    _stages(out / "phantom", out / "study", demo_settings(changes or []))


def _stages(root: Path, out: Path, settings: Any, *, features: Path | None = None) -> None:
    from mammopath import RESEARCH_USE_ONLY
    from mammopath.progress import track
    from mammopath.slides.stages import stage_study
    from mammopath.sources import SOURCES
    from mammopath.types import Record, Skipped

    found = list(SOURCES["camelyon17"].index(root))
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
