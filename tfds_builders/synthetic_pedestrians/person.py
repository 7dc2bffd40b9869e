"""A whole person, drawn from the back to the front."""

from aima_jax.attributes import Description
from tfds_builders.synthetic_pedestrians.bags import draw_bag, draw_bag_behind, draw_handbag
from tfds_builders.synthetic_pedestrians.canvas import Canvas, Frame
from tfds_builders.synthetic_pedestrians.clothing import (
    draw_arm,
    draw_forearm,
    draw_legs,
    draw_torso,
    draw_upper_arm,
)
from tfds_builders.synthetic_pedestrians.drawing import Drawing
from tfds_builders.synthetic_pedestrians.head import draw_head, draw_long_hair_behind
from tfds_builders.synthetic_pedestrians.look import Look
from tfds_builders.synthetic_pedestrians.pose import Pose, skeleton

_TURNED_AWAY = 0.82


def draw_person(
    canvas: Canvas, frame: Frame, description: Description, look: Look, pose: Pose
) -> None:
    """Draws the person of a description, of every group of the schema, where the frame says."""
    drawing = Drawing(canvas, frame, description, look, pose, skeleton(description, look, pose))
    far, near = drawing.body.arms
    draw_bag_behind(drawing)
    draw_long_hair_behind(drawing)
    if drawing.body.turned:
        draw_arm(drawing, far, _TURNED_AWAY)
        draw_legs(drawing)
        draw_torso(drawing)
        draw_bag(drawing)
        draw_head(drawing)
        draw_arm(drawing, near)
    else:
        draw_legs(drawing)
        for arm in (far, near):
            if drawing.view == "back":  # hands that are bent forward disappear before the body
                draw_forearm(drawing, arm)
            draw_upper_arm(drawing, arm)
        draw_torso(drawing)
        draw_bag(drawing)
        draw_head(drawing)
        if drawing.view == "front":
            draw_forearm(drawing, far)
            draw_forearm(drawing, near)
    draw_handbag(drawing)
