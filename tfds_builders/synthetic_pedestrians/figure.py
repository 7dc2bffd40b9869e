"""A whole person, drawn from the back to the front, with head and bags."""

import numpy as np

from aima_jax.attributes import Description
from tfds_builders.synthetic_pedestrians.body import Drawing, Look, Pose, skeleton
from tfds_builders.synthetic_pedestrians.canvas import Canvas, Color, Frame
from tfds_builders.synthetic_pedestrians.clothing import (
    draw_arm,
    draw_forearm,
    draw_legs,
    draw_torso,
    draw_upper_arm,
)

_TURNED_AWAY = 0.82


def draw_person(
    canvas: Canvas, frame: Frame, description: Description, look: Look, pose: Pose
) -> None:
    """Draw a person, described in every group of the schema, at the frame's position."""
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
            if drawing.view == "back":  # hands bent forward disappear behind the body
                draw_forearm(drawing, arm)
            draw_upper_arm(drawing, arm)
        draw_torso(drawing)
        draw_bag(drawing)
        draw_head(drawing)
        if drawing.view == "front":
            draw_forearm(drawing, far)
            draw_forearm(drawing, near)
    draw_handbag(drawing)


_DARK = np.array((0.06, 0.06, 0.07), np.float32)


def draw_long_hair_behind(drawing: Drawing) -> None:
    """The part of long hair that falls behind the shoulders of someone seen from the front."""
    if drawing.description["hair"] == "long" and drawing.view == "front":
        head, radii = drawing.body.head, drawing.body.build.head
        color = drawing.look.hair_color(drawing.description["age"]) * 0.8
        end = head - complex(0, 2.1 * radii.imag)
        drawing.tube(head, end, (1.1 * radii.real, 1.45 * radii.real), color)


def draw_head(drawing: Drawing) -> None:
    """Neck, head, face and hair, then hat and glasses."""
    head, build, skin = drawing.body.head, drawing.body.build, drawing.look.skin_color()
    turned = drawing.body.turned
    chin = head - 0.6j * build.head.imag
    drawing.tube(chin, drawing.body.neck, (0.03, 0.034), skin * 0.85)
    if drawing.view == "back":
        _draw_back_of_head(drawing)
    elif turned:
        _draw_profile(drawing)
    else:
        _draw_face(drawing)
    if drawing.description["hat"]:
        _draw_hat(drawing)


def _draw_face(drawing: Drawing) -> None:
    head, radii, look = drawing.body.head, drawing.body.build.head, drawing.look
    hair = look.hair_color(drawing.description["age"])
    rx, ry = radii.real, radii.imag
    woman = drawing.description["gender"] == "female"
    long = drawing.description["hair"] == "long"
    drawing.ellipse(head + 0.14j * ry, complex(1.12 * rx, 1.0 * ry), hair)
    if long or woman:
        for side in (-1, 1):
            end = head + complex(side * 1.02 * rx, -(2.3 if long else 0.45) * ry)
            start = head + complex(side * 0.85 * rx, 0.4 * ry)
            drawing.tube(start, end, (0.28 * rx, 0.36 * rx, 0.3 * rx), hair, cloth=0.15)
    face = head + complex(0.12 * drawing.pose.head_turn * rx, -0.14 * ry)
    drawing.ellipse(face, complex(0.86 * rx, 0.84 * ry), look.skin_color())
    parting = (look.hair_cut - 0.5) * rx
    fringe = complex(0.78 * rx, 0.3 * ry)
    if not (drawing.description["age"] == "old" and not woman and not long):
        drawing.ellipse(head + complex(parting * 0.5, 0.66 * ry), fringe, hair)
    eyes = face + 0.12j * ry
    for side in (-1, 1):
        drawing.ellipse(eyes + 0.38 * side * rx, complex(0.14 * rx, 0.08 * ry), _DARK)
    drawing.tube(
        face - 0.05j * ry, face - 0.2j * ry, (0.1 * rx, 0.14 * rx), look.skin_color() * 0.85
    )
    lips = np.array((0.72, 0.25, 0.27) if woman else (0.55, 0.32, 0.28), np.float32)
    drawing.ellipse(face - 0.45j * ry, complex(0.3 * rx, 0.08 * ry), lips)
    if drawing.description["glasses"]:
        for side in (-1, 1):
            drawing.ellipse(eyes + 0.42 * side * rx, complex(0.43 * rx, 0.28 * ry), _DARK)
        drawing.tube(eyes - 0.95 * rx, eyes + 0.95 * rx, (0.06 * ry,), _DARK)


