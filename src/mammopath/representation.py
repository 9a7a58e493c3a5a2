"""What a representation gives away: the site of an image, and a patient's partner in the other modality."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from mammopath.metrics.intervals import Interval, Statistic, bootstrap
from mammopath.metrics.ranking import divided
from mammopath.objectives.align import Side
from mammopath.objectives.retrieval import Retrieval, retrieval

FOLDS = 3
"""Of the probe's cross-validation; a site needs as many patients."""

PENALTY = 0.01
"""Inverse strength of the probe's penalty: fixed, so that no representation gets a better tuned probe."""


@dataclass(frozen=True)
class Cohort:
    """Whose images a probe looks at, in the order of its features.

    Attributes:
        sites: that made them. patients: whose they are.
        malignant: 1, 0 or NaN.
    """

    sites: Shaped[np.ndarray, " n"]
    patients: Shaped[np.ndarray, " n"]
    malignant: Float[np.ndarray, " n"]

    def where(self, keep: Bool[np.ndarray, " n"]) -> "Cohort":
        """Some of the images."""
        return Cohort(self.sites[keep], self.patients[keep], self.malignant[keep])


def probed(cohort: Cohort) -> Bool[np.ndarray, " n"]:
    """Images that a site probe can use: none unless two sites have patients of their own for every fold."""
    pairs = set(zip(cohort.sites, cohort.patients, strict=True))
    homes = Counter(patient for _, patient in pairs)
    sizes = Counter(site for site, patient in pairs if homes[patient] == 1)
    large = {site for site, size in sizes.items() if size >= FOLDS}
    use = [s in large and homes[p] == 1 for s, p in zip(cohort.sites, cohort.patients, strict=True)]
    return np.array(use, dtype=bool) & (len(large) > 1)


def site_probe(features: Float[np.ndarray, "n d"], cohort: Cohort, *, draws: int = 500) -> Interval:
    """How well a linear probe reads the site off features: balanced accuracy of cross-validated answers.

    Multinomial logistic regression on standardised features, classes weighted equally; no patient is on
    both sides of a fold. Its chance level is one over the number of sites; ``site_from_label`` says what the
    label alone would give.

    Args:
        features: of at least two sites with ``FOLDS`` patients each (``probed``).
        cohort: whose they are.
        draws: of the bootstrap over the patients of each site.
    """
    names, site = np.unique(cohort.sites, return_inverse=True)
    fold = deal(cohort)
    told = np.full(len(site), -1)
    for k in range(FOLDS):
        probe = make_pipeline(
            StandardScaler(), LogisticRegression(C=PENALTY, max_iter=1000, class_weight="balanced")
        )
        told[fold == k] = probe.fit(features[fold != k], site[fold != k]).predict(features[fold == k])
    right = _balanced_accuracy(told == site, np.arange(len(names))[:, None] == site)
    return bootstrap([right], cohort.patients, draws=draws, strata=cohort.sites).interval()


def site_from_label(cohort: Cohort) -> float:
    """Balanced accuracy of the best guess of the site from the label alone: sites differ in their labels."""
    label = np.nan_to_num(cohort.malignant, nan=-1)
    own = [label[cohort.sites == site] for site in np.unique(cohort.sites)]
    shares = [[np.mean(labels == value) for value in (-1, 0, 1)] for labels in own]
    return float(np.max(shares, axis=0).sum() / len(shares))


def deal(cohort: Cohort) -> Int[np.ndarray, " n"]:
    """Fold of each image: the patients of each site are dealt out in turn."""
    fold: dict[str, int] = {}
    for site in np.unique(cohort.sites):
        own = np.unique(cohort.patients[cohort.sites == site])
        fold |= {patient: k % FOLDS for k, patient in enumerate(own)}
    return np.array([fold[p] for p in cohort.patients])


def matches(queries: Side, gallery: Side) -> dict[str, Retrieval]:
    """How patients of one modality find those of the other in the alignment space.

    Returns:
        ``label``: the right ones have the label of the query. ``patient``: the right one is the same
        patient. ``patient_in_class``: the same, searched among patients of the query's label alone, so that
        knowing the label is no help. Only what there is anything to find for.
    """
    similarity = queries.projection @ gallery.projection.T
    same_label = queries.label[:, None] == gallery.label  # false for NaN
    same_patient = (queries.pair[:, None] == gallery.pair) & (queries.pair[:, None] >= 0)
    known = ~gallery.label.isnan()
    found = {
        "label": [(similarity[:, known], same_label[:, known])],
        "patient": [(similarity, same_patient)],
        "patient_in_class": list(_by_class(queries, gallery, similarity, same_patient)),
    }
    asked = {k: [retrieval(s, right) for s, right in parts if right.any()] for k, parts in found.items()}
    return {k: merged(parts) for k, parts in asked.items() if parts}


def merged(parts: Sequence[Retrieval]) -> Retrieval:
    """Retrieval over the queries of all parts together."""
    queries = [p.queries for p in parts]

    def mean(values: Sequence[float]) -> float:
        return float(np.average(values, weights=queries))

    return Retrieval(
        queries=sum(queries),
        mean_precision=mean([p.mean_precision for p in parts]),
        chance_precision=mean([p.chance_precision for p in parts]),
        recall={k: mean([p.recall[k] for p in parts]) for k in parts[0].recall},
        chance_recall={k: mean([p.chance_recall[k] for p in parts]) for k in parts[0].recall},
    )


def joined(sides: Sequence[Side]) -> Side:
    """Patients of several batches, in an order that tells nothing: ties are then broken by chance."""
    order = torch.randperm(sum(map(len, sides)), generator=torch.Generator().manual_seed(0))
    columns = ([getattr(s, name) for s in sides] for name in ("projection", "label", "pair"))
    return Side(*(torch.cat(column)[order] for column in columns))


def _by_class(
    queries: Side, gallery: Side, similarity: Float[Tensor, "q g"], right: Bool[Tensor, "q g"]
) -> Iterator[tuple[Float[Tensor, "a b"], Bool[Tensor, "a b"]]]:
    for label in (0, 1):
        rows, columns = queries.label == label, gallery.label == label
        yield similarity[rows][:, columns], right[rows][:, columns]


def _balanced_accuracy(right: Bool[np.ndarray, " n"], member: Bool[np.ndarray, "sites n"]) -> Statistic:
    def statistic(weights: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " draws"]:
        return divided(weights @ (member & right).T, weights @ member.T).mean(axis=1)

    return statistic
