"""Pictures of what a network looked at: the attention and the lesion map of an image, over the image."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from mammopath.cohort.loader import Pick
from mammopath.features import Bank, plain_view
from mammopath.files import write_text, writing
from mammopath.model.network import Network
from mammopath.predict import Scores
from mammopath.settings import RunSettings
from mammopath.tensors import Sample
from mammopath.types import Record

STRENGTH = 0.55
"""Opacity of the strongest place of a map."""


@dataclass(frozen=True)
class TokenMap:
    """A value for each token of one prepared image, as rows and columns.

    Attributes:
        values: at least 0; attention sums to 1 over the image.
        cell: side of a token's square in prepared pixels.
    """

    values: Float[np.ndarray, "rows cols"]
    cell: int


def attention_map(network: Network, bank: Bank, record: Record, row: int, sample: Sample) -> TokenMap:
    """Pooling attention of one image: how much each token counted for its embedding."""
    cell = network.cell(record.modality)
    batch = bank.batch(record.modality, [Pick(row, 0)]).to(network.device())
    with torch.inference_mode():
        weights = network.eval()(batch).attention[0].cpu().numpy()
    shape = (sample.valid.shape[0] // cell, sample.valid.shape[1] // cell)
    return TokenMap(weights[: shape[0] * shape[1]].reshape(shape), cell)


def overlay(sample: Sample, found: TokenMap) -> UInt8[np.ndarray, "h w 3"]:
    """The prepared image with a map over it: perceptually uniform colours, opacity by strength."""
    base = grey_or_rgb(sample)
    height, width = base.shape[:2]
    strongest = found.values.max()
    scaled = (found.values / strongest if strongest > 0 else found.values).astype(np.float32)
    large = np.asarray(Image.fromarray(scaled).resize((width, height), Image.Resampling.BILINEAR))
    colours = matplotlib.colormaps["inferno"](large)[..., :3] * 255
    alpha = STRENGTH * large[..., None]
    return ((1 - alpha) * base + alpha * colours).round().astype(np.uint8)


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
        found = attention_map(network, bank, record, row, sample)
        names = (f"examples/{number}.png", f"examples/{number}_attention.png")
        _save(folder / names[0], grey_or_rgb(sample))
        _save(folder / names[1], overlay(sample, found))
        side = " ".join(part for part in (record.laterality, record.view) if part)
        listed.append(
            {
                "image_id": record.image_id,
                "site": record.domain,
                "malignant": record.malignant,
                "score": round(score[row], 4),
                "image": names[0],
                "overlay": names[1],
                "caption": side or record.modality,
            }
        )
    write_text(folder / "examples.json", json.dumps(listed, indent=2))


def _save(path: Path, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
    path.parent.mkdir(exist_ok=True)
    with writing(path) as part:
        Image.fromarray(pixels).save(part, format="PNG")