def _draw_profile(drawing: Drawing) -> None:
    head, radii, look = drawing.body.head, drawing.body.build.head, drawing.look
    facing = drawing.body.turned
    hair = look.hair_color(drawing.description["age"])
    rx, ry = 1.1 * radii.real, radii.imag
    woman = drawing.description["gender"] == "female"
    if drawing.description["hair"] == "long":
        start = head + complex(-facing * 0.4 * rx, 0.3 * ry)
        end = head + complex(-facing * 0.95 * rx, -2.2 * ry)
        drawing.tube(start, end, (0.7 * rx, 0.75 * rx, 0.55 * rx), hair, cloth=0.15)
    drawing.ellipse(head + complex(-facing * 0.14 * rx, 0.12 * ry), complex(rx, 0.98 * ry), hair)
    face = head + complex(facing * 0.26 * rx, -0.14 * ry)
    drawing.ellipse(face, complex(0.74 * rx, 0.82 * ry), look.skin_color())
    nose = face + complex(facing * 0.72 * rx, -0.02 * ry)
    drawing.ellipse(nose, complex(0.16 * rx, 0.13 * ry), look.skin_color())
    drawing.ellipse(head + complex(facing * 0.2 * rx, 0.62 * ry), complex(0.7 * rx, 0.3 * ry), hair)
    temple = head + complex(-facing * 0.3 * rx, 0.1 * ry)
    low = -0.5 if woman or drawing.description["hair"] == "long" else 0.0
    drawing.tube(temple, temple + complex(0, low * ry), (0.36 * rx, 0.34 * rx), hair)
    eye = face + complex(facing * 0.42 * rx, 0.14 * ry)
    drawing.ellipse(eye, complex(0.1 * rx, 0.08 * ry), _DARK)
    lips = np.array((0.72, 0.25, 0.27) if woman else (0.55, 0.32, 0.28), np.float32)
    drawing.ellipse(face + complex(facing * 0.56 * rx, -0.44 * ry), complex(0.14, 0.07) * ry, lips)
    if drawing.description["glasses"]:
        drawing.ellipse(eye, complex(0.4 * rx, 0.28 * ry), _DARK)
        drawing.tube(eye, eye - facing * 0.95 * rx, (0.07 * ry,), _DARK)


def _draw_back_of_head(drawing: Drawing) -> None:
    head, radii, look = drawing.body.head, drawing.body.build.head, drawing.look
    hair = look.hair_color(drawing.description["age"])
    rx, ry = radii.real, radii.imag
    for side in (-1, 1):
        ear = head + complex(side * 0.95 * rx, -0.15 * ry)
        drawing.ellipse(ear, complex(0.14 * rx, 0.2 * ry), look.skin_color() * 0.9)
    drawing.ellipse(head, radii * 1.0, hair, cloth=0.12)
    woman = drawing.description["gender"] == "female"
    if drawing.description["hair"] == "long":
        end = head - complex(0, 2.35 * ry)
        widths = (1.02 * rx, 1.2 * rx, 1.15 * rx, 0.8 * rx)
        drawing.tube(head, end, widths, hair, cloth=0.18)
    elif woman:
        drawing.tube(head, head - 0.55j * ry, (1.08 * rx, 1.05 * rx), hair, cloth=0.12)


def _draw_hat(drawing: Drawing) -> None:
    head, radii = drawing.body.head, drawing.body.build.head
    facing, color = drawing.body.turned, drawing.look.hat_color()
    rx, ry = radii.real, radii.imag
    brim = head + 0.42j * ry
    dome = head + 0.52j * ry
    drawing.tube(brim, head + 0.8j * ry, (1.2 * rx, 1.16 * rx, 0.95 * rx), color, flat=True)
    drawing.ellipse(dome + 0.12j * ry, complex(1.16 * rx, 0.62 * ry), color)
    if drawing.look.hair_cut < 0.4:
        drawing.ellipse(brim, complex(1.95 * rx, 0.24 * ry), color * 0.85)
    elif facing:
        drawing.tube(brim, brim + facing * 1.9 * rx, (0.16 * ry, 0.1 * ry), color * 0.8)
    elif drawing.view == "front":
        drawing.ellipse(brim - 0.04j * ry, complex(1.18 * rx, 0.22 * ry), color * 0.75)
    else:
        drawing.ellipse(brim, complex(0.4 * rx, 0.16 * ry), color * 0.5)


