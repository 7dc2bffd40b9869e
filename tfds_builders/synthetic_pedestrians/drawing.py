"""A figure being drawn: who it is, where its joints are, and the canvas that it goes onto."""

import dataclasses

from aima_jax.attributes import Description
from tfds_builders.synthetic_pedestrians.canvas import Canvas, Color, Frame, Painter
from tfds_builders.synthetic_pedestrians.look import Look
from tfds_builders.synthetic_pedestrians.pose import Pose, Skeleton


@dataclasses.dataclass(frozen=True)
class Drawing(Painter):
    """One person on a canvas; what draws parts of it reads them from here."""

    canvas: Canvas
    frame: Frame
    description: Description
    look: Look
    pose: Pose
    body: Skeleton

    @property
    def view(self) -> str:
        return self.description["view"]

    def ellipse(
        self, center: complex, radii: complex, color: Color, *, turn: complex = 1, **paint: float
    ) -> None:
        shape = self.canvas.ellipse(self.frame, center, radii, turn)
        self.canvas.paint(shape, color, **paint)
