"""Where things lie on a flashed board; install.sh and the service know the same places."""

from __future__ import annotations

SETTINGS = "/etc/splitfleet"
DATA = "/var/lib/splitfleet"
MODELS = f"{DATA}/models"
STATE = f"{DATA}/state"
FRAMES = f"{DATA}/frames.npz"
PROFILE = f"{DATA}/profile.json"
TLS = f"{SETTINGS}/tls"
