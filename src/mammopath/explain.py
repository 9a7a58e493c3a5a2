"""Examples of a run: a few test images with what the network looked at, before any audit."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from mammopath import RESEARCH_USE_ONLY
from mammopath.cohort.loader import Pick
from mammopath.features import Bank, plain_view
from mammopath.files import write_text
from mammopath.images.geometry import Frame
from mammopath.maps.methods import METHODS
from mammopath.maps.overlay import Picture, overlay, save
from mammopath.maps.scene import Scene
from mammopath.maps.values import AttentionMap
from mammopath.model.network import Network
from mammopath.predict import Scores
from mammopath.settings import RunSettings
from mammopath.tensors import Sample
from mammopath.types import Record


def attention_of(network: Network, bank: Bank, record: Record, row: int) -> AttentionMap:
    """Pooling attention over one prepared image, which no audit can have looked at yet."""
    batch = bank.batch(record.modality, [Pick(row, 0)]).to(network.device())
    with torch.inference_mode():
        weights = network.eval()(batch).attention[0]
    return AttentionMap(
        method="attention",
        unit=METHODS["attention"].unit,
        values=Scene(network, batch).on_grid(weights),
        cell=network.cell(record.modality),
        frame=Frame(),
        image_id=record.image_id,
    )


def grey_or_rgb(sample: Sample) -> UInt8[np.ndarray, "h w 3"]:
    """The prepared image as 8-bit RGB."""
    image = (sample.image.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return np.ascontiguousarray(np.broadcast_to(image.transpose(1, 2, 0), (*image.shape[1:], 3)))


def telling_rows(records: Sequence[Record], scores: Scores, rows: Sequence[int], count: int) -> list[int]:
    """Rows worth looking at: right and wrong, sure and unsure, from each site and modality in turn.

    In each site the images are ordered from the clearest error to the clearest hit, and taken at
    equal distances along that order.
    """
    logit = dict(zip(scores.rows.tolist(), scores.logit.tolist(), strict=True))
    sites: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if records[row].malignant in (0, 1) and row in logit:
            sites.setdefault((records[row].domain, records[row].modality), []).append(row)
    chosen: list[int] = []
    for group in sites.values():
        group.sort(key=lambda r: logit[r] * (1 if records[r].malignant == 1 else -1))
        share = max(1, count // len(sites))
        places = np.linspace(0, len(group) - 1, num=min(share, len(group))).round().astype(int)
        chosen += [group[int(i)] for i in places]
    return chosen[:count]


def write_examples(
    folder: Path,
    network: Network,
    bank: Bank,
    records: Sequence[Record],
    scores: Scores,
    *,
    rows: Sequence[int],
    settings: RunSettings,
    count: int = 12,
) -> None:
    """Write ``count`` test images with score and attention into a run folder, listed in examples.json."""
    score = dict(zip(scores.rows.tolist(), (1 / (1 + np.exp(-scores.logit))).tolist(), strict=True))
    listed = []
    for number, row in enumerate(telling_rows(records, scores, rows, count)):
        record = records[row]
        sample = plain_view(record, settings, network)
        found = attention_of(network, bank, record, row)
        names = (f"examples/{number}.png", f"examples/{number}_attention.png")
        seen = Picture(grey_or_rgb(sample), Frame(), None, record.modality)
        save(Image.fromarray(seen.pixels), folder / names[0])
        save(Image.fromarray(overlay(found, seen)), folder / names[1])
        side = " ".join(part for part in (record.laterality, record.view) if part)
        listed.append(
            {
                "image_id": record.image_id,
                "site": record.domain,
                "malignant": record.malignant,
                "score": round(score[row], 4),
                "image": names[0],
                "overlay": names[1],
                "caption": f"{side or record.modality}; {found.method} map, {found.verdict}",
                "method": found.method,
                "unit": found.unit,
                "verdict": found.verdict,
                "notice": RESEARCH_USE_ONLY,
            }
        )
    write_text(folder / "examples.json", json.dumps(listed, indent=2))
