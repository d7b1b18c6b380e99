"""The bare interpreter loop that the device client is held against: frames, head, codec, and nothing else.

Copied onto the board and run there: python -m bare STORE PACK PLAN FPS SECONDS
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from tflite_models.activation import encode_activation, frame_to_input
from tflite_models.catalog import load_folder
from tflite_models.pack import load_pack
from tflite_models.runtime import Submodel
from wire.plan import parse_plan


def main() -> None:
    """Run frames at a rate (0: as fast as possible); print CPU time per frame and resident memory as JSON."""
    store, pack, plan_text, fps, seconds = sys.argv[1:]
    plan = parse_plan(plan_text)
    folder = load_folder(Path(store) / plan.version)
    cut, facts = folder.version.cut(plan.cut), folder.version.facts(plan.cut, plan.codec)
    frames, _, _ = load_pack(Path(pack))
    head = Submodel(folder.head(plan.cut), threads=1, prefer="light")
    head.warm_up()
    period_s = 1 / float(fps) if float(fps) else 0.0
    due, began = time.monotonic(), time.process_time()
    end, number = due + float(seconds), 0
    while time.monotonic() < end:
        outputs = head.run(frame_to_input(folder.version.inputs[0], frames[number % len(frames)][np.newaxis]))
        if plan.is_local:
            int(np.argmax(outputs[0]))
        else:
            encode_activation(cut, facts, outputs)
        number += 1
        if period_s:
            due += period_s
            time.sleep(max(0.0, due - time.monotonic()))
    cpu_ms = (time.process_time() - began) * 1000 / number
    with Path("/proc/self/statm").open() as file:
        resident_mb = int(file.read().split()[1]) * resource.getpagesize() / 2**20
    print(json.dumps({"cpu_ms": cpu_ms, "resident_mb": resident_mb}))


if __name__ == "__main__":
    main()
