"""Arms, legs and torso, with what is worn on them."""

import numpy as np
from jaxtyping import Float

from tfds_builders.synthetic_pedestrians.body import Drawing, Limb, shade
from tfds_builders.synthetic_pedestrians.canvas import Color, Shape

_FOLDS = 0.09
_STRIPE = 0.062  # height of a light plus a dark stripe
_PLAID = 0.07  # width of a square
_SHORT_SLEEVE = 0.72  # of the upper arm


def draw_legs(drawing: Drawing) -> None:
    """Both legs, the farther first, in shoes or boots, and the trousers or the skirt on them."""
    legs = drawing.body.legs
    if not drawing.body.turned:
        legs = sorted(legs, key=lambda leg: leg.toward)
    color = shade(drawing.description["lower_color"], drawing.look.lower)
    trousers = drawing.description["lower_type"] == "pants"
    for leg, light in zip(legs, (0.8, 1.0), strict=True):
        _draw_bare_leg(drawing, leg, light)
        if not drawing.description["boots"]:
            _draw_shoe(drawing, leg, drawing.look.shoe_color() * light)
        if trousers:
            _draw_trouser_leg(drawing, leg, color * light)
        if drawing.description["boots"]:
            _draw_boot(drawing, leg, light)
    if trousers:
        _draw_seat(drawing, color)
    else:
        _draw_skirt(drawing, color)


def _draw_bare_leg(drawing: Drawing, leg: Limb, light: float) -> None:
    skin, limb = drawing.look.skin_color() * light, drawing.body.build.limb
    drawing.tube(leg.root, leg.middle, (0.052 * limb, 0.034 * limb), skin)
    drawing.tube(leg.middle, leg.end, (0.033 * limb, 0.038 * limb, 0.03 * limb, 0.02 * limb), skin)


def _draw_shoe(drawing: Drawing, leg: Limb, color: Color) -> None:
    turned = drawing.body.turned
    if turned:
        shin = leg.end - leg.middle
        tilt = complex(0, 1) * shin / abs(shin)  # the foot stands at a right angle to the shin
        toe = leg.end + 0.032 * tilt * turned + 0.026 * shin / abs(shin)
        drawing.ellipse(toe, complex(0.062, 0.024), color, turn=tilt)
        return
    lower = -0.028 if drawing.view == "front" else -0.02
    outward = 0.012 if leg.end.real > 0 else -0.012
    drawing.ellipse(leg.end + complex(outward, lower), complex(0.031, 0.027), color)


def _draw_boot(drawing: Drawing, leg: Limb, light: float) -> None:
    limb = drawing.body.build.limb
    color = drawing.look.boot_color(drawing.description["lower_color"]) * light
    top = leg.end + 0.72 * (leg.middle - leg.end)
    drawing.tube(top, leg.end, (0.056 * limb, 0.048 * limb, 0.041 * limb), color, flat=True)
    cuff = top + 0.14 * (leg.end - top)
    drawing.tube(top, cuff, (0.061 * limb,), color * 1.45 + 0.06, flat=True)
    _draw_shoe(drawing, leg, color * 0.9)


def _draw_trouser_leg(drawing: Drawing, leg: Limb, color: Color) -> None:
    limb = drawing.body.build.limb
    if drawing.description["lower_length"] == "short":
        hem = leg.root + 0.8 * (leg.middle - leg.root)
        drawing.tube(leg.root, hem, (0.064 * limb, 0.06 * limb), color, flat=True, cloth=_FOLDS)
        return
    drawing.tube(leg.root, leg.middle, (0.06 * limb, 0.046 * limb), color, cloth=_FOLDS)
    hem = leg.end + 0.06 * (leg.middle - leg.end)
    widths = (0.046 * limb, 0.043 * limb, 0.036 * limb, 0.038 * limb)
    drawing.tube(leg.middle, hem, widths, color, flat=True, cloth=_FOLDS)


