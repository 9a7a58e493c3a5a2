"""Speed of the patient bootstrap and of DeLong against a loop over scikit-learn; prints JSON.

Run: ``python benchmarks/intervals.py [cases] [methods] [draws]``. The loop is timed on a few draws and
scaled up, as all of them would take minutes.
"""

import json
import sys
import time

import numpy as np
from sklearn.metrics import roc_auc_score

from mammopath.metrics.delong import delong_covariance
from mammopath.metrics.intervals import bootstrap
from mammopath.metrics.ranking import auc_statistic

LOOP_DRAWS = 20


def main(cases: int = 10_000, methods: int = 20, draws: int = 2000) -> None:
    rng = np.random.default_rng(0)
    patients = rng.integers(0, cases // 2, cases)
    labels = (rng.random(cases) < 0.3).astype(float)
    scores = rng.normal(size=(methods, cases)) + labels

    start = time.perf_counter()
    found = bootstrap([auc_statistic(labels, s) for s in scores], patients, draws=draws)
    ours = time.perf_counter() - start

    start = time.perf_counter()
    _loop(labels, scores, patients)
    loop = (time.perf_counter() - start) * draws / LOOP_DRAWS

    start = time.perf_counter()
    delong_covariance(labels, scores)
    delong = time.perf_counter() - start
    print(
        json.dumps(
            {
                "cases": cases,
                "methods": methods,
                "draws": draws,
                "bootstrap_s": round(ours, 2),
                "sklearn_loop_s_extrapolated": round(loop, 1),
                "times_faster": round(loop / ours, 1),
                "delong_all_methods_s": round(delong, 3),
                "width_of_interval": round(float(np.ptp(np.quantile(found.draws[0], [0.025, 0.975]))), 4),
            },
            indent=2,
        )
    )


def _loop(labels: np.ndarray, scores: np.ndarray, patients: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    names, inverse = np.unique(patients, return_inverse=True)
    order, ends = np.argsort(inverse), np.cumsum(np.bincount(inverse))
    members = np.split(order, ends[:-1])
    for _ in range(LOOP_DRAWS):
        chosen = np.concatenate([members[p] for p in rng.integers(0, len(names), len(names))])
        for score in scores:
            roc_auc_score(labels[chosen], score[chosen])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
