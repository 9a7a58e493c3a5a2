"""Do intervals hold what they promise, and does Holm's correction find no false winner; prints JSON.

Run: ``python benchmarks/coverage.py [samples]``. Scores are binormal, so the true AUC is known. Coverage of
95 % limits: patients with one case (DeLong, bootstrap) and with two alike (bootstrap). False winners among
five methods that are equally good; four are compared with the first, and the share of samples in which any p
after Holm is below 0.05 is told:

- ``fixed``: each method is one network with noise of its own, and the question is about these networks;
- ``retrained``: the methods are one and the same, trained with several seeds each. Networks differ by the
  seed alone (their effect and what else they look at), so whatever is found better is luck. The bootstrap of
  patients takes the networks as they are; ``difference_retrained`` adds the noise of training again.
"""

import json
import sys

import numpy as np
from scipy.stats import norm

from mammopath.metrics.delong import delong_interval, delong_test
from mammopath.metrics.intervals import bootstrap, holm, mean_statistic
from mammopath.metrics.ranking import auc, auc_statistic
from mammopath.metrics.retraining import difference_retrained, of_seeds

PATIENTS, DRAWS, METHODS = 120, 400, 5

RETRAINED_PATIENTS, NUISANCES = 400, 6
"""More patients, so that what separates two networks is seen; directions that a network weighs by chance."""


def clustered(rng: np.random.Generator, each: int, effect: float = 1.0) -> tuple[np.ndarray, ...]:
    label = (np.arange(PATIENTS) % 3 == 0).astype(float)
    shared = rng.normal(size=PATIENTS)
    scores = (shared + effect * label)[:, None] + 0.5 * rng.normal(size=(PATIENTS, each))
    return np.repeat(label, each), scores.ravel(), np.repeat(np.arange(PATIENTS), each)


def coverage(samples: int, each: int) -> dict[str, float]:
    """Share of samples whose 95 % limits hold the true AUC, by kind of interval."""
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
    """Share of samples with a false winner among networks that are equally good."""
    wins = {"one_site_bootstrap": 0, "two_sites_bootstrap": 0, "one_site_delong": 0, "without_holm": 0}
    for seed in range(samples):
        rng = np.random.default_rng(10_000 + seed)
        gaps, single = [], None
        for site in range(2):
            labels, scores, patients = clustered(rng, 1)
            arms = [scores + rng.normal(size=len(scores)) for _ in range(METHODS)]
            drawn = bootstrap([auc_statistic(labels, s) for s in arms], patients, draws=DRAWS, seed=seed)
            gaps.append(drawn.draws[1:] - drawn.draws[0])
            if site == 0:
                single = np.array([drawn.difference(k, 0).p for k in range(1, METHODS)])
                paired = np.array([delong_test(labels, arms[k], arms[0]).p for k in range(1, METHODS)])
        mean = np.mean(gaps, axis=0)
        tails = np.minimum((mean <= 0).sum(axis=1), (mean >= 0).sum(axis=1))
        both = np.minimum(1.0, 2 * (tails + 1) / (DRAWS + 1))
        wins["one_site_bootstrap"] += bool((holm(single) < 0.05).any())
        wins["two_sites_bootstrap"] += bool((holm(both) < 0.05).any())
        wins["one_site_delong"] += bool((holm(paired) < 0.05).any())
        wins["without_holm"] += bool((single < 0.05).any())
    return {name: round(count / samples, 4) for name, count in wins.items()}


def retrained_winners(samples: int, *, seeds: int, spread: float, sites: int = 1) -> dict[str, float]:
    """Share of samples with a false winner among methods that differ by their seeds alone.

    Args:
        samples: studies simulated.
        seeds: of each method.
        spread: standard deviation of what a seed does to a network, in units of the noise of a score.
        sites: over which the AUC is averaged; each has networks of its own.
    """
    wins, deviations = {"patients": 0, "retrained": 0}, []
    for sample in range(samples):
        rng = np.random.default_rng([20_000, sample])
        drawn = [_site(rng, seeds, spread, sample) for _ in range(sites)]
        gaps = np.mean([d.draws[1:] - d.draws[0] for d, _ in drawn], axis=0)
        values = np.mean([d.values[1:] - d.values[0] for d, _ in drawn], axis=0)
        tails = np.minimum((gaps <= 0).sum(axis=1), (gaps >= 0).sum(axis=1))
        fixed = np.minimum(1.0, 2 * (tails + 1) / (DRAWS + 1))
        noise = [
            [of_seeds(a, sites=sites) for _, aucs in drawn for a in (aucs[k], aucs[0])]
            for k in range(METHODS)
        ]
        again = [difference_retrained(float(values[k]), gaps[k], noise[k + 1]).p for k in range(METHODS - 1)]
        wins["patients"] += bool((holm(fixed) < 0.05).any())
        wins["retrained"] += bool((holm(np.array(again)) < 0.05).any())
        deviations += [float(np.std(a, ddof=1)) for _, aucs in drawn for a in aucs]
    rates = {name: round(count / samples, 4) for name, count in wins.items()}
    return rates | {"seed_sd_of_auc": round(float(np.mean(deviations)), 4)}


def _site(rng: np.random.Generator, seeds: int, spread: float, seed: int):
    """Draws of the methods' mean AUCs on one site, and the AUCs of their seeds."""
    labels = (np.arange(RETRAINED_PATIENTS) % 3 == 0).astype(float)
    latent = rng.normal(size=len(labels))
    seen = rng.normal(size=(len(labels), NUISANCES))

    def network() -> np.ndarray:
        effect = 1.0 + spread * rng.normal()
        return latent + effect * labels + seen @ (spread * rng.normal(size=NUISANCES))

    methods = [[network() for _ in range(seeds)] for _ in range(METHODS)]
    statistics = [mean_statistic([auc_statistic(labels, s) for s in m]) for m in methods]
    drawn = bootstrap(statistics, np.arange(len(labels)), draws=DRAWS, seed=seed)
    return drawn, [np.array([auc(labels, s) for s in m]) for m in methods]


def main(samples: int = 1000) -> None:
    found = {
        "samples": samples,
        "patients": PATIENTS,
        "draws": DRAWS,
        "coverage_one_case": coverage(samples, 1),
        "coverage_two_cases": coverage(samples, 2),
        "false_winners_fixed": false_winners(samples),
        "retrained_patients": RETRAINED_PATIENTS,
        "false_winners_retrained": {
            f"{seeds} seeds, spread {spread}, {sites} sites": retrained_winners(
                samples, seeds=seeds, spread=spread, sites=sites
            )
            for seeds, spread, sites in (
                (3, 0.0, 1),
                (3, 0.1, 1),
                (3, 0.2, 1),
                (5, 0.1, 1),
                (5, 0.2, 1),
                (3, 0.2, 4),
            )
        },
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
