"""The sites of the phantom: how each records the same breast and the same tissue differently."""

from dataclasses import dataclass
from typing import Literal

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class MammogramStyle:
    """How a site makes mammograms.

    Attributes:
        maker: stands in the DICOM header.
        mm: side of a pixel.
        bits: stored per pixel.
        inverted: stored as MONOCHROME1.
        steepness: of the film-like response; 0 is a linear detector.
        exposure: level of thickness that comes out middle grey.
        fog: brightness of the empty background.
        blur: sigma in millimetres.
        noise: standard deviation, of the full range.
        film: digitised film: white border, lettered label, and left breasts shown the other way round.
    """

    maker: str
    mm: float
    bits: int
    inverted: bool = False
    steepness: float = 0.0
    exposure: float = 0.5
    fog: float = 0.0
    blur: float = 0.3
    noise: float = 0.01
    film: bool = False


@dataclass(frozen=True)
class TissueStyle:
    """How a site stains and scans tissue.

    Attributes:
        um: side of a pixel.
        format: ``png``, or ``tiff`` for a tiled pyramid.
        haematoxylin, eosin: optical density of both stains in red, green and blue.
        strength: of both stains.
        gain: of the scanner's colours.
        gamma: of the scanner.
        blur: sigma in micrometres.
        noise: standard deviation, of the full range.
    """

    um: float
    format: Literal["png", "tiff"]
    haematoxylin: Triple
    eosin: Triple
    strength: tuple[float, float] = (1.0, 1.0)
    gain: Triple = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    blur: float = 0.3
    noise: float = 0.01


@dataclass(frozen=True)
class Site:
    """One hospital: both modalities, and its share of malignant cases."""

    mammogram: MammogramStyle
    tissue: TissueStyle
    prevalence: float = 0.5


SITES: dict[str, Site] = {
    "site_a": Site(
        MammogramStyle("Phantom Digital", mm=0.40, bits=12, noise=0.012),
        TissueStyle(0.50, "png", (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)),
    ),
    "site_b": Site(
        MammogramStyle(
            "Phantom Computed",
            mm=0.35,
            bits=14,
            inverted=True,
            steepness=5.0,
            exposure=0.42,
            fog=0.03,
            blur=0.5,
            noise=0.02,
        ),
        TissueStyle(
            0.58,
            "tiff",
            (0.55, 0.76, 0.35),
            (0.22, 0.90, 0.30),
            (1.2, 0.8),
            (0.98, 0.94, 1.0),
            1.15,
            0.5,
            0.015,
        ),
        prevalence=0.4,
    ),
    "site_c": Site(
        MammogramStyle(
            "Phantom Film",
            mm=0.45,
            bits=16,
            steepness=8.0,
            exposure=0.40,
            fog=0.06,
            blur=0.7,
            noise=0.03,
            film=True,
        ),
        TissueStyle(
            0.44,
            "tiff",
            (0.72, 0.62, 0.30),
            (0.12, 0.88, 0.42),
            (0.8, 1.3),
            (1.0, 0.96, 0.90),
            0.85,
            0.6,
            0.02,
        ),
    ),
    "site_d": Site(
        MammogramStyle("Phantom Slot", mm=0.38, bits=12, steepness=3.0, exposure=0.6, blur=0.35, noise=0.02),
        TissueStyle(
            0.50,
            "png",
            (0.60, 0.72, 0.35),
            (0.16, 0.95, 0.20),
            (0.9, 1.0),
            (0.94, 1.0, 0.97),
            1.0,
            0.35,
            0.01,
        ),
    ),
}
"""Every site the phantom knows."""
