"""The predictor: a trained run applied to one case at a time, the same whatever else is asked of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.utils.rnn import pad_sequence

from mammopath.case.breasts import Breast, biopsied
from mammopath.case.concordance import compare
from mammopath.case.evidence import Evidence, read_evidence
from mammopath.case.findings import spots
from mammopath.case.inputs import checked
from mammopath.case.links import Side, own_links, reference_links
from mammopath.case.pinned import pinned
from mammopath.case.scores import Validation, answered, read_validation, severities, with_interval, worst
from mammopath.case.values import Case, Links, Prediction, Score, SeenImage
from mammopath.case.verdicts import read_verdicts
from mammopath.cohort.loader import collate, label_table
from mammopath.cohort.views import not_standard
from mammopath.confidence import Confidence, Settled, read_confidence
from mammopath.errors import ConfigError, DataError, ImageReadError, WeightsError
from mammopath.files import sha256
from mammopath.images.packed import file_of
from mammopath.images.read import Header, assumes_mg, read_header
from mammopath.maps.crossmodal import cross_link
from mammopath.maps.methods import CHEAP, METHODS
from mammopath.maps.scene import Said, Scene, one_of
from mammopath.maps.values import AttentionMap
from mammopath.metrics.maps import UNTESTED
from mammopath.metrics.ood import smallest
from mammopath.model.packing import grid_of
from mammopath.objectives.recipe import Recipe
from mammopath.prepare.sample import Prepared, load_sample, prepare_fingerprint
from mammopath.runs import Run, load_run, recipe_of, trained, versions
from mammopath.settings import Unit
from mammopath.tensors import Batch, Output, Sample
from mammopath.types import MODALITIES, Modality, Record, Skipped

BOTH = ("both", "both")
"""Modality and unit of a score that reads both modalities together."""


@dataclass(frozen=True)
class Predictor:
    """A run ready for new cases. Calls share nothing that changes, so threads may share a predictor.

    The numbers depend on how many CPU threads compute them, so every call pins the process to the run's
    ``threads`` while it lasts (``pinned``).

    Attributes:
        run: network, settings, facts. recipe: that it was trained with.
        confidence: calibration by modality. evidence: fused calibration, thresholds, references.
        verdicts: of the latest audit of each map method.
        validation: labels and logits behind the calibration, by modality and unit.
        maps: methods that are drawn for every image.
    """

    run: Run
    recipe: Recipe
    confidence: Mapping[Modality, Confidence]
    evidence: Evidence
    verdicts: Mapping[str, str]
    validation: Validation
    maps: tuple[str, ...] = CHEAP

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

    def __call__(self, case: Case) -> Prediction:
        """Everything that the run says of a case; the same whether the case comes alone or among others.

        Raises:
            DataError: the case is impossible (``inputs.checked``), or no image of it can be read.
        """
        with pinned(self.run.settings.threads):
            return self._predicted(checked(case))

    def _predicted(self, case: Case) -> Prediction:
        read, skipped = self._read(case)
        sides: dict[Modality, Side] = {}
        images: list[SeenImage] = []
        for modality in MODALITIES:
            own = [(r, p) for r, p in read if r.modality == modality]
            if own:
                sides[modality], seen = self._side(modality, own)
                images += seen
        breast = biopsied([i.record for i in images])
        near = {m: side for m, s in sides.items() if (side := s.of(breast))}
        scores = self._scores(case, sides, images)
        compared = {m: self._compared(breast, scores, images, m) for m in MODALITIES}
        spots_ = near["mammogram"].spots if "mammogram" in near else ()
        return Prediction(
            case=case.name,
            images=tuple(images),
            scores=(*scores, *self._fused(case, near, images, breast)),
            severity={m: self._severity(s) for m, s in sides.items() if self._grades},
            links=self._links(near, breast),
            concordance=compare(compared["mammogram"], compared["pathology"], spots_, breast),
            skipped=tuple(skipped),
            provenance=self.provenance(),
        )

    def provenance(self) -> dict[str, Any]:
        """What stands behind the numbers."""
        network, prepare = self.run.network, self.run.settings.prepare
        return {
            "run": self.run.folder.name,
            "stamp": str(self.run.facts.get("stamp", "")),
            "model_sha256": self.run.facts.get("model_sha256"),
            "trunk_sha256": self.run.facts.get("trunk_sha256"),
            "method": self.run.facts.get("method"),
            "held_out": self.run.facts.get("held_out"),
            "encoder": self.run.settings.model.encoder,
            "preparation": {m: prepare_fingerprint(prepare, m)[:16] for m in network.modalities},
            "versions": versions(),
        }

    # ------------------------------------------------------------ reading

    def _read(self, case: Case) -> tuple[list[tuple[Record, Prepared]], list[Skipped]]:
        network, settings = self.run.network, self.run.settings
        found: list[tuple[Record, Prepared]] = []
        skipped: list[Skipped] = []
        for record in case.records:
            own = replace(record, patient=case.name, pair_key=case.name)
            if record.modality not in network.modalities:
                skipped.append(Skipped(record.image_id, "unsupported", f"the run reads no {record.modality}"))
                continue
            if settings.data.standard_views and (why := not_standard(record)):
                skipped.append(Skipped(record.image_id, "view", f"{why}; the run knows standard views only"))
                continue
            try:
                multiple = network.cell(record.modality)
                found.append((own, load_sample(own, settings.prepare, multiple=multiple)))
            except ImageReadError as error:
                why = f"{error.why}; {error.hint}" if error.hint else error.why
                skipped.append(Skipped(record.image_id, error.code, why))
        if not found:
            listed = "; ".join(f"{s.where}: {s.why}" for s in skipped)
            raise DataError(f"{case.name}: no image can be used ({listed})")
        return found, skipped

    # ------------------------------------------------------------ one modality

    def _side(
        self, modality: Modality, read: Sequence[tuple[Record, Prepared]]
    ) -> tuple[Side, list[SeenImage]]:
        network = self.run.network
        records, samples = [r for r, _ in read], [p.sample for _, p in read]
        labels = label_table(records, {})
        plain = collate(labels, range(len(records)), samples, cell=network.cell(modality))
        with torch.no_grad(), self._bits():
            batch, features = self._through_trunk(plain.to(network.device()), samples)
            output = network.upper(batch)
        familiar = self._familiar(modality, output, features)
        seen, guides = [], []
        for i, (record, prepared) in enumerate(read):
            header = read_header(record.path, assume_mg=assumes_mg(record))
            maps = self._maps(batch, output, i, record, prepared, header)
            guides.append(maps.get("lesion") or maps["attention"])
            seen.append(self._image(output, i, record, prepared, maps, familiar[i], header.decoder))
        found = sorted((s for image in seen for s in image.spots), key=lambda s: -s.score)
        return Side(records, batch, output, guides, found), seen

    def _through_trunk(
        self, batch: Batch, samples: Sequence[Sample]
    ) -> tuple[Batch, Float[np.ndarray, "b f"] | None]:
        """Tokens at the cut, and in the same pass what a frozen trunk knows the familiar by."""
        network, precision = self.run.network, self.run.settings.train.trunk_precision
        known = self.confidence.get(batch.modality)
        if known is None or known.reference is None or known.reference.features != "trunk":
            return network.with_tokens(batch, precision=precision), None
        told = network.describe(samples, batch.modality, precision=precision)
        block = network.of(batch.modality).top - 1
        grids = [grid_of(s, network.cell(batch.modality)) for s in samples]
        filled = batch.with_tokens(pad_sequence([d.tokens for d in told], batch_first=True))
        filled = replace(
            filled, prefix=network.shape.prefix, grid=torch.tensor(grids, device=batch.valid.device)
        )
        return filled, np.stack([d.statistics[block].half().float().cpu().numpy() for d in told])

    def _bits(self) -> torch.autocast:
        bf16 = self.run.settings.train.precision == "bf16"
        return torch.autocast(self.run.network.device().type, torch.bfloat16, enabled=bf16)

    def _familiar(
        self, modality: Modality, output: Output, features: Float[np.ndarray, "b f"] | None
    ) -> list[float | None]:
        known = self.confidence.get(modality)
        if known is None or known.reference is None:
            return [None] * len(output.logit)
        told = output.embedding.float().cpu().numpy() if features is None else features
        return [float(p) for p in known.reference.p(told.astype(float))]

    def _maps(
        self,
        batch: Batch,
        output: Output,
        place: int,
        record: Record,
        prepared: Prepared,
        header: Header,
    ) -> dict[str, AttentionMap]:
        """Maps of one image; the two that cost nothing are always made, as findings and links need them."""
        one = one_of(batch, place)
        count = one.valid.shape[1]
        said = Said(output.token_logit[place, :count].float(), output.attention[place, :count].float())
        scene = Scene(self.run.network, one, said)
        wanted = [n for n in METHODS if (n in CHEAP or n in self.maps) and self._can(n)]
        return {
            name: AttentionMap(
                method=name,
                unit=METHODS[name].unit,
                values=METHODS[name].make(scene),
                cell=self.run.network.cell(record.modality),
                frame=prepared.frame,
                image_id=record.image_id,
                spacing=record.spacing,
                verdict=self.verdicts.get(f"{record.modality}.{name}", UNTESTED),
                size=(header.height, header.width),
            )
            for name in wanted
        }

    def _image(
        self,
        output: Output,
        place: int,
        record: Record,
        prepared: Prepared,
        maps: Mapping[str, AttentionMap],
        familiar: float | None,
        decoder: str,
    ) -> SeenImage:
        logit = float(output.logit[place])
        score = answered(
            "image", record.image_id, record.modality, logit, self._settled(record, "image"), familiar
        )
        threshold = self.evidence.thresholds.get(record.modality, float("nan"))
        return SeenImage(
            record=record,
            frame=prepared.frame,
            score=with_interval(score, self.validation),
            severity=severities(output.severity[place]) if self._grades else {},
            spots=spots(maps["lesion"], threshold) if "lesion" in maps else (),
            maps=maps,
            sha256=sha256(file_of(record.path)),
            decoder=decoder,
        )

    # ------------------------------------------------------------ the patient

    def _scores(self, case: Case, sides: Mapping[Modality, Side], images: Sequence[SeenImage]) -> list[Score]:
        scores: list[Score] = []
        for modality, side in sides.items():
            own = [i for i in images if i.record.modality == modality]
            for name in sorted({i.record.laterality for i in own if modality == "mammogram"} - {""}):
                breast = [i for i in own if i.record.laterality == name]
                logit = float(np.mean([i.score.logit for i in breast]))
                scores.append(self._unit("breast", name, modality, logit, breast))
            scores.append(
                self._unit("patient", case.name, modality, float(side.output.patient_logit[0]), own)
            )
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
        if not self._fuses or len(near) < len(MODALITIES) or breast.why:
            return []
        with torch.no_grad():
            outputs, batches = ({m: getattr(s, k) for m, s in near.items()} for k in ("output", "batch"))
            logit = float(self.run.network.fuse(outputs, batches).logit[0])
        least = _least([i for i in images if breast.has(i.record)])
        score = answered("both", breast.side or case.name, "both", logit, self.evidence.both, least)
        return [with_interval(score, self.validation)]

    def _severity(self, side: Side) -> dict[str, float]:
        """Of the patient: of the worse breast, where sides are known."""
        return worst(side.output.severity, [r.laterality for r in side.records])

    def _unit(
        self, unit: Unit, which: str, modality: Modality, logit: float, images: Sequence[SeenImage]
    ) -> Score:
        settled = self._settled(images[0].record, unit)
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
                    fused=self._fuses,
                )
        elif not self._fuses:
            return Links(why="the run did not learn to read both modalities together (model.fusion)")
        else:
            cross = cross_link(self.run.network, {m: s.batch for m, s in near.items()})
            found = own_links(cross, near["mammogram"], near["pathology"])
        return replace(found, verdict=self.verdicts.get(f"link.{found.by}", UNTESTED))

    # ------------------------------------------------------------ facts

    @property
    def _grades(self) -> bool:
        return self.recipe.tasks.severity > 0

    @property
    def _fuses(self) -> bool:
        return self.run.network.fusion is not None and trained(self.run, "fusion")

    def _can(self, method: str) -> bool:
        tasks = self.recipe.tasks
        return not METHODS[method].trained or tasks.lesion > 0 or tasks.boxes > 0

    def _settled(self, record: Record, unit: Unit) -> Settled | None:
        known = self.confidence.get(record.modality)
        return known.settled.get(unit) if known else None


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
