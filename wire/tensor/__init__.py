"""Codecs that turn the tensor at a cut, or the frame itself, into few bytes and back."""

from wire.tensor.codec import IMAGE_CODECS, TENSOR_CODECS, decode, encode
from wire.tensor.encoded import Clip, EncodedTensor, TensorError

__all__ = ["IMAGE_CODECS", "TENSOR_CODECS", "Clip", "EncodedTensor", "TensorError", "decode", "encode"]
