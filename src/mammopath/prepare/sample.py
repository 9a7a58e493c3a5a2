"""From a record to a sample: read the file, prepare it by modality, paint what is annotated."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8

from mammopath.config import dump
from mammopath.errors import DataError, ImageReadError
from mammopath.images.geometry import Frame, paint
from mammopath.images.read import Image, assumes_mg, read_image
from mammopath.prepare.field import prepare_field
from mammopath.prepare.mammogram import prepare_mammogram
from mammopath.prepare.resample import Canvas
from mammopath.settings import PrepareSettings
from mammopath.tensors import Sample
from mammopath.types import Modality, Record

_NO_SPACING = "tell the spacing (spacing_um in a table), or set mammogram.um to 0"

PREPARE_VERSION = 2
"""Raised whenever the same settings give other pixels; part of every key of cached activations."""


_LATER: Mapping[str, object] = {"um": 0.0, "pectoral": "keep"}
"""Keys of ``MammogramSettings`` that came later, and their defaults, with which everything is as before."""


TINT, COLOURED = 0.1, 0.2
"""A pixel is coloured if its channels differ by more than the first share of the brightest value; an image
with more than the second share of such pixels is no mammogram."""


@dataclass(frozen=True)
class Prepared:
    """A sample, and the way from level-0 pixels of its file to its own and back."""

    sample: Sample
    frame: Frame


def load_sample(record: Record, settings: PrepareSettings, *, multiple: int) -> Prepared:
    """Read and prepare one image.

    Args:
        record: what to read. What it does not know of spacing and side, the file's header may. The lesion
            mask is 1 in its findings; elsewhere it is 0 where the attribute ``annotated`` is ``yes`` or the
            image is normal (not malignant, severity 0), and NaN in any other image.
        settings: sizes and quantiles.
        multiple: height and width of the sample are multiples of this (patch size times token pooling).

    Raises:
        ImageReadError: the file cannot be read, has the wrong number of colours, shows nothing, or has no
            spacing where ``settings.mammogram.um`` asks for one.
    """
    canvas = _prepared(
        read_image(record.path, assume_mg=assumes_mg(record)), record, settings, multiple=multiple
    )
    lesion = _lesion(record, canvas)
    tensors = (torch.from_numpy(array) for array in (canvas.image, canvas.valid, lesion))
    return Prepared(Sample(*tensors), canvas.frame)


def prepare_fingerprint(settings: PrepareSettings, modality: Modality) -> str:
    """Names everything that turns a file's bytes and its record into a sample and its augmented views.

    Keys that came later count only where they are not at their default, which changes nothing.
    """
    own = dump(settings.mammogram if modality == "mammogram" else settings.pathology)
    if modality == "mammogram":
        own = {name: value for name, value in own.items() if name not in _LATER or _LATER[name] != value}
    told = json.dumps([PREPARE_VERSION, modality, own, dump(settings.augment)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def _prepared(image: Image, record: Record, settings: PrepareSettings, *, multiple: int) -> Canvas:
    if image.pixels.min() == image.pixels.max():
        raise ImageReadError(record.path, "every pixel has the same value", code="pixels")
    spacing = record.spacing or image.header.spacing
    if record.modality == "pathology":
        rgb = _rgb(image.pixels, record)
        return prepare_field(rgb, spacing=spacing, settings=settings.pathology, multiple=multiple)
    try:
        return prepare_mammogram(
            _grey(image.pixels, record),
            spacing=spacing,
            laterality=record.laterality or image.header.laterality,
            view=record.view or image.header.view,
            settings=settings.mammogram,
            multiple=multiple,
        )
    except DataError as error:
        raise ImageReadError(record.path, str(error), code="geometry", hint=_NO_SPACING) from None


def _grey(pixels: Shaped[np.ndarray, "h w *c"], record: Record) -> Shaped[np.ndarray, "h w"]:
    """Some exporters store grey mammograms as RGB with three equal channels, and marks in colour on them."""
    if pixels.ndim == 2:
        return pixels
    few = pixels[:: max(1, len(pixels) // 512), :: max(1, pixels.shape[1] // 512)].astype(float)
    if (np.ptp(few, axis=-1) > TINT * max(few.max(), 1)).mean() > COLOURED:
        raise ImageReadError(
            record.path,
            "is a colour image, and mammograms are grey",
            code="pixels",
            hint="tissue is listed as pathology (--slide)",
        )
    return pixels[..., 1]


def _rgb(pixels: Shaped[np.ndarray, "h w *c"], record: Record) -> UInt8[np.ndarray, "h w 3"]:
    if pixels.ndim != 3:
        raise ImageReadError(record.path, "is grey; stained tissue needs colour", code="pixels")
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def _lesion(record: Record, canvas: Canvas) -> Float[np.ndarray, "h w"]:
    is_normal = record.malignant == 0 and record.severity == 0
    is_complete = is_normal or record.attributes.get("annotated") == "yes"
    inside = paint(record.findings, canvas.frame, canvas.valid.shape)
    return np.where(inside, 1.0, 0.0 if is_complete else math.nan).astype(np.float32)