def _draw_seat(drawing: Drawing, color: Color) -> None:
    body = drawing.body
    wide = body.build.hip
    top, crotch = body.hip + 0.01j, body.hip - 0.055j
    drawing.tube(top, crotch, (0.92 * wide, wide, 0.8 * wide), color, flat=True, cloth=_FOLDS)
    if not body.turned:
        drawing.tube(body.hip - 0.02j, body.hip - 0.1j, (0.003,), color * 0.7, roundness=0)


def _draw_skirt(drawing: Drawing, color: Color) -> None:
    body = drawing.body
    long = drawing.description["lower_length"] == "long"
    hem_y = 0.16 if long else body.build.knee_y + 0.045
    knees = [leg.middle.real + (leg.end.real - leg.middle.real) * 0.5 * long for leg in body.legs]
    reach = max(max(knees) - min(knees), body.build.hip) / 2 + (0.062 if long else 0.066)
    hem = complex((max(knees) + min(knees)) / 2, hem_y)
    wide = body.build.hip
    widths = (0.94 * wide, 1.06 * wide, 0.5 * (1.1 * wide + reach), 1.02 * reach)
    shape = drawing.canvas.tube(drawing.frame, body.hip + 0.01j, hem, widths, flat=True)
    if shape is None:
        return
    pleats = 0.12 * _bands(shape.side, 0.4, drawing.look.pattern, 0.5) - 0.06
    deepening = np.minimum(shape.along / (0.3 * shape.scale), 1)
    color = color[:, None, None] * (1 + pleats * deepening)
    drawing.canvas.paint(shape, color, cloth=_FOLDS)


def draw_torso(drawing: Drawing) -> None:
    """The upper garment from the neck to below the waist, with its pattern."""
    body = drawing.body
    top = body.neck + 0.008j
    hem = body.hip + (body.hip - body.neck) * 0.09
    left, right = _outline(drawing)
    shape = drawing.canvas.tube(drawing.frame, top, hem, left, right_widths=right, flat=True)
    if shape is None:
        return
    drawing.canvas.paint(shape, _pattern(drawing, shape, abs(hem - top)), cloth=_FOLDS)
    rim = hem + 0.012 * (top - hem) / abs(hem - top)
    drawing.tube(rim, hem, (body.build.hip,), np.zeros(3), flat=True, opacity=0.25)
    if drawing.description["upper_pattern"] == "logo":
        _draw_logo(drawing)
    if drawing.view == "front":
        _draw_neckline(drawing)


