"""A made study folder, as ``mammopath lodo`` leaves it; the numbers come from a seeded generator."""

import json
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from mammopath.cohort.cases import case_table
from mammopath.confidence import settle, write_confidence
from mammopath.evaluate import Resampling, Units, result_lines, source_val_auc, stamp
from mammopath.predict import write_table
from mammopath.types import Record

SITES = {
    "cbis": ("mammogram", 240),
    "mias": ("mammogram", 160),
    "bach": ("pathology", 120),
    "idc": ("pathology", 300),
}
"""Site -> modality and number of images."""

GAIN = {"logreg": 0.7, "erm": 1.0, "mixstyle": 1.1, "irm": 0.6}
"""What a method makes of the label; 0.9 for others."""


def make_study(
    folder: Path,
    *,
    methods: tuple[str, ...] = ("logreg", "erm"),
    seeds: tuple[int, ...] = (0, 1),
    check: tuple[dict, ...] = (),
    phantom: bool = False,
    draws: int = 200,
    unit: str = "image",
) -> Path:
    """Write a whole study folder with four sites of two modalities."""
    runs = [(h, m, s) for s in seeds for m in methods for h in (*SITES, "")]
    told = stamp(_data(check, phantom))
    lines = [
        line
        for held_out, method, seed in runs
        for line in _run(folder, held_out, method, seed, draws=draws, unit=unit, told=told)
    ]
    folder.mkdir(exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = {
        "name": "made study",
        "methods": methods,
        "seeds": seeds,
        "bootstrap": draws,
        "select": "source_val",
        "data": {"unit": unit},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "data.json").write_text(json.dumps(_data(check, phantom)))
    (folder / "card.json").write_text(json.dumps({"stamp": told} | CARD))
    _cases(folder).write_parquet(folder / "cases.parquet")
    return folder


CARD = {
    "licence": "Apache-2.0",
    "encoder": {
        "name": "vit_small_patch14_dinov2",
        "licence": "Apache-2.0",
        "source": "timm/vit_small_patch14_dinov2.lvd142m",
        "pretrained": True,
        "trained_part": "none",
    },
    "sources": [{"name": "bach", "about": "BACH, part A", "licence": "CC BY-NC-ND 4.0"}],
    "methods": {"erm": "Empirical risk minimisation"},
}


def _cases(folder: Path) -> pl.DataFrame:
    records = [
        Record(
            f"{site}/images/case_{k:04d}.png",
            folder / f"{site}_{k}.png",
            f"{site}-{k // 2:04d}",
            site,
            modality,
            view=("MLO" if k % 2 else "CC") if modality == "mammogram" else "",
            laterality="LR"[k % 2],
            attributes={"age": "55" if k % 3 else "65"}
            | ({"density": "abcd"[k // 2 % 4]} if site == "cbis" else {})
            | ({"lesion": ("mass", "calcification", "other")[k // 3 % 3]} if modality == "mammogram" else {}),
        )
        for site, (modality, images) in SITES.items()
        for k in range(images)
    ]
    return case_table(records)


def _trust(run: Path, table: pl.DataFrame) -> None:
    write_confidence(run, settle(table))
    test = table.filter(part="test").select("image_id", "modality")
    p = np.random.default_rng(test.height).random(test.height)
    test.with_columns(familiar_p=pl.Series(p)).write_parquet(run / "familiarity.parquet")


def _run(
    folder: Path, held_out: str, method: str, seed: int, *, draws: int, unit: str, told: str
) -> list[dict]:
    name = f"{held_out or 'in_domain'}__{method}__{seed}"
    run = folder / "runs" / name
    run.mkdir(parents=True)
    table = _predictions(held_out, method, seed)
    write_table(run / "predictions.parquet", table, stamp=told)
    facts = {
        "stamp": told,
        "run": name,
        "held_out": held_out,
        "method": method,
        "adaptation": "none",
        "seed": seed,
        "select": "source_val",
        "best_step": 200,
        "counters": {"mixstyle": 120} if method == "mixstyle" else {},
        "idle": {"irm": "only one training domain"} if method == "irm" else {},
    }
    if method != "logreg":
        _training_log(run, seed + 10 * len(method))
    if held_out and method != "logreg":
        (run / "diagnostics.json").write_text(json.dumps(_diagnostics(held_out, method, seed)))
    _trust(run, table)
    if held_out:
        _examples(run, table.filter(part="test"), count=4)
    (run / "run.json").write_text(json.dumps({"stamp": told} | _facts(held_out, method, seed)))
    units = Units(unit)
    lines = result_lines(table, facts, units=units, resampling=Resampling(draws, seed))
    return [
        line | {"source_val_auc": round(source_val_auc(table, units, line["modality"]), 6), "of": len(lines)}
        for line in lines
    ]


def _predictions(held_out: str, method: str, seed: int) -> pl.DataFrame:
    tables = []
    for site, (modality, images) in SITES.items():
        if held_out and modality != SITES[held_out][0]:
            continue
        rng = np.random.default_rng([len(site), images])  # truth and difficulty belong to the site
        malignant = (rng.random(images) < 0.35).astype(float)
        malignant[:3] = np.nan
        in_test_split = np.arange(images) >= 0.7 * images
        shared = rng.normal(size=images)
        noise = np.random.default_rng([seed, len(method), images]).normal(size=images)
        gain = GAIN.get(method, 0.9) * (0.7 if site == held_out else 1.6)
        logit = gain * np.nan_to_num(malignant) + 0.8 * shared + 0.5 * noise - 0.4
        part = np.where(site == held_out, "test", np.where(in_test_split & (not held_out), "test", "val"))
        views = (
            np.where(np.arange(images) % 2, "MLO", "CC") if modality == "mammogram" else np.full(images, "")
        )
        tables.append(
            pl.DataFrame(
                {
                    "image_id": [f"{site}/images/case_{k:04d}.png" for k in range(images)],
                    "patient": [f"{site}-{k // 2:04d}" for k in range(images)],
                    "site": [site] * images,
                    "modality": [modality] * images,
                    "laterality": ["L", "R"] * (images // 2),
                    "view": views.tolist(),
                    "malignant": malignant,
                    "severity": np.where(malignant == 1, 2.0 + np.arange(images) % 2, np.arange(images) % 2),
                    "severity_level": np.clip(np.round(logit + 1.5), 0, 3)
                    if method == "mixstyle"
                    else np.full(images, np.nan),
                    "logit": logit,
                    "patient_logit": logit,
                    "score": 1 / (1 + np.exp(-logit)),
                    "part": part.tolist(),
                    "in_test_split": in_test_split.tolist(),
                }
            )
        )
    return pl.concat(tables)


def _training_log(run: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        {
            "step": step,
            "loss": 0.7 * np.exp(-step / (200 + 5 * (seed // 10))) + 0.05 * rng.random(),
            "score": 0.8 - 0.3 * np.exp(-step / 80) + 0.02 * rng.random(),
        }
        for step in range(50, 401, 50)
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _examples(run: Path, table: pl.DataFrame, *, count: int) -> None:
    (run / "examples").mkdir()
    listed = []
    for k, row in enumerate(table.slice(3, count).iter_rows(named=True)):
        shape = (448, 224) if row["modality"] == "mammogram" else (224, 224)
        y, x = np.mgrid[: shape[0], : shape[1]] / shape[0]
        grey = (255 * np.clip(np.sin(9 * x + k) * np.cos(5 * y) * 0.4 + 0.5 - x, 0, 1)).astype(np.uint8)
        Image.fromarray(grey).save(run / "examples" / f"{k}.png")
        heat = np.stack([grey, grey // 2, 255 - grey], axis=-1)
        Image.fromarray(heat).save(run / "examples" / f"{k}_attention.png")
        listed.append(
            {
                "image_id": row["image_id"],
                "site": row["site"],
                "malignant": row["malignant"],
                "score": round(row["score"], 4),
                "image": f"examples/{k}.png",
                "overlay": f"examples/{k}_attention.png",
                "caption": " ".join(p for p in (row["laterality"], row["view"]) if p),
            }
        )
    (run / "examples.json").write_text(json.dumps(listed))


def _diagnostics(held_out: str, method: str, seed: int) -> dict:
    """As a run without true pairs leaves them; only the mammogram sites are annotated."""
    modality, images = SITES[held_out]
    other = "pathology" if modality == "mammogram" else "mammogram"
    rng = np.random.default_rng([seed, len(method), images, 7])

    def limits(name: str, value: float) -> dict:
        value += 0.03 * rng.normal()
        return {name: value, f"{name}_low": value - 0.06, f"{name}_high": value + 0.06}

    probe = {
        "modality": modality,
        "sites": sorted(s for s, (m, _) in SITES.items() if m == modality),
        "images": images,
        "patients": images // 2,
        "chance": 0.5,
        "from_label": 0.53,
        **limits("after", 0.85 if method == "erm" else 0.75),
        **limits("before", 0.92),
    }
    depths = ("1", "5", "10")
    sought = {
        "modality": modality,
        "link": "label",
        "query_part": "test",
        "gallery_part": "val",
        "queries": images // 2,
        "mean_precision": 0.52 + 0.02 * rng.random(),
        "chance_precision": 0.51,
        "recall": {k: 0.6 + 0.03 * i + 0.01 * rng.random() for i, k in enumerate(depths)},
        "chance_recall": {k: 0.55 + 0.03 * i for i, k in enumerate(depths)},
    }
    maps = [
        {
            "modality": modality,
            "site": held_out,
            "map": name,
            "target": target,
            "images": images,
            "with_lesion": images // share,
            "lesions": images // share + 2,
            "pointing_chance": 0.06,
            "froc_chance": 0.15,
            "froc_at": [0.2, 0.35, 0.5, 0.6],
            **limits("pointing", 0.4 if name == "lesion" else 0.2),
            **limits("froc", 0.45 if name == "lesion" else 0.3),
        }
        for name in ("lesion", "attention")
        for target, share in (("malignant", 4), ("any", 2))
    ]
    return {
        "site_probe": [probe, probe | {"modality": other}],
        "modality_gap": 0.4 + 0.1 * rng.random(),
        "retrieval": [sought, sought | {"modality": other, "query_part": "val", "gallery_part": "test"}],
        "localisation": maps if modality == "mammogram" else [],
    }


def _facts(held_out: str, method: str, seed: int) -> dict:
    return {
        "versions": {"mammopath": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6"},
        "held_out": held_out or None,
        "method": method,
        "seed": seed,
        "fingerprint": "f" * 64,
        "seconds": 12.3 + seed,
        "threads": 2,
        "device": "cpu",
        "warnings": [],
    }


def _data(check: tuple[dict, ...], phantom: bool) -> dict:
    sites = [
        {
            "site": site,
            "modality": modality,
            "images": images,
            "patients": None if site == "bach" else images // 2,
            "positives": round(0.35 * images),
            "negatives": images - 3 - round(0.35 * images),
            "unknown": 3,
            "spacing": "200 um" if modality == "mammogram" else "0.42 um",
            "official_split": site == "cbis",
            "sources": site,
        }
        for site, (modality, images) in SITES.items()
    ]
    skipped = [{"where": "mias/broken.pgm", "code": "truncated", "why": "the file ends in row 12"}]
    facts = {"fingerprint": "f" * 64, "pairing": "same_label", "sites": sites, "phantom": phantom}
    return facts | {"check": list(check), "skipped": skipped}
