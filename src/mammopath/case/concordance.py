"""Radiologic-pathologic concordance: a rule on what is said of each modality, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace

from mammopath.case.breasts import Breast
from mammopath.case.values import Concordance, Score, Spot

VERDICTS = ("concordant malignant", "concordant benign", "discordant", "insufficient")

MISSED = "mammogram malignant, tissue benign"
OCCULT = "tissue malignant, mammogram not suspicious"


def compare(
    mammogram: Score | None, pathology: Score | None, spots: Sequence[Spot], breast: Breast
) -> Concordance:
    """Concordance of the biopsied breast, with which one that is.

    Args:
        mammogram: of the mammograms of that breast alone; None where there is none.
        pathology: of the tissue, likewise.
        spots: of those mammograms, the worst first.
        breast: that the tissue is of.
    """
    if breast.why:
        return Concordance("insufficient", breast.why, look=(f"Not compared: {breast.why}.",))
    found = concordance(mammogram, pathology, spots)
    basis = f"mammograms of the {breast.side} breast" if breast.side else "all mammograms of the patient"
    return replace(found, basis=basis, look=(*found.look, *([breast.note] if breast.note else [])))


def concordance(mammogram: Score | None, pathology: Score | None, spots: Sequence[Spot] = ()) -> Concordance:
    """Compare what the mammograms and the tissue of a breast say.

    Each is answered by its own conformal set and familiarity (``confidence.judge``). Where both have an
    answer they are concordant if the answers are equal, discordant if not; else it is insufficient. The
    strength of a disagreement is the probability that each modality is right by itself: the product of
    the calibrated probabilities of the two answers.

    Args:
        mammogram: of the mammograms; None where there is none.
        pathology: of the tissue, likewise.
        spots: suspicious regions of the mammograms, the worst first.
    """
    if mammogram is None or pathology is None:
        missing = "mammogram" if mammogram is None else "tissue"
        return Concordance("insufficient", f"no {missing}", look=(f"There is no {missing} to compare with.",))
    both = (("mammogram", mammogram), ("tissue", pathology))
    silent = [f"{name}: {score.why}" for name, score in both if score.answer == "insufficient"]
    if silent:
        look = tuple(f"Not answered: {why}." for why in silent)
        return Concordance("insufficient", "; ".join(silent), look=look)
    if mammogram.answer == pathology.answer:
        agreed = "malignant" if mammogram.answer == "malignant" else "benign"
        return Concordance(f"concordant {agreed}")
    if mammogram.answer == "malignant":
        strength = mammogram.probability * (1 - pathology.probability)
        return Concordance("discordant", MISSED, strength, _missed(spots))
    strength = pathology.probability * (1 - mammogram.probability)
    return Concordance("discordant", OCCULT, strength, _occult())


def _missed(spots: Sequence[Spot]) -> tuple[str, ...]:
    where = [f"Region {s.number} of {s.image_id}{_size(s)} stands for the suspicion." for s in spots[:2]]
    return (
        "Benign tissue does not explain this mammogram: was the needle in the region that is suspicious?",
        *where,
        "Compare the specimen radiograph and the clip with the region; a second biopsy may be needed.",
    )


def _occult() -> tuple[str, ...]:
    return (
        "The mammogram does not show what the tissue says: are both of the same breast and place?",
        "A malignancy can be invisible in mammograms; look at the biopsied place and at other imaging.",
        "Look at the linked tissue patches below: is it the lesion, or a part that looks like one?",
    )


def _size(spot: Spot) -> str:
    return "" if spot.mm is None else f" ({spot.mm[0]:.0f} x {spot.mm[1]:.0f} mm)"
