"""From a description and a few seeds to the bytes of a picture."""

import numpy as np
from jaxtyping import Float

from aima_jax.attributes import Description
from tfds_builders.synthetic_pedestrians import difficulty
from tfds_builders.synthetic_pedestrians.camera import Shot, expose, jpeg
from tfds_builders.synthetic_pedestrians.canvas import Canvas, Frame, noise
from tfds_builders.synthetic_pedestrians.look import Look
from tfds_builders.synthetic_pedestrians.person import draw_person
from tfds_builders.synthetic_pedestrians.pose import Pose
from tfds_builders.synthetic_pedestrians.sampling import VIEWS, draw_description, seen_from
from tfds_builders.synthetic_pedestrians.scene import draw_background, draw_occluder


def render(
    description: Description,
    *,
    picture: tuple[int, ...],
    identity: tuple[int, ...],
    camera: tuple[int, ...],
) -> bytes:
    """Renders a person of whom every group of the schema is described, as a JPEG file.

    The three seeds decide, apart from the description, what differs from picture to picture (pose,
    framing, scene, light), what an identity keeps, and what is the camera's own.
    """
    generators = map(np.random.default_rng, np.random.SeedSequence(picture).spawn(7))
    pose, framing, scene, passer_by, occlusion, light, file = generators
    look, shot = Look.draw(np.random.default_rng(identity)), Shot.draw(framing)
    folds = _folds(scene, shot)
    canvas = Canvas(draw_background(scene, shot.height, shot.width), light=shot.light, folds=folds)
    _draw_passer_by(passer_by, canvas, shot)
    shadow = canvas.ellipse(shot.frame, 0.04 + 0.02j, 0.19 + 0.035j)
    canvas.paint(shadow, np.zeros(3), opacity=0.4)
    draw_person(canvas, shot.frame, description, look, Pose.draw(pose))
    draw_occluder(occlusion, canvas)
    return jpeg(file, expose(light, np.random.default_rng(camera), canvas.pixels))


def _folds(rng: np.random.Generator, shot: Shot) -> Float[np.ndarray, "height width"]:
    """How much brighter or darker cloth is for its wrinkles, everywhere in the picture."""
    broad = noise(rng, shot.height, shot.width, (26, 20))
    return 0.6 * (broad + noise(rng, shot.height, shot.width, (56, 40)))


def _draw_passer_by(rng: np.random.Generator, canvas: Canvas, shot: Shot) -> None:
    """Sometimes draws somebody else, farther away and to one side."""
    if rng.random() < difficulty.PASSERS_BY:
        size, side = rng.uniform(0.45, 0.75), rng.choice((-1, 1))
        feet = shot.frame.place(complex(side * rng.uniform(0.17, 0.27), rng.uniform(0.08, 0.3)))
        other = seen_from(draw_description(rng), str(rng.choice(VIEWS)))
        frame = Frame(feet, shot.frame.unit * size)
        draw_person(canvas, frame, other, Look.draw(rng), Pose.draw(rng))
