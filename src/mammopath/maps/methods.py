"""The table of map methods: what each is, what its values are, and how it is made."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mammopath.maps.attention import attention
from mammopath.maps.integrated import integrated
from mammopath.maps.lesion import lesion
from mammopath.maps.relevance import relevance
from mammopath.maps.rollout import rollout
from mammopath.maps.scene import Scene


@dataclass(frozen=True)
class MapMethod:
    """One way to make a map.

    Attributes:
        caption: what it shows, for people.
        unit: of its values.
        make: the values of one image on its grid.
        trained: it needs the lesion head to have been trained.
    """

    caption: str
    unit: str
    make: Callable[[Scene], Float[np.ndarray, "rows cols"]]
    trained: bool = False


METHODS: dict[str, MapMethod] = {
    "lesion": MapMethod("lesion head", "probability, uncalibrated", lesion, trained=True),
    "attention": MapMethod("pooling attention", "share of attention", attention),
    "rollout": MapMethod("attention rollout", "share of attention flow", rollout),
    "relevance": MapMethod("gradient-weighted relevance", "relevance, no unit", relevance),
    "integrated": MapMethod("integrated gradients", "malignancy logit", integrated),
}
"""Map methods by name."""

CHEAP = ("lesion", "attention")
"""Methods that the prediction brings along."""
