"""How TensorFlow runs in a process of ours: quiet, and the same result every time."""

from __future__ import annotations

import os


def prepare_tensorflow(threads: int = 1) -> None:
    """Set TensorFlow up; call it before anything else imports it.

    One thread is the fastest for networks as small as these, and sums in the same order every time. oneDNN stays off:
    it rounds differently from processor to processor.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
