"""Pooling attention: how much each token counted for the image's embedding (Ilse et al. 2018)."""

import numpy as np
from jaxtyping import Float

from mammopath.maps.scene import Scene


def attention(scene: Scene) -> Float[np.ndarray, "rows cols"]:
    """Share of the pooling attention; sums to 1 over the image."""
    return scene.on_grid(scene.said().attention)
