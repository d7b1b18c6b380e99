"""A Chromium without a screen, for what looks at pages: benches, pictures of the documents, tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wire.errors import WireError

QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
)  # fmt: skip
"""It shall ask nobody but us."""


class BrowserError(WireError):
    """There is nothing to look with, or nothing to look at."""


@contextmanager
def headless_chromium() -> Iterator[Any]:
    """Yield a browser (of playwright's synchronous interface); raises ``BrowserError`` where there is no Chromium."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise BrowserError("chromium is not installed: sh tools/system_packages.sh")
    with sync_playwright() as driver, driver.chromium.launch(executable_path=chromium, args=QUIET) as browser:
        yield browser
