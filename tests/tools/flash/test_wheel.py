"""The wheel of the client: it has what the client imports, and nothing of the edge."""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from tools.flash.wheel import NAME, OURS, ROOT, build_wheel, device_sources

OTHERS = {"numpy", "msgpack", "paho", "PIL", "dacite", "tflite_runtime", "ai_edge_litert", "linuxpy"}


def test_it_holds_every_module_that_a_client_loads() -> None:
    script = (
        "import sys, device_client.__main__, device_client.profiling\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] in sys.argv[1:] and m.__file__))"
    )
    done = subprocess.run([sys.executable, "-c", script, *OURS], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {Path(file).relative_to(ROOT) for file in done.stdout.split()}
    assert len(loaded) > 30
    assert loaded <= set(device_sources())


def test_it_holds_nothing_that_only_the_edge_needs() -> None:
    sources = {str(path) for path in device_sources()}
    assert "tflite_models/pack.py" in sources, "imported inside a function"
    assert not sources & {"tflite_models/store.py", "tflite_models/adopt.py", "wire/exposition.py"}
    assert not [path for path in sources if path.startswith(("tflite_models/builder", "tflite_models/splitter"))]


def test_it_needs_the_packages_that_go_along_and_python_alone() -> None:
    found: set[str] = set()
    for path in device_sources():
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    assert found - set(sys.stdlib_module_names) - set(OURS) <= OTHERS


def test_the_same_sources_give_the_same_bytes_and_a_true_record(tmp_path: Path) -> None:
    paths = []
    for name in "ab":
        (tmp_path / name).mkdir()
        paths.append(build_wheel(tmp_path / name))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with zipfile.ZipFile(paths[0]) as wheel:
        (record,) = (name for name in wheel.namelist() if name.endswith("/RECORD"))
        assert record.startswith(NAME)
        rows = list(csv.reader(wheel.read(record).decode().splitlines()))
        assert {row[0] for row in rows} == set(wheel.namelist())
        for name, told, size in rows:
            if name != record:
                kind, _, digest = told.partition("=")
                padded = digest + "=" * (-len(digest) % 4)
                assert base64.urlsafe_b64decode(padded) == hashlib.new(kind, wheel.read(name)).digest()
                assert int(size) == wheel.getinfo(name).file_size
