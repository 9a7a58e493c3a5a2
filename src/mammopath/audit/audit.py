"""The audit of a run: every map method over images that trained nothing, and the link over true pairs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mammopath import RESEARCH_USE_ONLY
from mammopath.audit.figures import MapFigures, figures
from mammopath.audit.pairs import LEAST, LinkFigures, link_figures, people
from mammopath.audit.shuffled import shuffled
from mammopath.audit.subjects import subjects
from mammopath.case.links import BY
from mammopath.case.values import plain
from mammopath.case.verdicts import FILE
from mammopath.cohort import manifest as table_of
from mammopath.cohort.views import standard_views
from mammopath.errors import ConfigError, DataError
from mammopath.files import write_text
from mammopath.maps.methods import METHODS
from mammopath.metrics.maps import UNTESTED
from mammopath.parallel import threads
from mammopath.progress import Track, silent
from mammopath.runs import Run, load_run, recipe_of, trained
from mammopath.types import Record

EDGES = "edges (control)"
"""A map that knows nothing of the network; an audit in which it passes is itself broken."""


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        maps: figures of every method in every modality. links: of the link, where there are true pairs.
        known: training sites among the sites of the images; every verdict says so.
    """

    maps: tuple[MapFigures, ...]
    links: tuple[LinkFigures, ...]
    known: tuple[str, ...] = ()

    def told(self, verdict: str) -> str:
        """A verdict, with a warning where images may have trained the run."""
        if not self.known or verdict.startswith(UNTESTED):
            return verdict
        return f"{verdict}, but on images of training sites ({', '.join(self.known)})"

    def verdicts(self) -> dict[str, str]:
        """Of every map method by ``modality.method``, and of the link by ``link.by``."""
        maps = {f"{m.modality}.{m.method}": m.verdict for m in self.maps if m.method in METHODS}
        links = {f"link.{link.by}": link.verdict for link in self.links}
        return {name: self.told(verdict) for name, verdict in (maps | links).items()}

    def to_json(self, run: Run) -> dict[str, Any]:
        """As kept beside the run."""
        return {
            "notice": RESEARCH_USE_ONLY,
            "model_sha256": run.facts.get("model_sha256"),
            "training_sites_among_the_images": list(self.known),
            "verdicts": self.verdicts(),
            "maps": [plain(asdict(m)) for m in self.maps],
            "links": [plain(asdict(link)) for link in self.links],
        }


def audit_run(
    folder: Path,
    manifest: Path,
    *,
    images: int,
    site: str = "",
    out: Path | None = None,
    track: Track = silent,
) -> Audit:
    """Audit a run on the images of a manifest, and keep the verdicts beside the run.

    Args:
        folder: of the run.
        manifest: images that trained nothing.
        images: of each modality, at most.
        site: only this one, if it is named.
        out: also write all figures there.
        track: shows progress.

    Raises:
        WeightsError: not a run folder.
        DataError: no image of the manifest can be read.
        ConfigError: ``out`` is a folder.
    """
    if out and out.is_dir():
        raise ConfigError(f"{out} is a folder; name a file for the figures")
    run = load_run(folder)
    run.network.requires_grad_(False)
    cohort = table_of.read(manifest)
    cohort = standard_views(cohort) if run.settings.data.standard_views else cohort
    records = [r for r in cohort.records if not site or r.domain == site]
    with threads(run.settings.threads):
        maps = audit_maps(run, records, images=images, track=track)
        found = Audit(maps, audit_links(run, records, most=images), training_sites(run, records))
    text = json.dumps(found.to_json(run), indent=1)
    write_text(folder / FILE, text)
    if out:
        write_text(out, text)
    return found


def audit_maps(
    run: Run, records: Sequence[Record], *, images: int, track: Track = silent
) -> tuple[MapFigures, ...]:
    """Figures of every map method, and of the edge map as a control.

    Raises:
        DataError: no image can be read.
    """
    tasks = recipe_of(run).tasks
    noise = shuffled(run.network)
    found: list[MapFigures] = []
    for modality in run.network.modalities:
        looked = subjects(run.network, records, run.settings, modality=modality, most=images)
        if not looked:
            continue
        known = {id(s.scene.batch): s.edges for s in looked} | {id(s.shifted.batch): s.edges for s in looked}
        makers = {
            n: m.make for n, m in METHODS.items() if not m.trained or tasks.lesion > 0 or tasks.boxes > 0
        } | {EDGES: lambda scene, known=known: known[id(scene.batch)]}
        names = list(makers)
        for i in track(range(len(names)), f"maps of {modality}", len(names)):
            found.append(figures(looked, names[i], makers[names[i]], noise=noise))
    if not found:
        raise DataError("no image of the manifest can be read, so there is nothing to audit")
    return tuple(found)


def audit_links(run: Run, records: Sequence[Record], *, most: int) -> tuple[LinkFigures, ...]:
    """Figures of the link; none where the run never learnt to fuse or too few pairs have known lesions."""
    if run.network.fusion is None or not trained(run, "fusion"):
        return ()
    persons = people(run.network, records, run.settings, most=most)
    if sum(p.annotated for p in persons) < LEAST:
        return ()
    return tuple(link_figures(run.network, persons, by=by) for by in BY)


def training_sites(run: Run, records: Sequence[Record]) -> tuple[str, ...]:
    """Sites of the records whose other images trained the run."""
    taught = {site for sites in run.facts.get("sites", {}).values() for site in sites}
    return tuple(sorted(taught & {r.domain for r in records}))
