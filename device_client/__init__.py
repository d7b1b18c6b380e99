"""What is flashed onto a board: camera, head, frames in flight, ledger, meters and telemetry."""

__version__ = "0.1.0"
