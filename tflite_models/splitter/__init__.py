"""Cut any ``.tflite`` file into a head and a tail, and prove that the two compose to the whole."""

from tflite_models.splitter.checks import CutCheck, check_each, verify
from tflite_models.splitter.flatfile import ModelFileError
from tflite_models.splitter.graph import Graph, SplitRefused, load_graph
from tflite_models.splitter.halves import split
from tflite_models.splitter.pixels import take_pixels

__all__ = [
    "CutCheck",
    "Graph",
    "ModelFileError",
    "SplitRefused",
    "check_each",
    "load_graph",
    "split",
    "take_pixels",
    "verify",
]
