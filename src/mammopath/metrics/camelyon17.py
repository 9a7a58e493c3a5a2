"""CAMELYON17: from the size of lesions to a node's class, a patient's pN stage, and kappa."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from mammopath.errors import DataError
from mammopath.metrics.intervals import Interval, bootstrap
from mammopath.metrics.ordinal import quadratic_kappa_statistic
from mammopath.types import NODE_CLASSES, ORDINALS

STAGES = ORDINALS["pathology"].levels
"""pN stages of the challenge, from least to worst."""

MICRO_UM, MACRO_UM = 200.0, 2000.0
"""A metastasis is longer than 0.2 mm, or has more than 200 cells; a macro-metastasis is longer than 2 mm."""

MICRO_CELLS = 200


def lesion_lengths(
    tumour: Bool[np.ndarray, "h w"], *, um: float, join_um: float = 0.0
) -> Float[np.ndarray, " k"]:
    """Longest diameter of each lesion in micrometres, longest first.

    Diameters go from outer edge to outer edge of pixels, so a lesion of one pixel is as long as its diagonal;
    the spacing of the mask bounds what can be told apart.

    Args:
        tumour: where there is tumour.
        um: micrometres per pixel.
        join_um: lesions nearer to one another than this are one; CAMELYON16 takes 75.
    """
    near = tumour
    if join_um > um and tumour.any():
        near = ndimage.distance_transform_edt(~tumour) <= join_um / um / 2
    label, count = ndimage.label(near, structure=np.ones((3, 3)))
    places = ndimage.find_objects(label)
    lengths = [_diameter(tumour[box] & (label[box] == k + 1)) * um for k, box in enumerate(places)]
    return np.sort(np.array(lengths[:count], dtype=float))[::-1]


def node_class(lengths_um: Sequence[float], *, cells: int = 0) -> str:
    """Class of a node by its largest lesion: negative, itc, micro or macro.

    The rule of the challenge and of the TNM classification (7th edition): macro is longer than 2 mm, micro
    longer than 0.2 mm or of more than 200 cells, anything smaller is isolated tumour cells.

    Args:
        lengths_um: longest diameters of its lesions; none for a node without tumour.
        cells: of its largest lesion, where they were counted.

    Raises:
        DataError: a length that is not positive.
    """
    if not all(length > 0 for length in lengths_um):
        raise DataError(f"lengths of lesions must be above 0, got {min(lengths_um)}")
    longest = max(lengths_um, default=0.0)
    if longest > MACRO_UM:
        return "macro"
    if longest > MICRO_UM or cells > MICRO_CELLS:
        return "micro"
    return "itc" if longest else "negative"


def pn_stage(nodes: Sequence[str]) -> str:
    """Stage of a patient from the classes of its nodes, by the challenge's rule.

    Nodes with isolated tumour cells alone do not count as positive.

    Raises:
        DataError: no node, or a class that is none of negative, itc, micro, macro.
    """
    if not nodes or set(nodes) - set(NODE_CLASSES):
        raise DataError(f"{list(nodes)}: a stage needs nodes, each {', '.join(NODE_CLASSES)}")
    positive = sum(node in ("micro", "macro") for node in nodes)
    if "macro" in nodes:
        return "pN1" if positive <= 3 else "pN2"
    if positive:
        return "pN1mi"
    return "pN0(i+)" if "itc" in nodes else "pN0"


def stage_kappa(truth: Mapping[str, str], predicted: Mapping[str, str], *, draws: int = 2000) -> Interval:
    """The challenge's figure: quadratically weighted kappa over patients, with 95 % limits over patients.

    Args:
        truth: stages by patient.
        predicted: likewise; other patients are passed over.
        draws: of the patient bootstrap.

    Raises:
        DataError: a patient without prediction, or a stage that is none of the five.
    """
    patients = sorted(truth)
    if missing := [name for name in patients if name not in predicted]:
        raise DataError(f"{len(missing)} patients have no predicted stage, the first: {missing[0]}")
    for name in patients:
        if strange := {truth[name], predicted[name]} - set(STAGES):
            raise DataError(f"{name}: {strange.pop()!r} is none of the stages {', '.join(STAGES)}")
    true, told = (np.array([STAGES.index(table[n]) for n in patients]) for table in (truth, predicted))
    statistic = quadratic_kappa_statistic(true, told, categories=len(STAGES))
    return bootstrap([statistic], np.array(patients), draws=draws).interval()


def _diameter(region: Bool[np.ndarray, "h w"]) -> float:
    """Longest distance between corners of the pixels of a region."""
    rows, columns = np.nonzero(region & ~ndimage.binary_erosion(region))
    corners = np.concatenate([np.stack([rows + i, columns + j], axis=1) for i in (0, 1) for j in (0, 1)])
    try:
        corners = corners[ConvexHull(corners).vertices]
    except QhullError:  # never for pixels, which have an area; a guard against rounding
        corners = np.unique(corners, axis=0)
    gaps = corners[:, None] - corners[None]
    return float(np.sqrt((gaps**2).sum(axis=2).max()))
