"""Commands that train, test, adapt and report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mammopath.cli.console import Changes, ConfigFile, Strict, table


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
    from mammopath.bench import data_facts, prepare_bench, stamped
    from mammopath.config import load
    from mammopath.evaluate import Resampling, result_lines, units_of
    from mammopath.experiment import run
    from mammopath.paired import pair_lines
    from mammopath.progress import track
    from mammopath.settings import LodoSettings

    settings = load(LodoSettings, config, changes or [])
    cache = settings.cache or out.parent / "cache"
    bench = prepare_bench(settings, cache=cache, strict=strict, track=track)
    bench = stamped(bench, data_facts(bench))
    outcome = run(bench, settings, held_out=held_out, folder=out, track=track)
    how = Resampling(settings.bootstrap, settings.seed, settings.interval)
    lines = result_lines(outcome.table, {}, units=units_of(settings.data), resampling=how)
    lines += pair_lines(outcome.pairs, {}, resampling=how)
    columns = ["site", "modality", "unit", "n", "positives", "auc", "auc_low", "auc_high", "interval"]
    table(f"{held_out}, held out", columns, [[line[c] for c in columns] for line in lines])
    if bench.stamp:
        typer.echo(bench.stamp)


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
    table(f"{method} -> {out}", columns, rows)
    if probe is None:
        typer.echo("No --probe: the rules about the source's own cases are off.")


def accept(
    run: Annotated[Path, typer.Argument(help="Folder of the run as it would be used.")],
    manifest: Annotated[Path, typer.Argument(help="Manifest of labelled local cases that trained nothing.")],
    auc: Annotated[float, typer.Option("--auc", min=0.5, max=0.999, help="Least AUC asked for.")] = 0.8,
    sensitivity: Annotated[
        float, typer.Option("--sensitivity", min=0.01, max=0.999, help="Least sensitivity asked for.")
    ] = 0.8,
    study: Annotated[
        Path | None, typer.Option("--study", help="Folder of the study behind the prior [that of RUN].")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option("--features", help="Features of the local slides, for a run of `slides train`."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the verdicts as JSON.")] = None,
) -> None:
    """Accept a run at a site, reject it, or say how many more labelled cases it takes.

    The held-out results of the run's study are the prior, the local cases the evidence. Accepted is what
    reaches both targets with a probability of 95 %; see docs/explanation/acceptance.md for how often it errs.
    """
    import json

    from mammopath import RESEARCH_USE_ONLY
    from mammopath.acceptance import accept_site, as_json, run_stamp
    from mammopath.files import read_lines, write_text
    from mammopath.progress import track
    from mammopath.verdict import Targets

    targets = Targets(auc, sensitivity)
    results = (study or run.parent.parent) / "results.jsonl"
    lines = [json.loads(line) for line in read_lines(results)]
    verdicts = accept_site(run, manifest, lines, targets=targets, features=features, track=track)
    columns = ["modality", "decision", "further cases", "cases", "malignant", "earlier sites", "why"]
    rows = [
        [
            *(v.modality, v.decision, "too many" if v.more is None else v.more),
            *(v.cases, v.positives, v.earlier_sites, v.why),
        ]
        for v in verdicts
    ]
    table(f"{run.name} at {manifest.stem}", columns, rows)
    head = [
        "modality",
        "what",
        "target",
        "earlier sites say",
        "local cases",
        "together",
        "low",
        "high",
        "p",
    ]
    shown: list[list[Any]] = [
        [v.modality, name, c.target, c.prior, c.local, c.value, c.low, c.high, c.reached]
        for v in verdicts
        for name, c in (("AUC", v.auc), ("sensitivity", v.sensitivity))
    ]
    table("p: probability that the target is reached", head, shown)
    if run_stamp(run):
        typer.echo(run_stamp(run))
    typer.echo(RESEARCH_USE_ONLY)
    if out:
        write_text(out, json.dumps(as_json(verdicts, run, targets), indent=2))


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a study.")],
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Also put the tables between the marks of this page.")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also print it as PDF; needs a browser.")] = False,
    gallery: Annotated[
        bool, typer.Option("--gallery/--no-gallery", help="Render the worst errors from the images.")
    ] = True,
) -> None:
    """Write report.html, report.json and tables from the results of a study."""
    from mammopath.report.markdown import put_tables
    from mammopath.report.pdf import print_pdf

    page = _write_report(folder, gallery=gallery)
    typer.echo(f"report: {page}")
    if pdf:
        typer.echo(f"pdf: {print_pdf(page)}")
    if markdown:
        typer.echo(f"tables: {put_tables(folder, markdown)}")


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


def _lodo_and_report(settings: Any, out: Path, *, strict: bool = False) -> None:
    from mammopath.lodo import lodo as run_lodo
    from mammopath.progress import track

    run_lodo(settings, out, strict=strict, track=track)
    typer.echo(f"report: {_write_report(out, gallery=True)}")


def _write_report(folder: Path, *, gallery: bool) -> Path:
    from mammopath.report.page import write_report
    from mammopath.report.study import reference_method

    if gallery:
        from mammopath.gallery import write_gallery

        write_gallery(folder, reference_method(folder))
    return write_report(folder)
