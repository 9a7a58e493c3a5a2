"""The audit of a run: every map method over images that trained nothing, and the link over true pairs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mammopath import RESEARCH_USE_ONLY
from mammopath.audit.figures import MapFigures, figures
from mammopath.audit.pairs import LinkFigures, link_figures, people
from mammopath.audit.shuffled import shuffled
from mammopath.audit.subjects import subjects
from mammopath.case.values import plain
from mammopath.case.verdicts import FILE
from mammopath.cohort import manifest as table_of
from mammopath.errors import DataError
from mammopath.files import write_text
from mammopath.maps.methods import METHODS
from mammopath.objectives.recipe import Recipe
from mammopath.progress import Track, silent
from mammopath.runs import Run, load_run
from mammopath.types import Record

EDGES = "edges (control)"
"""A map that knows nothing of the network; an audit in which it passes is itself broken."""


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        maps: figures of every method in every modality. links: of the link, where there are true pairs.
    """

    maps: tuple[MapFigures, ...]
    links: tuple[LinkFigures, ...]

    def to_json(self, run: Run) -> dict[str, Any]:
        """As kept beside the run."""
        return {
            "notice": RESEARCH_USE_ONLY,
            "model_sha256": run.facts.get("model_sha256"),
            "verdicts": {f"{m.modality}.{m.method}": m.verdict for m in self.maps if m.method in METHODS},
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
    """
    run = load_run(folder)
    run.network.requires_grad_(False)
    records = [r for r in table_of.read(manifest).records if not site or r.domain == site]
    found = Audit(
        audit_maps(run, records, images=images, track=track), audit_links(run, records, most=images)
    )
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
    tasks = _recipe(run).tasks
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
    """Figures of the link; none where the run does not fuse or fewer than four pairs have known lesions."""
    if run.network.fusion is None or _recipe(run).tasks.fusion == 0:
        return ()
    persons = people(run.network, records, run.settings, most=most)
    if sum(p.malignant for p in persons) < 4:
        return ()
    return tuple(link_figures(run.network, persons, by=by) for by in ("relevance", "attention"))


def _recipe(run: Run) -> Recipe:
    return Recipe.model_validate(run.facts.get("recipe", {}))
