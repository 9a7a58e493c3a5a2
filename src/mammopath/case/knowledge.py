"""What a run knows that predictions rest on: network, calibration, references, verdicts on its maps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mammopath.case.evidence import Evidence
from mammopath.case.links import BY, By
from mammopath.case.scores import Validation
from mammopath.confidence import Confidence, Settled
from mammopath.maps.methods import CHEAP, METHODS
from mammopath.objectives.recipe import Recipe
from mammopath.prepare.sample import prepare_fingerprint
from mammopath.runs import Run, trained, versions
from mammopath.settings import Unit
from mammopath.types import Modality


@dataclass(frozen=True)
class Knowledge:
    """A run, and all beside its network that a prediction says something from.

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

    @property
    def grades(self) -> bool:
        """Whether the run learnt severity."""
        return self.recipe.tasks.severity > 0

    @property
    def fuses(self) -> bool:
        """Whether the run learnt to read both modalities together."""
        return self.run.network.fusion is not None and trained(self.run, "fusion")

    def finds(self, method: str) -> bool:
        """Whether the run learnt what a map method shows."""
        tasks = self.recipe.tasks
        return not METHODS[method].trained or tasks.lesion > 0 or tasks.boxes > 0

    def methods(self) -> list[str]:
        """Maps that are made; the two that cost nothing always are, as findings and links need them."""
        return [n for n in METHODS if (n in CHEAP or n in self.maps) and self.finds(n)]

    def links_by(self) -> By:
        """Weights that links are made of: what the latest audit passed, else what training asked for.

        The ingredient ``link`` teaches the attention; without it only the gradient of the fused malignancy
        ties a region to tissue.
        """
        passed: list[By] = [by for by in BY if self.verdicts.get(f"link.{by}") == "passed"]
        taught: By = "attention" if self.recipe.link.weight > 0 else "relevance"
        return taught if taught in passed or not passed else passed[0]

    def settled(self, modality: Modality, unit: Unit) -> Settled | None:
        """Calibration of a unit."""
        known = self.confidence.get(modality)
        return known.settled.get(unit) if known else None

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
