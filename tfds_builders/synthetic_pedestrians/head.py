"""Head, face and hair, and what is worn there."""

import numpy as np

from tfds_builders.synthetic_pedestrians.drawing import Drawing

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
