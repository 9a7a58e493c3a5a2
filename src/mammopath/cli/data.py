"""Commands that look at data: index, phantom, check."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mammopath.cli.console import Changes, Spacings, Strict, listed, say, table


def index(
    source: Annotated[str, typer.Argument(help="Name of the data set: see docs/datasets.")],
    root: Annotated[Path, typer.Argument(help="The data set's folder as downloaded; the file for table.")],
    out: Annotated[Path, typer.Option("--out", help="Manifest to write (Parquet).")],
    domain: Annotated[str, typer.Option(help="Name of the site, in place of the source's own.")] = "",
    site: Annotated[
        str, typer.Option(help="Attribute that is the site: station, manufacturer, model, ...")
    ] = "",
    spacings: Spacings = None,
    partial: Annotated[bool, typer.Option("--partial", help="A part of a public set, on purpose.")] = False,
    strict: Strict = False,
) -> None:
    """List the images of a data set with what is known of them, as a manifest.

    Example: `mammopath index mias all-mias --out mias.parquet`
    """
    from mammopath.cohort import manifest
    from mammopath.errors import ConfigError, DataError
    from mammopath.sources import SOURCES
    from mammopath.sources.source import by_site, check_counts

    if source not in SOURCES:
        raise ConfigError(f"no source {source!r}; there are {', '.join(SOURCES)}")
    entries = by_site(listed(source, root, spacings), site)
    found = manifest.collect(entries, source=source, root=root, domain=domain)
    if not partial:
        counts = check_counts(SOURCES[source], found.records, found.skipped, root=root)
        rows = [[name, n, counts.expected.get(name, "")] for name, n in counts.found.items()]
        table(f"{source} {counts.edition}", ["what", "found", "expected"], rows)
    if strict and found.skipped:
        raise DataError(f"{len(found.skipped)} files were skipped, the first: {found.skipped[0].why}")
    manifest.write(found, out)
    for skipped in found.skipped:
        say(f"skipped {skipped.where} ({skipped.code}): {skipped.why}")
    typer.echo(f"{len(found)} images, {len(found.skipped)} skipped -> {out}")


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    patients: Annotated[int, typer.Option(help="Patients of each of the three sites.")] = 40,
    spurious: Annotated[
        float, typer.Option(help="How strongly a site's mark follows the label, 0 to 1.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Same seed, same cohort.")] = 0,
    changes: Changes = None,
) -> None:
    """Paint a synthetic cohort with known truth: DICOM mammograms and histology fields of the same patients.

    A testing instrument. Its numbers are not clinical.
    """
    from mammopath.config import load
    from mammopath.phantom.cohort import PhantomSettings
    from mammopath.phantom.generate import generate

    told = [f"patients={patients}", f"spurious={spurious}", f"seed={seed}", *(changes or [])]
    generate(out, load(PhantomSettings, None, told))
    typer.echo(f"phantom cohort -> {out}; next: mammopath index phantom {out} --out phantom.parquet")


def check(
    manifests: Annotated[list[Path], typer.Argument(help="Manifests written by `mammopath index`.")],
    out: Annotated[Path | None, typer.Option("--out", help="Also write the findings as JSON.")] = None,
) -> None:
    """Look for leaks and faults: shared patients, same pixels twice, labels tied to a site, bad spacing.

    Ends with exit code 2 if patients or pixels are shared between sites.
    """
    from mammopath.cohort import manifest
    from mammopath.cohort.check import check_records
    from mammopath.files import write_text
    from mammopath.progress import track

    cohort = manifest.concat([manifest.read(path) for path in manifests])
    report = check_records(cohort.records, track=track)
    table("Check", ["severity", "code", "what"], [[f.severity, f.code, f.what] for f in report.findings])
    if out:
        write_text(out, json.dumps(report.to_json(), indent=2))
    raise typer.Exit(2 if report.has_leaks else 0)
