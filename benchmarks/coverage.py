"""Do intervals hold what they promise, and does Holm's correction find no false winner; prints JSON.

Run: ``python benchmarks/coverage.py [samples]``. Scores are binormal, so the true AUC is known. Coverage of
95 % limits: patients with one case (DeLong, bootstrap) and with two alike (bootstrap). False winners: five
methods that are equally good, each with noise of its own; four are compared with the first, and the share of
samples in which any p after Holm is below 0.05 is told, on one site and for the mean over two.
"""

import json
import sys

import numpy as np
from scipy.stats import norm

from mammopath.metrics.delong import delong_interval, delong_test
from mammopath.metrics.intervals import bootstrap, holm
from mammopath.metrics.ranking import auc_statistic

PATIENTS, DRAWS = 120, 400


def clustered(rng: np.random.Generator, each: int, effect: float = 1.0) -> tuple[np.ndarray, ...]:
    label = (np.arange(PATIENTS) % 3 == 0).astype(float)
    shared = rng.normal(size=PATIENTS)
    scores = (shared + effect * label)[:, None] + 0.5 * rng.normal(size=(PATIENTS, each))
    return np.repeat(label, each), scores.ravel(), np.repeat(np.arange(PATIENTS), each)


def coverage(samples: int, each: int) -> dict[str, float]:
    truth = norm.cdf(1.0 / np.sqrt(2 * 1.25))
    held = {"percentile": 0, "bca": 0} | ({"delong": 0} if each == 1 else {})
    for seed in range(samples):
        labels, scores, patients = clustered(np.random.default_rng(seed), each)
        drawn = bootstrap([auc_statistic(labels, scores)], patients, draws=DRAWS, seed=seed, jackknife=True)
        found = {kind: drawn.interval(kind=kind) for kind in ("percentile", "bca")}
        if each == 1:
            found["delong"] = delong_interval(labels, scores)
        for name, limits in found.items():
            held[name] += limits.low <= truth <= limits.high
    return {name: round(count / samples, 4) for name, count in held.items()}


def false_winners(samples: int) -> dict[str, float]:
    wins = {"one_site_bootstrap": 0, "two_sites_bootstrap": 0, "one_site_delong": 0, "without_holm": 0}
    for seed in range(samples):
        rng = np.random.default_rng(10_000 + seed)
        gaps, values, single = [], [], None
        for site in range(2):
            labels, scores, patients = clustered(rng, 1)
            arms = [scores + rng.normal(size=len(scores)) for _ in range(5)]
            drawn = bootstrap([auc_statistic(labels, s) for s in arms], patients, draws=DRAWS, seed=seed)
            gaps.append(drawn.draws[1:] - drawn.draws[0])
            values.append(drawn.values[1:] - drawn.values[0])
            if site == 0:
                single = np.array([drawn.difference(k, 0).p for k in range(1, 5)])
                paired = np.array([delong_test(labels, arms[k], arms[0]).p for k in range(1, 5)])
        mean = np.mean(gaps, axis=0)
        tails = np.minimum((mean <= 0).sum(axis=1), (mean >= 0).sum(axis=1))
        both = np.minimum(1.0, 2 * (tails + 1) / (DRAWS + 1))
        wins["one_site_bootstrap"] += bool((holm(single) < 0.05).any())
        wins["two_sites_bootstrap"] += bool((holm(both) < 0.05).any())
        wins["one_site_delong"] += bool((holm(paired) < 0.05).any())
        wins["without_holm"] += bool((single < 0.05).any())
    return {name: round(count / samples, 4) for name, count in wins.items()}


def main(samples: int = 1000) -> None:
    found = {
        "samples": samples,
        "patients": PATIENTS,
        "draws": DRAWS,
        "coverage_one_case": coverage(samples, 1),
        "coverage_two_cases": coverage(samples, 2),
        "false_winners": false_winners(samples),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
