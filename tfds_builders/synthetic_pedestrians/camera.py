"""The camera: size and framing of the picture, light and color, blur, noise and JPEG."""

import cmath
import dataclasses
import io
import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from tfds_builders.synthetic_pedestrians import difficulty
from tfds_builders.synthetic_pedestrians.canvas import Frame, noise

_HEIGHT = (96, 256)
_ASPECT = (0.4, 0.58)  # width by height


@dataclasses.dataclass(frozen=True)
class Shot:
    """One picture's size in pixels and where its person is."""

    height: int
    width: int
    frame: Frame
    light: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Shot":
        low, high = _HEIGHT
        height = round(low * (high / low) ** rng.random())
        width = round(height * rng.uniform(*_ASPECT))
        filled = rng.uniform(*difficulty.FILLED)
        roll = math.radians(difficulty.ROLL * rng.uniform(-1, 1))
        shift = difficulty.SHIFT * rng.uniform(-1, 1, 2)
        # The middle of a body, at half its height, is near the middle of the picture.
        middle = complex(width / 2 + shift[0] * height, height / 2 + shift[1] * height)
        unit = cmath.rect(filled * height, roll)
        frame = Frame(middle - unit * (0.5j).conjugate(), unit)
        return cls(height, width, frame, rng.uniform(-0.9, 0.9))


def expose(
    rng: np.random.Generator,
    camera: np.random.Generator,
    pixels: Float[np.ndarray, "3 height width"],
) -> UInt8[np.ndarray, "height width 3"]:
    """What a sensor makes of the light: `camera` draws what is the camera's own, `rng` the rest."""
    _, height, width = pixels.shape
    cast = camera.uniform(-1, 1, 2) * 0.6 + rng.uniform(-1, 1, 2) * 0.4
    gains = np.array((1 + difficulty.COLOR_CAST * cast[0], 1, 1 + difficulty.COLOR_CAST * cast[1]))
    gains *= rng.uniform(*difficulty.EXPOSURE)
    contrast, gray = rng.uniform(*difficulty.CONTRAST), rng.uniform(0.3, 0.6)
    uneven = 1 + 0.12 * noise(rng, height, width, (3, 2))
    scale = (255 * contrast * gains).astype(np.float32)[:, None, None]
    image = np.clip(pixels * uneven * scale + np.float32(255 * gray * (1 - contrast)), 0, 255)
    sharp = Image.fromarray(np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0)))
    blurred = _blur(sharp, rng.uniform(*difficulty.RESOLUTION))
    grain = rng.standard_normal((height, width, 3), np.float32) * np.float32(
        255 * rng.uniform(*difficulty.NOISE)
    )
    return np.clip(np.asarray(blurred) + grain, 0, 255).astype(np.uint8)


def _blur(image: Image.Image, resolution: float) -> Image.Image:
    """The picture as if it had been taken with that many rows of pixels."""
    if resolution >= image.height:
        return image
    small = (max(round(resolution * image.width / image.height), 1), round(resolution))
    return image.resize(small, Image.Resampling.BILINEAR).resize(
        image.size, Image.Resampling.BICUBIC
    )


def jpeg(rng: np.random.Generator, image: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """The picture as a JPEG file of drawn quality."""
    file = io.BytesIO()
    quality = int(rng.integers(*difficulty.JPEG_QUALITY, endpoint=True))
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()