def _outline(drawing: Drawing) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Half widths of the torso to the left and to the right, from the neck down."""
    build, turned = drawing.body.build, drawing.body.turned
    chest, waist, hip = build.chest, build.waist, build.hip
    woman = drawing.description["gender"] == "female"
    if not turned:
        upper = (0.045, build.shoulder + 0.006, build.shoulder + 0.016, chest + 0.006)
        widths = (*upper, (chest + waist) / 2, waist, (waist + hip) / 2 + 0.004, hip + 0.006)
        return widths, widths
    bust = 0.028 if woman and drawing.description["age"] != "child" else 0.0
    belly, seat = (0.0, 0.016) if woman else (0.008, 0.004)
    front = (0.03, 0.055, chest + 0.6 * bust, chest + bust, waist, waist + belly, 0.94 * hip)
    back = (0.035, 0.06, chest, chest, 0.9 * waist, 0.95 * waist, 0.94 * hip + seat)
    return (back, front) if turned > 0 else (front, back)


def _draw_neckline(drawing: Drawing) -> None:
    neck, skin = drawing.body.neck, drawing.look.skin_color()
    woman = drawing.description["gender"] == "female"
    radii = complex(0.046, 0.046) if woman else complex(0.034, 0.022)
    drawing.ellipse(neck + 0.006j, radii, skin * 0.92, roundness=0.1)


def _draw_logo(drawing: Drawing) -> None:
    body = drawing.body
    center = body.neck + 0.4 * (body.hip - body.neck) + 0.03 * body.turned
    color = drawing.look.contrast_color(drawing.description["upper_color"])
    size = 0.055 if body.turned else 0.068
    if drawing.look.pattern < 0.5:
        drawing.ellipse(center, complex(size, size * 0.85), color, roundness=0.1)
    else:
        drawing.tube(center + 0.045j, center - 0.045j, (size,), color, flat=True, roundness=0.1)
    cloth = shade(drawing.description["upper_color"], drawing.look.upper)
    drawing.ellipse(center, complex(size * 0.45, size * 0.3), cloth, roundness=0)


def _pattern(
    drawing: Drawing, shape: Shape, length: float, *, sleeve: bool = False
) -> Color | Float[np.ndarray, "3 height width"]:
    """The color of the upper garment, everywhere on a shape of that length."""
    look, pattern = drawing.look, drawing.description["upper_pattern"]
    color = shade(drawing.description["upper_color"], look.upper)
    if pattern in ("none", "logo"):
        return color
    if pattern == "stripes":
        share = _bands(shape.along, _STRIPE * shape.scale, look.pattern, 0.5)
    elif pattern == "plaid":
        rows = _bands(shape.along, _PLAID * shape.scale, look.pattern, 0.28)
        share = 0.5 * rows + 0.5 * _bands(shape.across, _PLAID * shape.scale, look.pattern, 0.28)
    elif sleeve:
        share = np.float32(1.0)
    else:
        share = np.clip(0.5 + 0.36 * length * shape.scale - shape.along, 0, 1)
    other = look.contrast_color(drawing.description["upper_color"])
    return color[:, None, None] + share * (other - color)[:, None, None]


def draw_arm(drawing: Drawing, arm: Limb, light: float = 1.0) -> None:
    """An arm in its sleeve; `light` below 1 darkens the far one."""
    draw_upper_arm(drawing, arm, light)
    draw_forearm(drawing, arm, light)


def draw_upper_arm(drawing: Drawing, arm: Limb, light: float = 1.0) -> None:
    """An arm down to the elbow."""
    limb, skin = drawing.body.build.limb, drawing.look.skin_color() * np.float32(light)
    if drawing.description["sleeve"] == "long":
        _draw_sleeve(drawing, arm.root, arm.middle, (0.037 * limb, 0.034 * limb), light)
        return
    drawing.tube(arm.root, arm.middle, (0.033 * limb, 0.027 * limb), skin)
    cuff = arm.root + _SHORT_SLEEVE * (arm.middle - arm.root)
    _draw_sleeve(drawing, arm.root, cuff, (0.036 * limb, 0.042 * limb), light)


def draw_forearm(drawing: Drawing, arm: Limb, light: float = 1.0) -> None:
    """An arm from the elbow to the hand."""
    limb, skin = drawing.body.build.limb, drawing.look.skin_color() * np.float32(light)
    palm = arm.end + 0.16 * (arm.end - arm.middle)
    drawing.tube(arm.end, palm, (0.018, 0.02), skin)
    if drawing.description["sleeve"] == "long":
        _draw_sleeve(drawing, arm.middle, arm.end, (0.034 * limb, 0.027 * limb), light)
    else:
        drawing.tube(arm.middle, arm.end, (0.027 * limb, 0.019 * limb), skin)


def _draw_sleeve(
    drawing: Drawing, start: complex, end: complex, widths: tuple[float, float], light: float
) -> None:
    shape = drawing.canvas.tube(drawing.frame, start, end, widths)
    if shape is not None:
        color = _pattern(drawing, shape, abs(end - start), sleeve=True) * np.float32(light)
        drawing.canvas.paint(shape, color, cloth=_FOLDS, roundness=0.42)


def _bands(
    place: Float[np.ndarray, "height width"], period: float, phase: float, share: float
) -> Float[np.ndarray, "height width"]:
    """Soft-edged bands, 1 on that share of each period and 0 elsewhere."""
    wave = np.abs((place / period + phase) % 1 - 0.5)
    return np.clip(0.5 + 7 * (wave - 0.5 * (1 - share)), 0, 1)
