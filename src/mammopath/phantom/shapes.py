"""Shapes that both painters of the phantom use."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Plane = Float[np.ndarray, "h w"]
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Ellipse:
    """Where a lesion is, from the upper left corner (x across, y down), in the painter's unit of length.

    Attributes:
        radius: geometric mean of the half axes.
        aspect: long over short axis.
        angle: of the long axis, from across towards down.
    """

    x: float
    y: float
    radius: float
    aspect: float = 1.0
    angle: float = 0.0

    def distance(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        """Distance from the centre in radii (1 on the outline), and direction in radians."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        along = ((x - self.x) * cos + (y - self.y) * sin) / self.aspect**0.5
        across = ((y - self.y) * cos - (x - self.x) * sin) * self.aspect**0.5
        return np.hypot(along, across) / self.radius, np.arctan2(across, along)

    def outline(self, unit: float = 1.0, corners: int = 24) -> Points:
        """Polygon around it, in multiples of ``unit``."""
        turns = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        along = self.radius * self.aspect**0.5 * np.cos(turns)
        across = self.radius / self.aspect**0.5 * np.sin(turns)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        x, y = self.x + along * cos - across * sin, self.y + along * sin + across * cos
        return tuple(zip((x / unit).tolist(), (y / unit).tolist(), strict=True))

    def window(self, reach: float, unit: float) -> tuple[slice, slice]:
        """Rows and columns of pixels of side ``unit`` within ``reach`` times its long half axis."""
        far = reach * self.radius * self.aspect**0.5
        rows, columns = (
            slice(max(0, int((at - far) / unit)), max(0, int((at + far) / unit) + 1))
            for at in (self.y, self.x)
        )
        return rows, columns


def grid(rows: int, columns: int, unit: float) -> tuple[Plane, Plane]:
    """Places of pixel centres, down and across, for pixels of side ``unit``."""
    down, across = np.mgrid[:rows, :columns].astype(np.float32)
    return (down + 0.5) * unit, (across + 0.5) * unit


def soft(inside: Plane, width: float) -> Plane:
    """1 where positive, 0 where negative, over an edge of about ``width``."""
    return 1 / (1 + np.exp(np.clip(-4 * inside / width, -50, 50)))
