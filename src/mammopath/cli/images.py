"""Commands that look at images or rewrite them: show, deidentify."""

from pathlib import Path
from typing import Annotated

import typer

from mammopath.cli.console import Changes, say


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
) -> None:
    """Copy mammograms without who they are of, by the basic profile of DICOM PS3.15.

    Files with burned-in annotations, other modalities, and whatever still holds a name or number are listed
    and not written. Without `--key`, pseudonyms differ from run to run. Pixels are not looked at: text burned
    in without a word in the header stays.
    """
    import secrets

    from mammopath.errors import ConfigError
    from mammopath.files import write_bytes
    from mammopath.images.deidentify import deidentify_folder
    from mammopath.types import Skipped

    if out.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{out} lies in {root}; write to another folder")
    if key and not key.exists():
        write_bytes(key, secrets.token_bytes(32))
    entries = list(deidentify_folder(root, out, key=key.read_bytes() if key else secrets.token_bytes(32)))
    skipped = [entry for entry in entries if isinstance(entry, Skipped)]
    for entry in skipped:
        say(f"not written: {entry.where} ({entry.code}): {entry.why}")
    typer.echo(f"{len(entries) - len(skipped)} mammograms -> {out}; {len(skipped)} files not written")
    raise typer.Exit(1 if len(skipped) == len(entries) else 0)
