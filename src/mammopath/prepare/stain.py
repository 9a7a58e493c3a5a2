"""Haematoxylin-eosin stains: RGB to stain amounts and back, jitter, normalisation. Pure tensor functions.

Optical density here is the natural logarithm: ``-ln(intensity)`` with white at 0. Images are RGB in [0, 1].
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

DARKEST = 1e-6
"""Intensities are kept above this, so that their logarithm exists."""

HED_VECTORS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical density of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston 2001)."""

MACENKO_VECTORS = ((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581))
"""Haematoxylin and eosin of the reference slide that public Macenko codes normalise to (unit length)."""

MACENKO_AMOUNTS = (1.9705, 1.0308)
"""99th percentile of both stains on that slide, as natural optical density."""

REINHARD_MEAN, REINHARD_SPREAD = (-0.289, -0.0756, 0.0050), (0.170, 0.0451, 0.0048)
"""Means of the mean and of the standard deviation in l, alpha, beta over 50 breast fields of BACH."""

Normalisation = Literal["none", "macenko", "reinhard"]

_LMS = ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444))
"""Cone responses of RGB (Reinhard et al. 2001, equation 4)."""


def optical_density(rgb: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """Natural optical density of each colour; 0 for white."""
    return -rgb.clamp_min(DARKEST).log()


def hed_from_rgb(rgb: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """Amounts of haematoxylin, eosin and DAB (Ruifrok and Johnston 2001).

    Negative amounts are kept, so that ``rgb_from_hed`` gives the same colours back.
    """
    return _mix(optical_density(rgb), torch.linalg.inv(rgb.new_tensor(HED_VECTORS)))


def rgb_from_hed(hed: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """Colours of these amounts of haematoxylin, eosin and DAB, in [0, 1]."""
    return (-_mix(hed, hed.new_tensor(HED_VECTORS))).exp().clamp(0, 1)


def jitter_hed(
    rgb: Float[Tensor, "*b 3 h w"], scale: Float[Tensor, " 3"], shift: Float[Tensor, " 3"]
) -> Float[Tensor, "*b 3 h w"]:
    """Multiply each stain by ``scale`` and add ``shift`` (Tellez et al. 2018); shift is natural density."""
    hed = hed_from_rgb(rgb)
    return rgb_from_hed(hed * scale[:, None, None] + shift[:, None, None])


def stain_vectors(
    rgb: Float[Tensor, "b 3 h w"], *, faint: float = 0.15, percent: float = 1.0
) -> Float[Tensor, "b 2 3"]:
    """Unit vectors of haematoxylin and eosin of each image (Macenko et al. 2009).

    Args:
        rgb: images.
        faint: pixels with less density than this in some colour are background.
        percent: the robust extremes of the angle are this percentile and 100 minus it.

    Returns:
        Haematoxylin, then eosin; the reference vectors where an image has too little tissue.
    """
    return torch.stack([_vectors_of_one(image, faint, percent) for image in rgb])


def macenko(rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Bring the stains of each image to the reference slide (Macenko et al. 2009).

    An image with next to nothing of one of the stains comes back unchanged.
    """
    reference = rgb.new_tensor(MACENKO_VECTORS)
    vectors = stain_vectors(rgb)
    density = optical_density(rgb).flatten(2)
    amounts = torch.linalg.pinv(vectors.transpose(1, 2)) @ density
    most = amounts.quantile(0.99, dim=2, keepdim=True)
    known = (most > 0.05).all(dim=1, keepdim=True)
    wanted = rgb.new_tensor(MACENKO_AMOUNTS)[:, None]
    moved = amounts / most.clamp_min(0.05) * wanted
    normal = (-(reference.T @ moved)).exp().clamp(0, 1).reshape(rgb.shape)
    return torch.where(known[..., None], normal, rgb)


def lab_from_rgb(rgb: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """The decorrelated l, alpha, beta colours (Reinhard et al. 2001, equations 4 to 6)."""
    lms = _mix(rgb, rgb.new_tensor(_LMS).T).clamp_min(DARKEST).log10()
    return _mix(lms, _opponent(rgb).T)


def rgb_from_lab(lab: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """Back from l, alpha, beta to RGB in [0, 1]."""
    lms = 10 ** _mix(lab, torch.linalg.inv(_opponent(lab)).T)
    return _mix(lms, torch.linalg.inv(lab.new_tensor(_LMS)).T).clamp(0, 1)


def reinhard(
    rgb: Float[Tensor, "b 3 h w"], mean: Float[Tensor, " 3"], spread: Float[Tensor, " 3"]
) -> Float[Tensor, "b 3 h w"]:
    """Give each image this mean and standard deviation in l, alpha, beta (Reinhard et al. 2001)."""
    lab = lab_from_rgb(rgb)
    own_spread = lab.std(dim=(2, 3), keepdim=True).clamp_min(DARKEST)
    scaled = (lab - lab.mean(dim=(2, 3), keepdim=True)) / own_spread * spread[:, None, None]
    return rgb_from_lab(scaled + mean[:, None, None])


@dataclass(frozen=True)
class StainFit:
    """The stains of one slide, as they are before normalisation.

    Attributes:
        kind: ``macenko``, ``reinhard`` or ``none``.
        first: vectors of haematoxylin and eosin; or the mean in l, alpha, beta.
        second: 99th percentiles of their amounts; or the standard deviation.
    """

    kind: Normalisation
    first: Float[Tensor, "*k 3"]
    second: Float[Tensor, " s"]

    def apply(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Images of the slide with the stains of the reference."""
        if self.kind == "reinhard":
            wanted, spread = rgb.new_tensor(REINHARD_MEAN), rgb.new_tensor(REINHARD_SPREAD)
            scale = (spread / self.second)[:, None, None]
            return rgb_from_lab(
                (lab_from_rgb(rgb) - self.first[:, None, None]) * scale + wanted[:, None, None]
            )
        if self.kind == "none":
            return rgb
        amounts = torch.linalg.pinv(self.first.T) @ optical_density(rgb).flatten(2)
        moved = amounts * (rgb.new_tensor(MACENKO_AMOUNTS) / self.second)[:, None]
        return (-(rgb.new_tensor(MACENKO_VECTORS).T @ moved)).exp().clamp(0, 1).reshape(rgb.shape)


def fit_stain(tissue: Float[Tensor, "n 3"], kind: Normalisation) -> StainFit:
    """The stains of a slide, from pixels of its tissue; ``none`` where there is too little of it.

    Args:
        tissue: colours in [0, 1] of pixels of tissue, from all over the slide.
        kind: of normalisation.
    """
    nothing = StainFit("none", tissue.new_zeros(3), tissue.new_ones(3))
    if kind == "none" or len(tissue) < 256:
        return nothing
    image = tissue.T[None, :, None]
    if kind == "reinhard":
        lab = lab_from_rgb(image).flatten(2)[0]
        return StainFit(kind, lab.mean(dim=1), lab.std(dim=1).clamp_min(DARKEST))
    vectors = stain_vectors(image)[0]
    amounts = torch.linalg.pinv(vectors.T) @ optical_density(image)[0].flatten(1)
    most = amounts.quantile(0.99, dim=1)
    return StainFit(kind, vectors, most) if bool((most > 0.05).all()) else nothing


def _mix(image: Float[Tensor, "*b c h w"], rows: Float[Tensor, "c d"]) -> Float[Tensor, "*b d h w"]:
    """Each pixel, as a row vector, times a matrix."""
    *batch, _, height, width = image.shape
    return (rows.T @ image.flatten(-2)).reshape(*batch, -1, height, width)


def _opponent(like: Tensor) -> Float[Tensor, "3 3"]:
    weights = like.new_tensor([3.0, 6.0, 2.0]).rsqrt()
    return weights[:, None] * like.new_tensor([[1, 1, 1], [1, 1, -2], [1, -1, 0]])


def _vectors_of_one(rgb: Float[Tensor, "3 h w"], faint: float, percent: float) -> Float[Tensor, "2 3"]:
    density = optical_density(rgb).flatten(1)
    tissue = density[:, (density >= faint).all(dim=0)]
    if tissue.shape[1] < max(16, density.shape[1] // 200):
        return rgb.new_tensor(MACENKO_VECTORS)
    _, axes = torch.linalg.eigh(tissue.cov())
    plane = axes[:, [2, 1]]
    plane = plane * plane.sum(dim=0).sign()  # the first axis looks at tissue, not away from it
    across, up = plane.T @ tissue
    angles = torch.atan2(up, across).quantile(rgb.new_tensor([percent / 100, 1 - percent / 100]))
    ends = plane @ torch.stack([angles.cos(), angles.sin()])
    redder = ends[0] / ends.norm(dim=0)  # haematoxylin absorbs more red than eosin does
    return ends.T[redder.argsort(descending=True)]
