"""Operating characteristics of the acceptance test, by simulation; prints JSON.

Run: ``python benchmarks/acceptance.py [repetitions]``. A site's true AUC (binormal scores) and its true
sensitivity at the carried threshold move together; the targets are 0.80 and 0.80. Priors: none, four earlier
sites around the truth of a good model, and four that promise more than the site keeps.
"""

import json
import sys
from itertools import product

import numpy as np
from scipy.special import expit, logit, ndtri

from mammopath.metrics.siting import Evidence, Rules, site_prior
from mammopath.verdict import Priors, Sample, Targets, decide

TRUTHS = (0.70, 0.75, 0.80, 0.85, 0.90)
SIZES = (50, 100, 200, 400)
SHARE = 0.4
ASKED = Targets(auc=0.80, sensitivity=0.80)


def prior(centre: float | None) -> Priors:
    """Four earlier sites of 200 cases, spread by 0.25 on the logit scale."""
    if centre is None:
        return Priors(site_prior([]), site_prior([]))
    sites = [Evidence(float(expit(logit(centre) + 0.25 * z)), 0.2) for z in (-1.2, -0.3, 0.3, 1.2)]
    return Priors(site_prior(sites), site_prior(sites))


def local_sample(rng: np.random.Generator, cases: int, truth: float) -> Sample:
    """Binormal scores whose AUC is ``truth``, and a threshold whose sensitivity is ``truth`` too."""
    labels = (np.arange(cases) < round(SHARE * cases)).astype(np.int64)
    shift = np.sqrt(2) * ndtri(truth)
    scores = rng.normal(size=cases) + shift * labels
    threshold = shift - ndtri(truth)
    return Sample(labels, scores, np.arange(cases), scores >= threshold)


def main(repetitions: int = 400) -> None:
    rows = []
    priors = {"none": None, "fair, 0.85": 0.85, "promising, 0.90": 0.90}
    for (name, centre), cases, truth in product(priors.items(), SIZES, TRUTHS):
        rng, known = np.random.default_rng(0), prior(centre)
        found = [
            decide(local_sample(rng, cases, truth), known, ASKED, rules=Rules(), plan=False)[0]
            for _ in range(repetitions)
        ]
        rates = {k: round(found.count(k) / repetitions, 3) for k in ("accept", "reject", "more")}
        rows.append({"prior": name, "cases": cases, "truth": truth} | rates)
    print(
        json.dumps(
            {
                "auc": ASKED.auc,
                "sensitivity": ASKED.sensitivity,
                "repetitions": repetitions,
                "share_malignant": SHARE,
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
