"""Whole frames as JPEG, WebP or PNG; Pillow is imported when the first one is coded, for its memory's sake."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.tensor.encoded import TensorError


@dataclass(frozen=True, slots=True)
class _Format:
    name: str
    quality: int | None
    start: bytes
    end: bytes


_FORMATS = {
    "jpeg75": _Format("JPEG", 75, b"\xff\xd8\xff", b"\xff\xd9"),
    "webp75": _Format("WEBP", 75, b"RIFF", b""),
    "webp50": _Format("WEBP", 50, b"RIFF", b""),
    "png": _Format("PNG", None, b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
}
_VP8_HEADER = 30

_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
    Warning,
    struct.error,
    zlib.error,
)
"""What Pillow's parsers have been seen to raise on damaged files; they have no root of their own."""


def encode_image(picture: NDArray[np.uint8], codec: str) -> bytes:
    """Encode uint8 [height, width, 3]."""
    from PIL import Image

    form = _FORMATS[codec]
    options: dict[str, Any] = {} if form.quality is None else {"quality": form.quality}
    file = io.BytesIO()
    Image.fromarray(picture).save(file, form.name, **options)
    return file.getvalue()


def decode_image(data: bytes, codec: str, height: int, width: int) -> NDArray[np.uint8]:
    """Return uint8 [height, width, 3]; sizes are checked in the header, before a pixel is decoded."""
    from PIL import Image

    form = _FORMATS[codec]
    if not data.startswith(form.start) or not data.endswith(form.end):
        raise TensorError(f"the frame's bytes are not one whole {form.name} file")
    if form.name == "WEBP":
        _check_webp(data, height, width)
    try:
        with Image.open(io.BytesIO(data), formats=[form.name]) as image:
            if image.size != (width, height) or image.mode != "RGB":
                raise TensorError(
                    f"the {form.name} is {image.size[0]}×{image.size[1]} {image.mode}, not {width}×{height} RGB"
                )
            return np.array(image, np.uint8)
    except TensorError:
        raise
    except (*_PILLOW_ERRORS, Image.DecompressionBombError) as error:
        raise TensorError(f"the frame's {form.name} cannot be decoded: {error}") from error


def _check_webp(data: bytes, height: int, width: int) -> None:
    """Refuse all but a plain lossy file of the right size: Pillow allocates the canvas as it opens one."""
    if len(data) < _VP8_HEADER or data[8:16] != b"WEBPVP8 " or data[23:26] != b"\x9d\x01\x2a":
        raise TensorError("the frame's bytes are not a plain lossy WEBP file")
    if int.from_bytes(data[4:8], "little") + 8 != len(data):
        raise TensorError("the WEBP file is cut short, or bytes follow it")
    found = tuple(int.from_bytes(data[place : place + 2], "little") & 0x3FFF for place in (26, 28))
    if found != (width, height):
        raise TensorError(f"the WEBP is {found[0]}×{found[1]}, not {width}×{height}")
