"""The predictor: a trained run applied to one case at a time, the same whatever else is asked of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mammopath.case.concordance import concordance
from mammopath.case.evidence import Evidence, read_evidence
from mammopath.case.findings import spots
from mammopath.case.inputs import checked
from mammopath.case.links import Side, own_links, reference_links
from mammopath.case.scores import Validation, answered, read_validation, severities, with_interval
from mammopath.case.values import Case, Links, Prediction, Score, SeenImage
from mammopath.case.verdicts import read_verdicts
from mammopath.cohort.loader import collate, label_table
from mammopath.confidence import Confidence, Settled, read_confidence
from mammopath.errors import ConfigError, DataError, ImageReadError
from mammopath.files import sha256
from mammopath.images.read import read_header
from mammopath.maps.crossmodal import cross_link
from mammopath.maps.methods import CHEAP, METHODS
from mammopath.maps.scene import Said, Scene, one_of
from mammopath.maps.values import UNTESTED, AttentionMap
from mammopath.objectives.recipe import Recipe
from mammopath.prepare.sample import Prepared, load_sample, prepare_fingerprint
from mammopath.runs import Run, load_run, versions
from mammopath.settings import Unit
from mammopath.tensors import Batch, Output
from mammopath.types import MODALITIES, Modality, Record, Skipped


@dataclass(frozen=True)
class Predictor:
    """A run ready for new cases. Calls share nothing that changes, so threads may share a predictor.

    Attributes:
        run: network, settings, facts.
        confidence: calibration by modality. evidence: fused calibration, thresholds, references.
        verdicts: of the latest audit of each map method.
        validation: labels and logits behind the calibration, by modality and unit.
        maps: methods that are drawn for every image.
    """

    run: Run
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
            DataError: the run keeps no calibration.
            ConfigError: an unknown map method.
        """
        if unknown := [m for m in maps if m not in METHODS]:
            raise ConfigError(f"no map method {unknown[0]!r}; there are {', '.join(METHODS)}")
        run = load_run(Path(folder))
        run.network.requires_grad_(False)
        confidence = read_confidence(run.folder)
        evidence, validation = read_evidence(run.folder), read_validation(run.folder)
        return cls(run, confidence, evidence, read_verdicts(run), validation, tuple(maps))

    def __call__(self, case: Case) -> Prediction:
        """Everything that the run says of a case; the same whether the case comes alone or among others.

        Raises:
            DataError: the case is impossible (``inputs.checked``), or no image of it can be read.
        """
        case = checked(case)
        read, skipped = self._read(case)
        sides: dict[Modality, Side] = {}
        images: list[SeenImage] = []
        for modality in MODALITIES:
            own = [(r, p) for r, p in read if r.modality == modality]
            if own:
                sides[modality], seen = self._side(modality, own)
                images += seen
        scores = self._scores(case, sides, images)
        found = {(s.unit, s.modality): s for s in scores}
        breast = [s for i in images if i.record.modality == "mammogram" for s in i.spots]
        return Prediction(
            case=case.name,
            images=tuple(images),
            scores=tuple(scores),
            severity={m: severities(s.output.severity.mean(0)) for m, s in sides.items() if self._grades},
            links=self._links(sides),
            concordance=concordance(
                found.get(("patient", "mammogram")), found.get(("patient", "pathology")), breast
            ),
            skipped=tuple(skipped),
            provenance=self.provenance(),
        )

    def provenance(self) -> dict[str, Any]:
        """What stands behind the numbers."""
        network, prepare = self.run.network, self.run.settings.prepare
        return {
            "run": self.run.folder.name,
            "model_sha256": self.run.facts.get("model_sha256"),
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
            try:
                multiple = network.cell(record.modality)
                found.append((own, load_sample(own, settings.prepare, multiple=multiple)))
            except ImageReadError as error:
                skipped.append(Skipped(record.image_id, error.code, error.why))
        if not found:
            listed = "; ".join(f"{s.where}: {s.why}" for s in skipped)
            raise DataError(f"{case.name}: no image can be read ({listed})")
        return found, skipped

    # ------------------------------------------------------------ one modality

    def _side(
        self, modality: Modality, read: Sequence[tuple[Record, Prepared]]
    ) -> tuple[Side, list[SeenImage]]:
        network = self.run.network
        records, samples = [r for r, _ in read], [p.sample for _, p in read]
        labels = label_table(records, {})
        batch = collate(labels, range(len(records)), samples, cell=network.cell(modality)).to(
            network.device()
        )
        with torch.no_grad(), self._bits():
            batch = network.with_tokens(batch, precision=self.run.settings.train.trunk_precision)
            output = network.upper(batch)
        familiar = self._familiar(modality, samples, output)
        seen, guides = [], []
        for i, (record, prepared) in enumerate(read):
            maps = self._maps(batch, output, i, record, prepared)
            guides.append(maps.get("lesion") or maps["attention"])
            seen.append(self._image(output, i, record, prepared, maps, familiar[i]))
        return Side(batch, output, guides, [s for image in seen for s in image.spots]), seen

    def _bits(self) -> torch.autocast:
        bf16 = self.run.settings.train.precision == "bf16"
        return torch.autocast(self.run.network.device().type, torch.bfloat16, enabled=bf16)

    def _familiar(self, modality: Modality, samples: Sequence[Any], output: Output) -> list[float | None]:
        known = self.confidence.get(modality)
        if known is None or known.reference is None:
            return [None] * len(samples)
        features = output.embedding.float().cpu().numpy()
        if known.reference.features == "trunk":
            network = self.run.network
            precision = self.run.settings.train.trunk_precision
            told = [network.describe([s], modality, precision=precision)[0].statistics for s in samples]
            features = np.stack([t[network.of(modality).top - 1].half().float().cpu().numpy() for t in told])
        return [float(p) for p in known.reference.p(features.astype(float))]

    def _maps(
        self, batch: Batch, output: Output, place: int, record: Record, prepared: Prepared
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
            sha256=sha256(record.path),
            decoder=read_header(record.path).decoder,
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
        if self._fuses and len(sides) == len(MODALITIES):
            with torch.no_grad():
                outputs, batches = ({m: getattr(s, k) for m, s in sides.items()} for k in ("output", "batch"))
                logit = float(self.run.network.fuse(outputs, batches).logit[0])
            scores.append(answered("both", case.name, "both", logit, self.evidence.both, _least(images)))
        return scores

    def _unit(
        self, unit: Unit, which: str, modality: Modality, logit: float, images: Sequence[SeenImage]
    ) -> Score:
        settled = self._settled(images[0].record, unit)
        score = answered(unit, which, modality, logit, settled, _least(images))
        return with_interval(score, self.validation)

    def _links(self, sides: Mapping[Modality, Side]) -> Links:
        if not self._fuses:
            return Links(why="the run did not learn to read both modalities together (model.fusion)")
        if len(sides) < len(MODALITIES):
            [(modality, side)] = sides.items()
            with torch.no_grad():
                settings = self.run.settings.prepare
                return reference_links(self.run.network, self.evidence, modality, side, settings=settings)
        batches = {m: s.batch for m, s in sides.items()}
        cross = cross_link(self.run.network, batches)
        return own_links(cross, sides["mammogram"], sides["pathology"])

    # ------------------------------------------------------------ facts

    @property
    def _recipe(self) -> Recipe:
        return Recipe.model_validate(self.run.facts.get("recipe", {}))

    @property
    def _grades(self) -> bool:
        return self._recipe.tasks.severity > 0

    @property
    def _fuses(self) -> bool:
        return self.run.network.fusion is not None and self._recipe.tasks.fusion > 0

    def _can(self, method: str) -> bool:
        tasks = self._recipe.tasks
        return not METHODS[method].trained or tasks.lesion > 0 or tasks.boxes > 0

    def _settled(self, record: Record, unit: Unit) -> Settled | None:
        known = self.confidence.get(record.modality)
        return known.settled.get(unit) if known else None


def _least(images: Sequence[SeenImage]) -> float | None:
    known = [i.score.familiar_p for i in images if i.score.familiar_p is not None]
    return min(known) if known else None
