"""Backpacks, shoulder bags and handbags, by what of them is seen from each side."""

from tfds_builders.synthetic_pedestrians.canvas import Color
from tfds_builders.synthetic_pedestrians.drawing import Drawing


def draw_bag_behind(drawing: Drawing) -> None:
    """What of a backpack shows beside the body of someone seen from the front."""
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
