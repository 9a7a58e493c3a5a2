"""The command line. Every command imports what it needs inside itself, so that --help is quick."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mammopath import RESEARCH_USE_ONLY, __version__
from mammopath.errors import MammopathError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help=f"Models that read mammograms and breast histopathology together. {RESEARCH_USE_ONLY}",
    epilog="Start with `mammopath demo`, which needs no data. Then: index, check, lodo, report.",
)
config_app = typer.Typer(no_args_is_help=True, help="Look at configurations.")
weights_app = typer.Typer(no_args_is_help=True, help="Pretrained encoders: list, check, get.")
app.add_typer(config_app, name="config")
app.add_typer(weights_app, name="weights")

ConfigFile = Annotated[Path, typer.Argument(help="YAML file; `mammopath config schema lodo` lists its keys.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Change one key: a.b=c. May be repeated.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first bad file instead of listing it.")]


def main() -> None:
    """Run the command line; errors that a user can act on are printed without a traceback."""
    try:
        app()
    except MammopathError as error:
        _say(f"mammopath: {error}")
        sys.exit(1)


@app.command()
def index(
    source: Annotated[str, typer.Argument(help="mias, bach, idc, table or phantom.")],
    root: Annotated[Path, typer.Argument(help="The data set's folder as downloaded; the file for table.")],
    out: Annotated[Path, typer.Option("--out", help="Manifest to write (Parquet).")],
    domain: Annotated[str, typer.Option(help="Name of the site, in place of the source's own.")] = "",
    partial: Annotated[bool, typer.Option("--partial", help="A part of a public set, on purpose.")] = False,
    strict: Strict = False,
) -> None:
    """List the images of a data set with what is known of them, as a manifest.

    Example: `mammopath index mias all-mias --out mias.parquet`
    """
    from mammopath.cohort import manifest
    from mammopath.errors import ConfigError, DataError
    from mammopath.sources import SOURCES
    from mammopath.sources.source import check_counts

    if source not in SOURCES:
        raise ConfigError(f"no source {source!r}; there are {', '.join(SOURCES)}")
    found = manifest.collect(SOURCES[source].index(root), source=source, root=root, domain=domain)
    if not partial:
        counts = check_counts(SOURCES[source], found.records, found.skipped, root=root)
        rows = [[name, n, counts.expected.get(name, "")] for name, n in counts.found.items()]
        _table(f"{source} {counts.edition}", ["what", "found", "expected"], rows)
    if strict and found.skipped:
        raise DataError(f"{len(found.skipped)} files were skipped, the first: {found.skipped[0].why}")
    manifest.write(found, out)
    for skipped in found.skipped:
        _say(f"skipped {skipped.where} ({skipped.code}): {skipped.why}")
    typer.echo(f"{len(found)} images, {len(found.skipped)} skipped -> {out}")


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    patients: Annotated[int, typer.Option(help="Patients of each of the three sites.")] = 40,
    spurious: Annotated[
        float, typer.Option(help="How strongly a site's mark follows the label, 0 to 1.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Same seed, same cohort.")] = 0,
) -> None:
    """Paint a synthetic cohort with known truth: DICOM mammograms and histology fields of the same patients.

    A testing instrument. Its numbers are not clinical.
    """
    from mammopath.config import parse
    from mammopath.sources.phantom import generate
    from mammopath.sources.phantom_cohort import PhantomSettings

    generate(out, parse(PhantomSettings, {"patients": patients, "spurious": spurious, "seed": seed}))
    typer.echo(f"phantom cohort -> {out}; next: mammopath index phantom {out} --out phantom.parquet")


@app.command()
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
    _table("Check", ["severity", "code", "what"], [[f.severity, f.code, f.what] for f in report.findings])
    if out:
        write_text(out, json.dumps(report.to_json(), indent=2))
    raise typer.Exit(2 if report.has_leaks else 0)


@app.command()
def train(
    config: ConfigFile,
    held_out: Annotated[str, typer.Option("--held-out", help="Site that is left out, to test on.")],
    out: Annotated[Path, typer.Option("--out", help="Run folder to make; never overwritten.")],
    changes: Changes = None,
    strict: Strict = False,
) -> None:
    """Train on every site but one, test on that one, and write a run folder.

    Takes the configuration of a study as well; keys that say how much of its table to make are not used.
    """
    from mammopath.bench import prepare_bench
    from mammopath.config import load
    from mammopath.evaluate import result_lines
    from mammopath.experiment import run
    from mammopath.progress import track
    from mammopath.settings import LodoSettings

    settings = load(LodoSettings, config, changes or [])
    cache = settings.cache or out.parent / "cache"
    bench = prepare_bench(settings, cache=cache, strict=strict, track=track)
    outcome = run(bench, settings, held_out=held_out, folder=out, track=track)
    lines = result_lines(outcome.table, {}, unit=settings.data.unit, draws=2000, seed=settings.seed)
    columns = ["site", "modality", "n", "positives", "auc", "auc_low", "auc_high", "interval"]
    _table(f"{held_out}, held out", columns, [[line[c] for c in columns] for line in lines])


@app.command()
def lodo(
    config: ConfigFile,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the study [runs/NAME].")] = None,
    changes: Changes = None,
    strict: Strict = False,
) -> None:
    """Leave each site out in turn: folds x methods x seeds, then the report.

    Skips what `results.jsonl` already holds, so a killed study goes on where it stopped.
    """
    from mammopath.config import load
    from mammopath.settings import LodoSettings

    settings = load(LodoSettings, config, changes or [])
    _lodo_and_report(settings, out or Path("runs") / settings.name, strict=strict)


@app.command()
def adapt(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    manifest: Annotated[Path, typer.Argument(help="Manifest of the new site's cases; labels are not read.")],
    out: Annotated[Path, typer.Option("--out", help="Run folder to make; never overwritten.")],
    method: Annotated[
        str, typer.Option("--method", help="none, style, tact, tent, t3a, shot_im, ...")
    ] = "style",
    probe: Annotated[
        Path | None,
        typer.Option("--probe", help="Manifest of training cases on which calls should not change."),
    ] = None,
    changes: Changes = None,
) -> None:
    """Adapt a run to unlabelled cases of a new site, behind a guard that falls back to the source.

    `--set` changes a key of the adaptation, such as `--set mode=online`. The folder says what moved, by how
    much, and on which images.
    """
    from mammopath.adapting import adapt_to_site
    from mammopath.config import load
    from mammopath.progress import track
    from mammopath.settings import AdaptSettings

    settings = load(AdaptSettings, None, changes or [])
    reports = adapt_to_site(run, manifest, probe, method=method, settings=settings, folder=out, track=track)
    columns = ["modality", "decision", "cases", "tensors moved", "why"]
    rows = [[r.modality, r.decision, r.cases, len(r.moved), "; ".join(r.reasons)] for r in reports]
    _table(f"{method} -> {out}", columns, rows)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a study.")],
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Also put the tables between the marks of this page.")
    ] = None,
) -> None:
    """Write report.html and tables from the results of a study."""
    from mammopath.report.markdown import put_tables
    from mammopath.report.page import write_report

    typer.echo(f"report: {write_report(folder)}")
    if markdown:
        typer.echo(f"tables: {put_tables(folder, markdown)}")


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the study; gone on with if it is there.")
    ] = Path("runs/demo"),
    changes: Changes = None,
) -> None:
    """The main job without data or weights: a synthetic cohort, three hospitals, each left out in turn.

    Its numbers show that the path works. They are not clinical.
    """
    from mammopath.demo import demo_settings, make_cohort

    make_cohort(out / "phantom")
    _lodo_and_report(demo_settings(out / "phantom", changes or []), out)


@app.command()
def doctor() -> None:
    """Show versions, image decoders, device and known encoders: what to send with a question."""
    from mammopath.doctor import facts

    _table("mammopath doctor", ["what", "found"], [[k, v] for k, v in facts().items()])


@config_app.command("schema")
def config_schema(command: Annotated[str, typer.Argument(help="train or lodo.")]) -> None:
    """Print the JSON Schema of a command's configuration."""
    from mammopath.config import schema

    typer.echo(schema(command))


