"""``python -m tools.dashboard.pictures ADDRESS FOLDER``: the pictures of the documents, of a dashboard that runs."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.bench.browser import headless_chromium

SETTLE_MS = 4000
"""Charts are drawn every other second."""
PICTURES = (
    ("dashboard-fleet.png", "/", "light", 1280, 640),
    ("dashboard-device.png", "/device/{device}", "light", 1280, 1060),
    ("dashboard-policy.png", "/policy", "dark", 1280, 760),
    ("dashboard-edge.png", "/edge", "light", 1280, 800),
)
"""File, page, scheme of colours, width and height in pixels."""


def main() -> None:
    """Draw every page once; the device is the third argument, else the first of the table."""
    address, folder, *device = sys.argv[1:]
    with headless_chromium() as browser:
        for name, path, scheme, width, height in PICTURES:
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            page = context.new_page()
            if "{device}" in path and not device:
                page.goto(address)
                device = [page.locator(".ag-row [col-id=name]").first.inner_text()]
            page.goto(address + path.format(device=device[0] if device else ""))
            page.wait_for_timeout(SETTLE_MS)
            page.screenshot(path=Path(folder) / name)
            context.close()


if __name__ == "__main__":
    main()
