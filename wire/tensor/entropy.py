"""Lossless squeezing of packed tensors: raw deflate with Huffman codes only (docs/decisions/0002-entropy-coder.md)."""

from __future__ import annotations

import zlib

from wire.tensor.encoded import TensorError

_RAW_DEFLATE = -15
"""No header and no checksum: the transport has its own."""
_BLOCK = 7
"""zlib's memLevel: codes are made anew every 8 KiB, which suits big tensors, and take 64 KB less memory than usual."""


def squeeze(data: bytes) -> bytes:
    """Return ``data`` entropy-coded."""
    coder = zlib.compressobj(wbits=_RAW_DEFLATE, memLevel=_BLOCK, strategy=zlib.Z_HUFFMAN_ONLY)
    return coder.compress(data) + coder.flush()


def unsqueeze(data: bytes, size: int) -> bytes:
    """Return the ``size`` bytes that were squeezed; raises ``TensorError`` if there are more, fewer or rubbish."""
    coder = zlib.decompressobj(_RAW_DEFLATE)
    try:
        plain = coder.decompress(data, size + 1)
    except zlib.error as error:
        raise TensorError(f"the tensor's bytes cannot be decompressed: {error}") from error
    if len(plain) != size or not coder.eof:
        raise TensorError(f"the tensor's bytes are not a whole tensor of {size} bytes")
    if coder.unused_data:
        raise TensorError(f"{len(coder.unused_data)} bytes too many behind the tensor")
    return plain
