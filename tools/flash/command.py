"""The command ``splitfleet flash``: a board's bundle into a folder, onto a card or over SSH; and its self-test."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from tools.devices import Site
from tools.flash.bundle import Bundle, Order, make_bundle
from tools.flash.camera import CameraChoice
from tools.flash.card import put_on_card
from tools.flash.errors import FlashError
from tools.flash.mbr import boot_partition
from tools.flash.ssh import install_over_ssh
from tools.flash.targets import target_named
from tools.output import console, print_json, print_table, progress_bar
from tools.prepared import Progress
from tools.site import Folder, Json, found

FACTS = {
    "target": "board",
    "system": "its system",
    "bundle_mb": "bundle, MB",
    "packages_mb": "of these packages, MB",
    "install_s_emulated": "installing, s (emulated: says nothing of a board)",
    "network_while_installing": "network interfaces while installing",
    "runtime": "runtime",
    "client": "client",
    "decided": "decided plan",
    "followed": "plans of the frames that the edge completed",
    "frames": "frames by outcome",
    "accuracy": "right answers among the answered",
    "service": "messages to the service manager",
    "status": "its last status",
    "memory_mb_with_emulator": "resident memory, MB, with the emulator",
    "exit_code": "exit code after SIGTERM",
    "passed": "passed",
}


def flash(
    name: Annotated[str, typer.Argument(help="Name of a device of the site (splitfleet devices add).")] = "",
    target: Annotated[
        str, typer.Option("--target", help="pi64 (64-bit ARM), pi32 (32-bit ARMv7) or x86 (64 bits).")
    ] = "pi64",
    out: Annotated[
        Path | None, typer.Option("--out", help="Make the bundle in this folder.", show_default=False)
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option("--image", help="Put it onto a Raspberry Pi OS image or card (/dev/sdX).", show_default=False),
    ] = None,
    ssh: Annotated[
        str, typer.Option("--ssh", help="Copy it to this host and install it there.", show_default=False)
    ] = "",
    version: Annotated[
        list[str] | None,
        typer.Option("--version", help="A version that goes along; again for more; the first is safe [resnet-light]."),
    ] = None,
    camera: Annotated[
        str, typer.Option("--camera", help="pack (sample frames), /dev/video0, or a folder on the board.")
    ] = "pack",
    device_class: Annotated[
        str, typer.Option("--class", help="Class of the board: names its profile, which goes along if there is one.")
    ] = "unprofiled",
    python: Annotated[str, typer.Option("--python", help="Python of the board: 3.11, 3.12 or 3.13.")] = "3.11",
    site: Site = "",
    folder: Folder = None,
    selftest: Annotated[
        str, typer.Option("--selftest", help="Try a target in a Debian root under emulation (root, some minutes).")
    ] = "",
    as_json: Json = False,
) -> None:
    """Make everything a board needs to work without internet, and bring it there: into a folder, onto a card, by SSH.

    Client, packages for its processor and Python, certificate and key, settings, versions with their heads, a hardened
    service with watchdog, and an installer (sh install.sh, as root, on the board). Whoever has the bundle is that
    device: it holds the private key.

    Example: splitfleet flash cam-01 --target pi64 --out cam-01
    """
    board = target_named(selftest or target)
    versions = tuple(dict.fromkeys(version or ["resnet-light"]))
    order = Order(name or "cam-01", board, board.check_python(python), versions, CameraChoice(camera), device_class)
    if selftest:
        if name or out or image or ssh:
            raise typer.BadParameter("makes a site, a device and a bundle of its own", param_hint="--selftest")
        _selftest(order, as_json=as_json)
        return
    if not name:
        raise typer.BadParameter("name a device of the site", param_hint="NAME")
    if sum(way is not None for way in (out, image, ssh or None)) != 1:
        raise FlashError("say one of --out FOLDER, --image FILE and --ssh HOST")
    _flash(order, found(site, folder), out, image, ssh, as_json=as_json)


def _flash(order: Order, site: Path, out: Path | None, image: Path | None, ssh: str, *, as_json: bool) -> None:
    if image is not None:
        boot_partition(image)  # before the work, not after it
    with _place(out) as folder, progress_bar() as show:
        bundle = make_bundle(order, site, folder, show)
        said = ""
        if image is not None:
            put_on_card(bundle, image)
        elif ssh:
            said = install_over_ssh(bundle, ssh)
    if as_json:
        where = {"out": out and str(out), "image": image and str(image), "ssh": ssh or None}
        print_json(
            {
                "name": order.name,
                "site": bundle.site,
                "target": order.target.name,
                "python": order.python,
                "release": bundle.release,
                "versions": order.versions,
                **where,
                "bytes": bundle.size_of(),
                "files": bundle.sizes,
                "changed": bundle.changed,
                "wheels_fetched": bundle.fetched,
            }
        )
        return
    _tell(bundle, out, image, ssh, said)


def _tell(bundle: Bundle, out: Path | None, image: Path | None, ssh: str, said: str) -> None:
    order = bundle.order
    parts = [
        ("packages for its processor", bundle.size_of("wheels/")),
        (f"models: {', '.join(order.versions)}", bundle.size_of("models/")),
        ("sample frames", bundle.size_of("frames.npz")),
        ("certificate and key", bundle.size_of("tls/")),
    ]
    rest = bundle.size_of() - sum(size for _, size in parts)
    rows = [*parts, ("settings, service, installer", rest), ("all", bundle.size_of())]
    title = f"{order.name} of site {bundle.site}: {order.target.name}, Python {order.python}, client {bundle.release}"
    print_table(title, ("part", "bytes"), [row for row in rows if row[1]])
    paper = console()
    whence = "fetched, and kept for the next time" if bundle.fetched else "out of this machine's cache"
    paper.print(f"packages {whence}")
    if order.python != "3.11" and order.target.name != "x86":
        paper.print(
            f"Python {order.python} takes ai-edge-litert, which could not be tried for {order.target.name} "
            "(docs/flashing.md): the installer runs every model once before it lets the client run"
        )
    if order.camera.text == "pack":
        paper.print("it classifies the sample frames; for a real camera: --camera /dev/video0, or a folder of pictures")
    if out is not None:
        same = len(bundle.sizes) - 1 - len(bundle.changed)
        paper.print(f"{out}: {len(bundle.changed)} files written, {same} unchanged", soft_wrap=True)
        paper.print(f"on the board, as root: sh {out.name}/install.sh", soft_wrap=True)
    elif image is not None:
        paper.print(f"{image} installs it at its first boot, and says how it went in splitfleet.log there")
    else:
        paper.print(f"installed on {ssh}:")
        paper.print(said.strip(), markup=False, soft_wrap=True)


def _selftest(order: Order, *, as_json: bool) -> None:
    from tools.flash.selftest import selftest

    with progress_bar() as show:
        findings = selftest(order, _spoken(show))
    if as_json:
        print_json(findings.facts)
    else:
        rows = [(FACTS.get(key, key), _words(value)) for key, value in findings.facts.items()]
        print_table("a board in emulation, measured", ("what", "found"), rows)
    if not findings.passed:
        raise typer.Exit(1)


def _spoken(show: Progress) -> Progress:
    """Return a progress that also says each new step in a line where there is no terminal: it takes minutes."""
    last = ""

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        show(what, done, total)
        if what != last and not sys.stderr.isatty():
            sys.stderr.write(f"{what}\n")
        last = what

    return tell


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item:,}" for key, item in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


@contextmanager
def _place(out: Path | None) -> Iterator[Path]:
    """Give the folder that was asked for, or one for the while of the block."""
    if out is not None:
        yield out.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="splitfleet-flash-") as name:
        yield Path(name) / "bundle"
