"""From the bytes of a picture to uint8 RGB of one size.

Pictures are resized by the bilinear filter that smooths where it makes a picture smaller, that of
Pillow and so of torchvision's Resize, which IRRA uses. Most crops of people only grow; these OpenCV
resizes by the same filter in a seventh of the time (benchmarks/input_pipeline.py).
"""

import io

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

# Crops of people are a thousand times smaller; what is larger is damaged or an attack.
MAX_PIXELS = 2**24
FORMATS = ("JPEG", "PNG")


def decode(
    data: bytes,
    image_size: tuple[int, int],
    *,
    name: str,
    out: UInt8[np.ndarray, "height width 3"] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Decodes a JPEG or PNG picture and resizes it to `image_size`; into `out` if given.

    Raises:
        ValueError: naming the picture, where it is damaged or has more than `MAX_PIXELS` pixels.
    """
    height, width = image_size
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            pixels = picture.width * picture.height
            if pixels > MAX_PIXELS:
                raise ValueError(f"{pixels} pixels; expected {MAX_PIXELS} at most")
            # The JPEG decoder halves a picture at far less cost than a filter does. With a factor
            # of two left to the filter, the result is all but the same.
            drafted = picture.draft(None, (2 * width, 2 * height))
            return resize(picture, image_size, box=drafted and drafted[1], out=out)
    # Pillow reports damage by whatever its decoders happen to raise.
    except Exception as error:
        raise ValueError(f"{name}: cannot be decoded as JPEG or PNG: {error}") from error


def resize(
    picture: Image.Image,
    image_size: tuple[int, int],
    *,
    box: tuple[float, float, float, float] | None = None,
    out: UInt8[np.ndarray, "height width 3"] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Resizes a Pillow picture of any mode, or the part of it in `box`, to RGB of `image_size`."""
    height, width = image_size
    out = np.empty((height, width, 3), np.uint8) if out is None else out
    if picture.mode.startswith("I;16"):
        # 16-bit grey, of which Pillow would cut off what is above 255.
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    grows = picture.width <= width and picture.height <= height
    if grows and box in (None, (0, 0, *picture.size)):
        cv2.resize(np.asarray(picture), (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
    else:
        out[:] = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return out
