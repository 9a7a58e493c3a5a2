"""Commands that look at images or rewrite them: show, deidentify."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mammopath.cli.console import Changes, say

if TYPE_CHECKING:
    from mammopath.images.deidentify import Written
    from mammopath.sources.columns import Row


def show(
    manifest: Annotated[Path, typer.Argument(help="Manifest written by `mammopath index`.")],
    out: Annotated[Path, typer.Option("--out", help="Sheet to write: .png or .html.")],
    sample: Annotated[int, typer.Option("--sample", help="Images, spread over sites and labels.")] = 24,
    seed: Annotated[int, typer.Option(help="Same seed, same images.")] = 0,
    changes: Changes = None,
) -> None:
    """Draw a contact sheet of what the model will see, with side, view, label and findings.

    The fastest way to catch a flipped or inverted site. `--set mammogram.height=896` changes a key of
    `prepare`. The sheet shows patients: keep it where the images are kept.
    """
    from mammopath.cohort import manifest as manifests
    from mammopath.config import load
    from mammopath.contact import draw, tiles, write_sheet
    from mammopath.settings import PrepareSettings

    settings = load(PrepareSettings, None, changes or [])
    records = draw(manifests.read(manifest).records, number=sample, seed=seed)
    write_sheet(list(tiles(records, settings, multiple=1)), out)
    typer.echo(f"{len(records)} images -> {out}")


def deidentify(
    root: Annotated[Path, typer.Argument(help="Folder of DICOM mammograms; it is only read.")],
    out: Annotated[Path, typer.Argument(help="Folder to write to: PSEUDONYM/STUDY/INSTANCE.dcm.")],
    key: Annotated[
        Path | None, typer.Option("--key", help="Secret of the pseudonyms; made if it is not there.")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option("--table", help="Table of the exams; OUT/exams.csv is its pseudonymised copy."),
    ] = None,
) -> None:
    """Copy mammograms without who they are of, by the basic profile of DICOM PS3.15.

    Files with burned-in annotations, other modalities, and whatever still holds a name or number are listed
    and not written. Without `--key`, pseudonyms differ from run to run. Pixels are not looked at: text burned
    in without a word in the header stays. `--table` is needed for labels: afterwards no image says its
    number, accession or date any more.
    """
    import secrets

    from mammopath.errors import ConfigError
    from mammopath.files import write_bytes
    from mammopath.images.deidentify import deidentify_folder
    from mammopath.sources.exams import TABLE, read_exams
    from mammopath.types import Skipped

    if out.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{out} lies in {root}; write to another folder")
    if table and (out / TABLE).exists():
        raise ConfigError(f"{out / TABLE} is there already; move it away, or write to another folder")
    rows = read_exams(table) if table else []
    if key and not key.exists():
        write_bytes(key, secrets.token_bytes(32))
    secret = key.read_bytes() if key else secrets.token_bytes(32)
    if len(secret) < 16:
        raise ConfigError(f"{key} has {len(secret)} bytes; a secret has 16 or more, or let it be made")
    entries = list(deidentify_folder(root, out, key=secret))
    written = [entry for entry in entries if not isinstance(entry, Skipped)]
    for entry in (entry for entry in entries if isinstance(entry, Skipped)):
        say(f"not written: {entry.where} ({entry.code}): {entry.why}")
    typer.echo(f"{len(written)} mammograms -> {out}; {len(entries) - len(written)} files not written")
    if table:
        _write_table(rows, written, secret, str(table), out / TABLE)
    raise typer.Exit(0 if written else 1)


def _write_table(rows: "list[Row]", written: "list[Written]", secret: bytes, where: str, out: Path) -> None:
    from mammopath.files import write_text
    from mammopath.sources.exams_crosswalk import as_csv, crosswalk
    from mammopath.types import Skipped

    entries = list(crosswalk(rows, written, key=secret, where=where))
    kept = [entry for entry in entries if not isinstance(entry, Skipped)]
    for entry in (entry for entry in entries if isinstance(entry, Skipped)):
        say(f"not written: {entry.where} ({entry.code}): {entry.why}")
    if kept:
        write_text(out, as_csv(kept))
    typer.echo(f"{len(kept)} rows -> {out}; {len(entries) - len(kept)} rows not written")
