"""The predictor: a trained run applied to one case at a time, the same whatever else is asked of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mammopath.case import telling
from mammopath.case.breasts import Breast, biopsied
from mammopath.case.concordance import compare
from mammopath.case.evidence import read_evidence
from mammopath.case.glance import Glance, glance
from mammopath.case.inputs import checked
from mammopath.case.knowledge import Knowledge
from mammopath.case.links import Piece, Side, own_links, reference_links
from mammopath.case.pinned import pinned
from mammopath.case.reading import Files, Read, not_read, read_case
from mammopath.case.scan import Scan, scan
from mammopath.case.scores import (
    answered,
    read_validation,
    with_interval,
    worst,
)
from mammopath.case.values import Case, Links, Prediction, Score, SeenImage
from mammopath.case.verdicts import read_verdicts
from mammopath.confidence import read_confidence
from mammopath.errors import ConfigError, DataError, ImageReadError, WeightsError
from mammopath.maps.crossmodal import cross_link
from mammopath.maps.methods import CHEAP, METHODS
from mammopath.metrics.maps import UNTESTED
from mammopath.metrics.ood import smallest
from mammopath.progress import Track, silent
from mammopath.runs import Run, load_run, recipe_of
from mammopath.settings import Unit
from mammopath.types import MODALITIES, Modality, Skipped

BOTH = ("both", "both")
"""Modality and unit of a score that reads both modalities together."""


@dataclass(frozen=True)
class Half:
    """One modality of a case.

    Attributes:
        side: as links see it. images: what is said of each.
        logit: malignancy of the patient. severity: logits of each image, in the order of ``images``.
    """

    side: Side
    images: Sequence[SeenImage]
    logit: float
    severity: Float[Tensor, "n k"]


@dataclass(frozen=True)
class Predictor(Knowledge):
    """A run ready for new cases. Calls share nothing that changes, so threads may share a predictor.

    The numbers depend on how many CPU threads compute them, so every call pins the process to the run's
    ``threads`` while it lasts (``pinned``).
    """

    @classmethod
    def load(cls, folder: Path, *, maps: Sequence[str] = CHEAP) -> "Predictor":
        """Read a run folder.

        Args:
            folder: of the run.
            maps: names in the table of map methods.

        Raises:
            WeightsError: a file is missing, damaged, changed by hand, or of another architecture.
            DataError: the run has no calibration of its own.
            ConfigError: an unknown map method.
        """
        if unknown := [m for m in maps if m not in METHODS]:
            raise ConfigError(f"no map method {unknown[0]!r}; there are {', '.join(METHODS)}")
        run = _known_trunk(load_run(Path(folder)))
        if source := run.facts.get("source"):
            raise DataError(
                f"{folder}: was adapted, and its calibration is of before; predict with its source, {source}"
            )
        run.network.requires_grad_(False)
        evidence = read_evidence(run.folder)
        labels, logits = evidence.both_cases
        validation = {**read_validation(run.folder), BOTH: (np.array(labels), np.array(logits))}
        return cls(
            run=run,
            recipe=recipe_of(run),
            confidence=read_confidence(run.folder),
            evidence=evidence,
            verdicts=read_verdicts(run),
            validation=validation,
            maps=tuple(maps),
        )

    def __call__(self, case: Case, *, track: Track = silent) -> Prediction:
        """Everything that the run says of a case; the same whether the case comes alone or among others.

        Args:
            case: one patient.
            track: shows how far a whole slide is.

        Raises:
            DataError: the case is impossible (``inputs.checked``), or no image of it can be read.
        """
        with pinned(self.run.settings.threads):
            return self._predicted(checked(case), track)

    def _predicted(self, case: Case, track: Track) -> Prediction:
        files = read_case(case, self.run)
        scans, skipped = self._scanned(case, files, track)
        halves: dict[Modality, Half] = {}
        for modality in MODALITIES:
            own = [read for read in files.images if read[0].modality == modality]
            slides = scans if modality == "pathology" else []
            if own or slides:
                halves[modality] = self._half(modality, own, slides)
        images = [image for half in halves.values() for image in half.images]
        breast = biopsied([i.record for i in images])
        near = {m: side for m, h in halves.items() if (side := h.side.of(breast))}
        scores = self._scores(case, halves)
        compared = {m: self._compared(breast, scores, images, m) for m in MODALITIES}
        spots_ = near["mammogram"].spots if "mammogram" in near else ()
        return Prediction(
            case=case.name,
            images=tuple(images),
            scores=(*scores, *self._fused(case, near, images, breast)),
            severity={m: self._severity(h) for m, h in halves.items() if self.grades},
            links=self._links(near, breast),
            concordance=compare(compared["mammogram"], compared["pathology"], spots_, breast),
            skipped=tuple(skipped),
            provenance=self.provenance(),
        )

    # ------------------------------------------------------------ one modality

    def _scanned(self, case: Case, files: Files, track: Track) -> tuple[list[Scan], list[Skipped]]:
        """The slides of a case, field by field, and all that is not used of the case."""
        scans: list[Scan] = []
        skipped = list(files.skipped)
        known, finds = self.confidence.get("pathology"), self.finds("lesion")
        for whole in files.slides:
            try:
                with whole.slide:
                    scans.append(scan(self.run, known, whole, finds_lesions=finds, track=track))
            except ImageReadError as error:
                skipped.append(not_read(whole.record, error))
        if not files.images and not scans:
            listed = "; ".join(f"{s.where}: {s.why}" for s in skipped)
            raise DataError(f"{case.name}: no image can be used ({listed})")
        return scans, skipped

    def _half(self, modality: Modality, read: Sequence[Read], scans: Sequence[Scan]) -> Half:
        """Images that are read at once and the most suspicious fields of slides, in one pass."""
        records = [r for r, _ in read] + [s.whole.record for s in scans for _ in s.told]
        samples = [p.sample for _, p in read] + [sample for s in scans for sample in s.samples()]
        seen = glance(self.run, self.confidence.get(modality), records, samples)
        images, pieces = [], []
        for place, one in enumerate(read):
            images.append(telling.image(self, one, seen, place))
            pieces.append(_whole(images[-1]))
        for one_scan in scans:
            places = range(len(pieces), len(pieces) + len(one_scan.told))
            images.append(telling.slide(self, one_scan, seen, places))
            pieces += _fields(images[-1], one_scan)
        found = sorted((s for image in images for s in image.spots), key=lambda s: -s.score)
        side = Side(records, seen.batch, seen.output, pieces, found)
        count = len(read)
        severity = torch.stack([*seen.output.severity[:count], *(s.graded for s in scans)])
        return Half(side, images, self._patient_logit(seen, count, scans), severity)

    def _patient_logit(self, seen: Glance, count: int, scans: Sequence[Scan]) -> float:
        """Malignancy of a patient from the first ``count`` images of a pass and every field of the slides."""
        if not scans:
            return float(seen.output.patient_logit[0])
        embedding = torch.cat([seen.output.embedding[:count].float(), *(s.embedding for s in scans)])
        logit = torch.cat([seen.output.logit[:count].float(), *(s.logit for s in scans)])
        with torch.no_grad():
            return float(self.run.network.of("pathology").heads.patient(embedding, logit)[0])

    # ------------------------------------------------------------ the patient

    def _scores(self, case: Case, halves: Mapping[Modality, Half]) -> list[Score]:
        scores: list[Score] = []
        for modality, half in halves.items():
            own = half.images
            for name in sorted({i.record.laterality for i in own if modality == "mammogram"} - {""}):
                breast = [i for i in own if i.record.laterality == name]
                logit = float(np.mean([i.score.logit for i in breast]))
                scores.append(self._unit("breast", name, modality, logit, breast))
            scores.append(self._unit("patient", case.name, modality, half.logit, own))
        return scores

    def _compared(
        self, breast: Breast, scores: Sequence[Score], images: Sequence[SeenImage], modality: Modality
    ) -> Score | None:
        """What is said of a modality in the biopsied breast: of its images alone, where there are others."""
        own = [i for i in images if i.record.modality == modality]
        mine = [i for i in own if breast.has(i.record)]
        if len(mine) == len(own):
            return next((s for s in scores if (s.unit, s.modality) == ("patient", modality)), None)
        if not mine:
            return None
        logit = float(np.mean([i.score.logit for i in mine]))
        return self._unit("breast", breast.side, modality, logit, mine)

    def _fused(
        self, case: Case, near: Mapping[Modality, Side], images: Sequence[SeenImage], breast: Breast
    ) -> list[Score]:
        """What both modalities say together of the biopsied breast, if the run learnt to read them so."""
        if not self.fuses or len(near) < len(MODALITIES) or breast.why:
            return []
        with torch.no_grad():
            outputs, batches = ({m: getattr(s, k) for m, s in near.items()} for k in ("output", "batch"))
            logit = float(self.run.network.fuse(outputs, batches).logit[0])
        least = _least([i for i in images if breast.has(i.record)])
        score = answered("both", breast.side or case.name, "both", logit, self.evidence.both, least)
        return [with_interval(score, self.validation)]

    def _severity(self, half: Half) -> dict[str, float]:
        """Of the patient: of the worse breast, where sides are known."""
        return worst(half.severity, [i.record.laterality for i in half.images])

    def _unit(
        self, unit: Unit, which: str, modality: Modality, logit: float, images: Sequence[SeenImage]
    ) -> Score:
        settled = self.settled(images[0].record.modality, unit)
        score = answered(unit, which, modality, logit, settled, _least(images))
        return with_interval(score, self.validation)

    def _links(self, near: Mapping[Modality, Side], breast: Breast) -> Links:
        """Links within the biopsied breast; of a lone modality, to reference cases."""
        if breast.why:
            return Links(why=breast.why)
        if len(near) < len(MODALITIES):
            [(modality, side)] = near.items()
            with torch.no_grad():
                found = reference_links(
                    self.run.network,
                    self.evidence,
                    modality,
                    side,
                    settings=self.run.settings.prepare,
                    fused=self.fuses,
                )
        elif not self.fuses:
            return Links(why="the run did not learn to read both modalities together (model.fusion)")
        else:
            cross = cross_link(self.run.network, {m: s.batch for m, s in near.items()})
            found = own_links(cross, near["mammogram"], near["pathology"], by=self.links_by())
        return replace(found, verdict=self.verdicts.get(f"link.{found.by}", UNTESTED))


def _whole(seen: SeenImage) -> Piece:
    rows, columns = seen.guide.values.shape
    return Piece(seen.guide, (0, 0), (rows, columns))


def _fields(seen: SeenImage, one: Scan) -> list[Piece]:
    """Where the most suspicious fields of a slide lie on its map."""
    whole, mosaic = _whole(seen), one.whole.mosaic
    rows, columns = whole.shape[0] // mosaic.grid[0], whole.shape[1] // mosaic.grid[1]
    places = [mosaic.places[number].tolist() for number in one.told]
    return [Piece(whole.map, (row * rows, column * columns), (rows, columns)) for row, column in places]


def _known_trunk(run: Run) -> Run:
    """The run, if it tells which trunk it was trained on.

    Raises:
        WeightsError: it was trained on a weights file and does not tell its hash.
    """
    if run.settings.model.weights and not run.facts.get("trunk_sha256"):
        raise WeightsError(
            f"{run.folder}/run.json does not tell which trunk it was trained on; train it again"
        )
    return run


def _least(images: Sequence[SeenImage]) -> float | None:
    known = [i.score.familiar_p for i in images if i.score.familiar_p is not None]
    return smallest(np.array(known)) if known else None
