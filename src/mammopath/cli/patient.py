"""Commands about patients: predict, and the audit of the maps that predictions show."""

from pathlib import Path
from typing import Annotated

import typer

from mammopath.cli.console import say, table

RunFolder = Annotated[Path, typer.Argument(help="Folder of a run (mammopath train or lodo).")]


def predict(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", help="Folder to make: a line and a folder for each case.")],
    mammogram: Annotated[
        list[str] | None,
        typer.Option(
            "--mammogram",
            help="DICOM or raster file; PATH:SIDE:VIEW tells what its header does not (scan.png:L:CC)."
            " May be repeated.",
        ),
    ] = None,
    slide: Annotated[
        list[str] | None,
        typer.Option(
            "--slide",
            help="Tissue: a whole slide, read in fields as the run knows them, or one picture of a field;"
            " PATH:SIDE tells the breast. May be repeated.",
        ),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="Manifest of many cases, in place of files.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the case; by default the files' PatientID.")] = "",
    maps: Annotated[
        str, typer.Option(help="Maps to draw: lesion, attention, rollout, relevance, integrated.")
    ] = "lesion,attention,relevance",
    spacing_um: Annotated[
        str,
        typer.Option(
            "--spacing-um",
            help="Micrometres per pixel where files tell none: of mammograms, or MAMMOGRAMS,TISSUE (70,0.5).",
        ),
    ] = "",
) -> None:
    """Say what a run makes of new patients: scores, regions, links, concordance, and a page for each.

    Any subset of views and tissue will do. Ends with exit code 1 if a case failed; the others are written,
    and the same command goes on where it was stopped. A run of `adapt` has its source's calibration
    alone and is refused.
    """
    from mammopath.case.folder import predict_cases
    from mammopath.case.inputs import case_of_files, cases_of_manifest, marked, spacings
    from mammopath.case.predictor import Predictor
    from mammopath.cohort import manifest as table_of
    from mammopath.errors import ConfigError
    from mammopath.progress import track

    if manifest and (mammogram or slide):
        raise ConfigError("give either --manifest or files, not both")
    if manifest:
        cases = cases_of_manifest(table_of.read(manifest))
    else:
        views, tissue = ([marked(one) for one in named or []] for named in (mammogram, slide))
        cases = [case_of_files(views, tissue, name, spacing=spacings(spacing_um))]
    predictor = Predictor.load(run, maps=[m for m in maps.split(",") if m])
    found = predict_cases(predictor, cases, out, track=track)
    rows = [[p.case, p.concordance.verdict, len(p.images), len(p.skipped)] for p in found.predictions]
    table(f"{len(rows)} cases -> {out}", ["case", "concordance", "images", "skipped"], rows)
    if found.before:
        say(f"{len(found.before)} cases were there already")
    for one in found.predictions:
        for skipped in one.skipped:
            say(f"{one.case}: not used: {skipped.where} ({skipped.code}): {skipped.why}")
    for skipped in found.failed:
        say(f"failed {skipped.where} ({skipped.code}): {skipped.why}")
    raise typer.Exit(1 if found.failed else 0)


def explain_audit(
    run: RunFolder,
    manifest: Annotated[Path, typer.Argument(help="Manifest of images that trained nothing.")],
    images: Annotated[int, typer.Option(help="Images of each modality that are looked at.")] = 24,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the figures here, as JSON.")] = None,
    site: Annotated[str, typer.Option(help="Only images of this site.")] = "",
) -> None:
    """Test a run's maps: sanity, faithfulness, pointing, stability, and whether the link finds the lesion.

    The verdict of each map method is kept beside the run, and stands on every map that `predict` draws.
    """
    from mammopath.audit.audit import audit_run
    from mammopath.progress import track

    found = audit_run(run, manifest, images=images, site=site, out=out, track=track)
    columns = ["modality", "map", "verdict", "deletion", "insertion", "pointing", "chance", "stability"]
    rows = [
        [
            *(m.modality, m.method, found.told(m.verdict), m.deletion.value, m.insertion.value),
            *(m.pointing.value, m.pointing_chance, m.stability),
        ]
        for m in found.maps
    ]
    table(f"Maps of {run}: gains over random order in logits, pointing game", columns, rows)
    for link in found.links:
        say(
            f"link by {link.by}, {link.patients} pairs: top patches on the lesion {link.within.value:.2f}"
            f" (chance {link.within_chance:.2f}); among others {link.among.value:.2f}"
            f" (permuted {link.among_permuted.value:.2f}, chance {link.among_chance:.2f});"
            f" {found.told(link.verdict)}"
        )
