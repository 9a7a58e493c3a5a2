"""The lesion map: what the trained head says of each token; costs nothing beside the prediction."""

import numpy as np
from jaxtyping import Float

from mammopath.maps.scene import Scene


def lesion(scene: Scene) -> Float[np.ndarray, "rows cols"]:
    """Probability of the lesion head, uncalibrated; means something only where the head was trained."""
    return scene.on_grid(scene.said().token_logit.sigmoid())