@config_app.command("keys")
def config_keys() -> None:
    """Print every key with its default and meaning, as Markdown."""
    from mammopath.keys import reference

    typer.echo(reference(), nl=False)


@config_app.command("show")
def config_show(config: ConfigFile, changes: Changes = None) -> None:
    """Print a configuration as it will run, with every default filled in."""
    import yaml

    from mammopath.config import dump, load
    from mammopath.settings import LodoSettings

    typer.echo(yaml.safe_dump(dump(load(LodoSettings, config, changes or [])), sort_keys=False))


@weights_app.command("list")
def weights_list() -> None:
    """List the encoders whose weights can be used: name, licence, where to get them."""
    from mammopath.model.encoders import ENCODERS

    rows = [[name, e.licence, e.source or "trains from scratch"] for name, e in ENCODERS.items()]
    _table("Encoders", ["name", "licence", "where (Hugging Face hub)"], rows)


@weights_app.command("check")
def weights_check(
    path: Annotated[Path, typer.Argument(help="A safetensors file.")],
    encoder: Annotated[
        str, typer.Option("--encoder", help="Encoder that it should be: a name of `mammopath weights list`.")
    ],
) -> None:
    """Say whether a weights file fits an encoder: missing, unexpected and misshapen tensors.

    Ends with exit code 1 if it does not fit.
    """
    from mammopath.model.weights import check_weights

    found = check_weights(path, encoder)
    typer.echo(str(found))
    raise typer.Exit(0 if found.fits else 1)


@weights_app.command("get")
def weights_get(
    name: Annotated[str, typer.Argument(help="An encoder of `mammopath weights list`.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write [weights/NAME.safetensors].")
    ] = None,
) -> None:
    """Download an encoder's weights from the Hugging Face hub. This command uses the network."""
    from mammopath.model.weights import get_weights

    path = out or Path("weights") / f"{name}.safetensors"
    typer.echo(f"{path}: SHA-256 {get_weights(name, path)}")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"mammopath {__version__}")
        raise typer.Exit


def _lodo_and_report(settings: Any, out: Path, *, strict: bool = False) -> None:
    from mammopath.lodo import lodo as run_lodo
    from mammopath.progress import track
    from mammopath.report.page import write_report

    run_lodo(settings, out, strict=strict, track=track)
    typer.echo(f"report: {write_report(out)}")


def _table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row))
    Console().print(table)


def _say(text: str) -> None:
    typer.echo(text, err=True)