def draw_bag_behind(drawing: Drawing) -> None:
    """The part of a backpack visible beside the body of someone seen from the front."""
    if drawing.description["bag"] == "backpack" and drawing.view == "front":
        body = drawing.body
        wide = body.build.chest + 0.035
        top, bottom = body.neck + 0.0j, body.waist - 0.05j
        drawing.tube(top, bottom, (0.7 * wide, wide, wide, 0.95 * wide), _color(drawing) * 0.85)


def draw_bag(drawing: Drawing) -> None:
    """The bag over the clothes, before the arms are drawn."""
    bag, color = drawing.description["bag"], _color(drawing)
    if bag == "backpack":
        if drawing.body.turned:
            _draw_backpack_from_the_side(drawing, color)
        elif drawing.view == "front":
            _draw_straps(drawing, color)
        else:
            _draw_backpack_from_behind(drawing, color)
    elif bag == "shoulder_bag":
        _draw_shoulder_bag(drawing, color)


def draw_handbag(drawing: Drawing) -> None:
    """The bag in the hand of the carrying arm, the nearer one in a side view."""
    if drawing.description["bag"] != "handbag":
        return
    index = 1 if drawing.body.turned or drawing.pose.carrying > 0 else 0
    hand, color = drawing.body.arms[index].end - 0.02j, _color(drawing)
    top = hand - 0.06j
    for side in (-0.035, 0.035):
        drawing.tube(hand, top + side, (0.006,), color * 0.7, roundness=0)
    drawing.tube(top, top - 0.115j, (0.062, 0.074, 0.078), color, flat=True, roundness=0.2)
    drawing.tube(top, top - 0.02j, (0.064,), color * 0.7, flat=True, roundness=0.2)


def _color(drawing: Drawing) -> Color:
    return drawing.look.bag_color(
        drawing.description["upper_color"], drawing.description["lower_color"]
    )


def _draw_straps(drawing: Drawing, color: Color) -> None:
    body = drawing.body
    for side in (-1, 1):
        top = body.neck + complex(side * 0.62 * body.build.shoulder, -0.008)
        armpit = body.waist + complex(side * 0.78 * body.build.chest, 0.01)
        drawing.tube(top, armpit, (0.019, 0.016), color, roundness=0.15)


def _draw_backpack_from_behind(drawing: Drawing, color: Color) -> None:
    body = drawing.body
    wide = 0.86 * body.build.chest
    top, bottom = body.neck - 0.075j, body.hip + 0.09j
    drawing.tube(top, bottom, (0.8 * wide, 0.92 * wide, wide, wide), color, cloth=0.06)
    pocket = body.waist - 0.02j
    drawing.tube(pocket, pocket - 0.075j, (0.7 * wide,), color * 0.72, roundness=0.2, flat=True)
    drawing.tube(pocket + 0.09j, pocket + 0.095j, (0.75 * wide,), color * 1.3, roundness=0)


def _draw_backpack_from_the_side(drawing: Drawing, color: Color) -> None:
    body = drawing.body
    spine = body.hip - body.neck
    behind = -body.turned * (0.92 * body.build.chest + 0.055)
    top, bottom = body.neck + 0.16 * spine + behind, body.neck + 0.78 * spine + behind
    drawing.tube(top, bottom, (0.05, 0.065, 0.07, 0.062), color, cloth=0.06)
    low = body.neck + 0.6 * spine + behind * 1.5
    drawing.tube(low, low + 0.1 * spine, (0.034,), color * 0.72)
    shoulder, armpit = body.neck + 0.03 * spine, body.neck + 0.42 * spine
    drawing.tube(shoulder + 0.02 * body.turned, armpit + 0.04 * body.turned, (0.016,), color)
    drawing.tube(armpit + 0.04 * body.turned, armpit + 0.5 * behind, (0.014,), color)


def _draw_shoulder_bag(drawing: Drawing, color: Color) -> None:
    body = drawing.body
    if body.turned:
        shoulder, hip = body.neck - 0.01j, body.hip + complex(-0.02 * body.turned, 0.02)
    else:
        side = drawing.pose.carrying
        shoulder = body.neck + complex(-side * 0.5 * body.build.shoulder, -0.006)
        hip = body.hip + complex(side * (body.build.hip + 0.01), 0.02)
    drawing.tube(shoulder, hip + 0.05j, (0.012,), color * 0.8, roundness=0.1)
    drawing.tube(hip + 0.05j, hip - 0.06j, (0.068, 0.075), color, flat=True, roundness=0.2)
    drawing.tube(hip + 0.05j, hip + 0.005j, (0.071,), color * 0.75, flat=True, roundness=0.2)
