"""Where a slide holds tissue, and whether it is fit to be read: mask at low power, verdict, thumbnail."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from mammopath.errors import ImageReadError
from mammopath.images.geometry import Frame, Number
from mammopath.images.slide import Slide
from mammopath.prepare.overview import overview

Colours = UInt8[np.ndarray, "h w 3"]

MASK_UM = 8.0
"""Side of a pixel of the mask; coarser for slides that would need more than ``MOST`` pixels a side."""

MOST = 4096
"""Longest side of the mask in pixels."""

SMALLEST_UM = 100.0
"""Pieces of tissue, and holes in it, with less area than a square of this side are taken for dirt."""

FAINTEST = 12
"""Least difference of the strongest and weakest colour (of 255) that can be stain; glass has less."""

DARK = 40
"""Pixels with no colour above this are ink, folds of the cover slip or missing, not tissue."""

PEN_SHARE, BLURRED = 0.05, 0.003
"""A slide is called ``pen`` with a larger share under ink, and ``blurred`` below this ``sharpness``."""

LITTLE = 0.001
"""Share of the slide below which its tissue is called ``little``."""

Verdict = Literal["good", "empty", "little", "pen", "blurred"]


@dataclass(frozen=True)
class Tissue:
    """What a slide shows at low power.

    Attributes:
        mask: True where there is tissue.
        frame: from level-0 pixels to pixels of the mask and the thumbnail.
        um: side of a pixel of the mask in micrometres.
        thumbnail: the slide at the power of the mask.
        verdict: ``good``, or what is wrong; ``empty`` has no tissue, the others can be read with care.
        share: of the scanned part that is tissue. pen: of it under ink.
        sharpness: of the tissue, see ``sharpness``; NaN where there is none.
        threshold: of saturation, 0..255, above which a pixel counts as stained.
    """

    mask: Bool[np.ndarray, "h w"]
    frame: Frame
    um: float
    thumbnail: Colours
    verdict: Verdict
    share: float
    pen: float
    sharpness: float
    threshold: int


def find_tissue(slide: Slide, um: Number = MASK_UM) -> Tissue:
    """Find the tissue of a slide by Otsu's threshold on saturation (Otsu 1979), and judge the slide.

    Args:
        slide: any slide.
        um: side of a mask pixel in micrometres.

    Raises:
        ImageReadError: the level of the pyramid that shows the whole slide is damaged in many places.
    """
    um = max(float(um), slide.width * slide.spacing.um_x / MOST, slide.height * slide.spacing.um_y / MOST)
    shown = overview(slide, um)
    frame = Frame(slide.spacing.um_x / um, slide.spacing.um_y / um)
    scanned = _scanned(slide, frame, shown.shape[:2])
    ink = pen_marks(shown) & scanned
    mask, threshold = stained(shown, scanned & ~ink)
    mask = _without_dirt(mask, (SMALLEST_UM / um) ** 2)
    share, pen = float(mask.sum() / scanned.sum()), float(ink.sum() / scanned.sum())
    sharp = _sharpness_of(slide, mask, um)
    return Tissue(mask, frame, um, shown, _verdict(share, pen, sharp), share, pen, sharp, threshold)


def stained(rgb: Colours, among: Bool[np.ndarray, "h w"]) -> tuple[Bool[np.ndarray, "h w"], int]:
    """Pixels that carry stain, and the threshold of saturation that tells them.

    Saturation here is the difference of the strongest and the weakest colour: unlike that of HSV it is
    calm in the dark. Nothing is found where Otsu's two classes lie closer together than ``FAINTEST``.

    Args:
        rgb: a slide at low power.
        among: pixels that may be tissue.
    """
    saturation = ndimage.median_filter(np.ptp(rgb, axis=2), 3)
    lit = among & (rgb.max(axis=2) > DARK)
    counts = np.bincount(saturation[lit], minlength=256).astype(float)
    threshold = max(otsu(counts), FAINTEST)
    return (saturation > threshold) & lit, threshold


def otsu(counts: Float[np.ndarray, " n"]) -> int:
    """The last bin of the lower class that maximises the variance between two classes (Otsu 1979, eq. 18)."""
    bins = np.arange(len(counts))
    below, total = counts.cumsum(), counts.sum()
    sums = (counts * bins).cumsum()
    above = total - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below - sums * total) ** 2 / (below * above)
    return int(np.nan_to_num(between, nan=0.0, posinf=0.0).argmax())


def pen_marks(rgb: Colours) -> Bool[np.ndarray, "h w"]:
    """Pixels in colours that stains do not make: green, cyan, clear blue or red ink, black."""
    red, green, blue = np.moveaxis(rgb.astype(np.int16), 2, 0)
    green_ink = (green > red + 20) & (green > 40)
    blue_ink = (blue > red + 70) & (green > red - 10)
    red_ink = (red > 150) & (red > green + 100) & (red > blue + 100)
    black = rgb.max(axis=2) <= DARK
    marks = green_ink | blue_ink | red_ink | black
    return (
        ndimage.binary_dilation(ndimage.binary_opening(marks, iterations=1), iterations=2)
        if marks.any()
        else marks
    )


def sharpness(grey: Float[np.ndarray, "h w"]) -> float:
    """Energy of the finest details relative to all of the contrast, without a unit.

    The variance of a Laplacian of Gaussian of one pixel, over the variance: blur takes the first and leaves
    the second. The Gaussian keeps noise and the blocks of JPEG out. At 1 um, sharp real fields give 0.02 to
    0.2, and the same under a Gaussian blur of 9 um at most 0.001.
    """
    spread = float(grey.var())
    return float(ndimage.gaussian_laplace(grey, 1.0).var()) / spread if spread > 1.0 else 0.0


def _sharpness_of(slide: Slide, mask: Bool[np.ndarray, "h w"], um: float, *, looks: int = 9) -> float:
    """Median over places of the tissue, 256 pixels of 1 um a side (or the finest there are)."""
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return float("nan")
    um_x, um_y = slide.spacing.um_x, slide.spacing.um_y
    fine = max(1.0, um_x, um_y)
    found = []
    for i in np.linspace(0, len(rows) - 1, looks + 2).astype(int)[1:-1]:
        x, y = (columns[i] + 0.5) * um - 128 * fine, (rows[i] + 0.5) * um - 128 * fine
        with suppress(ImageReadError):  # damage in one place says nothing of the others
            region = slide.read(x / um_x, y / um_y, size=(256, 256), um=fine)
            found.append(sharpness(region[..., 1].astype(float)))
    return float(np.median(found)) if found else float("nan")


def _scanned(slide: Slide, frame: Frame, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    left, top, right, bottom = (round(edge) for edge in frame.box(*slide.bounds))
    mask = np.zeros(size, bool)
    mask[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return mask


def _without_dirt(mask: Bool[np.ndarray, "h w"], area: float) -> Bool[np.ndarray, "h w"]:
    if area < 1:
        return mask
    return ~_without_specks(~_without_specks(mask, area), area)


def _without_specks(mask: Bool[np.ndarray, "h w"], area: float) -> Bool[np.ndarray, "h w"]:
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    large = np.bincount(labels.ravel()) >= area
    large[0] = False
    return large[labels]


def _verdict(share: float, pen: float, sharp: float) -> Verdict:
    if share == 0:
        return "empty"
    if sharp < BLURRED:
        return "blurred"
    if pen > PEN_SHARE:
        return "pen"
    return "little" if share < LITTLE else "good"
