#!/bin/sh
# Installs splitfleet's device client on this board out of the folder it lies in, as root. Needs no network, and may be run again.
#   sh install.sh                  everything, with the service
#   sh install.sh --no-service     all but the service, for a board without systemd
#   sh install.sh --prefix DIR     all but user and service, below DIR (to try it out; needs no root)
set -eu
umask 022
say() { echo "splitfleet: $*"; }
die() { echo "splitfleet: $*" >&2; exit 2; }

here="$(cd "$(dirname "$0")" && pwd)"
service=yes
prefix="${SPLITFLEET_PREFIX:-}"
while [ $# -gt 0 ]; do
    case "$1" in
        --no-service) service= ;;
        --prefix) [ $# -gt 1 ] || die "--prefix needs a folder"; prefix="$2"; shift ;;
        -h|--help) sed -n '2,5s/^# *//p' "$0"; exit 0 ;;
        *) die "unknown option $1; see: sh install.sh --help" ;;
    esac
    shift
done
if [ -n "$prefix" ]; then
    case "$prefix" in *[!A-Za-z0-9/._-]*|[!/]*) die "--prefix $prefix: only a plain absolute path" ;; esac
    service=
elif [ "$(id -u)" -ne 0 ]; then
    die "this needs root: sudo sh $0"
fi

# TARGET, PYTHON, RELEASE, NAME, DEBIAN, PICTURES
# shellcheck source=/dev/null
. "$here/bundle.env" 2>/dev/null || die "$here is no whole bundle: bundle.env is missing. Copy it again"

# -- is this the board it was made for? --------------------------------------------------------------------------------
machine="$(uname -m)" bits="$(getconf LONG_BIT)"
case "$machine/$bits" in
    aarch64/64) board=pi64 ;;
    aarch64/32|armv7l/32|armv8l/32) board=pi32 ;;  # a 64-bit kernel under a 32-bit system says aarch64
    x86_64/64) board=x86 ;;
    *) die "there are no packages for a board of $machine with $bits bits: pi64, pi32 (ARMv7) and x86 are known" ;;
esac
[ "$board" = "$TARGET" ] || die "this bundle is for $TARGET and this board is a $board ($machine, $bits bits): flash it with --target $board"

python=
for candidate in "python$PYTHON" python3; do
    found="$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" || continue
    [ "$found" = "$PYTHON" ] && { python="$candidate"; break; }
done
[ -n "$python" ] || die "this bundle is for Python $PYTHON and this board has ${found:-none}: flash it with --python ${found:-X.Y}, or install python$PYTHON"
"$python" -c 'import venv, sqlite3, ssl' 2>/dev/null || die "Python's venv, sqlite3 or ssl module is missing: apt-get install libpython$PYTHON-stdlib"
if [ -n "$DEBIAN" ]; then
    "$python" -c 'import numpy, msgpack, PIL' 2>/dev/null || die "Debian's own packages are missing: apt-get install $DEBIAN"
fi
if [ -n "$service" ] && [ ! -d /run/systemd/system ]; then
    die "this board does not run systemd: sh install.sh --no-service, and start the client in your own way"
fi
(cd "$here" && sha256sum --check --quiet --strict SHA256SUMS >&2) || die "files in $here are damaged or missing: copy the bundle again"

# -- where things go -----------------------------------------------------------------------------------------------------
code="$prefix/opt/splitfleet" settings="$prefix/etc/splitfleet" data="$prefix/var/lib/splitfleet"
release="$code/releases/$RELEASE"
user="" group=""
if [ -z "$prefix" ]; then
    user=splitfleet group=splitfleet
    if ! getent passwd "$user" >/dev/null; then
        useradd --system --user-group --home-dir "$data" --no-create-home --shell /usr/sbin/nologin "$user"
        say "user $user is new"
    fi
    if getent group video >/dev/null; then usermod --append --groups video "$user"; fi
fi
own() { if [ -n "$user" ]; then chown -R "$1" "$2"; fi; }

# One file, replaced as a whole: put SOURCE TARGET MODE OWNER
put() {
    if cmp -s "$1" "$2"; then return; fi
    cp "$1" "$2.new"
    own "$4" "$2.new"
    chmod "$3" "$2.new"
    mv -f "$2.new" "$2"
}

# -- the client with its packages: a release is whole or not there -----------------------------------------------------
if [ -e "$release/bin/python" ]; then
    say "client $RELEASE is here already"
else
    say "installing client $RELEASE"
    mkdir -p "$code/releases"
    rm -rf "$release.new"
    if [ -n "$DEBIAN" ]; then shared=--system-site-packages; else shared=; fi
    # shellcheck disable=SC2086  # no word, or one
    "$python" -m venv --without-pip $shared "$release.new"
    # pip comes as a wheel and runs out of it: the board needs no pip of its own, and keeps none.
    PYTHONWARNINGS=ignore "$release.new/bin/python" "$(echo "$here"/wheels/pip-*.whl)/pip" install --quiet --no-index --no-deps \
        --isolated --no-cache-dir --disable-pip-version-check --root-user-action=ignore --find-links "$here/wheels" \
        --require-hashes --requirement "$here/requirements.txt" || die "pip could not install the packages: is the disk full? ($(df -h "$code" | tail -n 1))"
    sync  # else a power cut could keep the new name and lose what the files hold
    mv "$release.new" "$release"
fi

# -- settings, certificate, models ---------------------------------------------------------------------------------------
mkdir -p "$settings/tls" "$data/models" "$data/state"
# Whatever is flashed anew goes before the updates of before. The note outlives a power cut between the change and its end.
anew() { : > "$data/.anew"; sync; }
[ -z "$PICTURES" ] || mkdir -p "$prefix$PICTURES"
sed -e "s|\"/etc/splitfleet/|\"$settings/|" -e "s|\"/var/lib/splitfleet/|\"$data/|" "$here/device.toml" > "$settings/.device.toml"
cmp -s "$settings/.device.toml" "$settings/device.toml" || anew
if [ -e "$settings/device.toml" ] && ! cmp -s "$settings/.device.toml" "$settings/device.toml"; then
    cp -p "$settings/device.toml" "$settings/device.toml.before"
    say "other settings than before; the old ones are in $settings/device.toml.before"
fi
put "$settings/.device.toml" "$settings/device.toml" 640 "root:$group"
rm "$settings/.device.toml"
for file in "$here"/tls/*; do
    [ -e "$file" ] || continue
    case "$file" in */bundles.pem) cmp -s "$file" "$settings/tls/bundles.pem" || anew ;; esac
    case "$file" in *key.pem) mode=600 ;; *) mode=644 ;; esac
    (umask 077; put "$file" "$settings/tls/$(basename "$file")" "$mode" "$user:$group")
done
for model in "$here"/models/*; do
    version="$(basename "$model")"
    if ! diff -rq "$model" "$data/models/$version" >/dev/null 2>&1; then
        anew
        rm -rf "$data/models/.$version.new" "$data/models/.$version.old"
        cp -R "$model" "$data/models/.$version.new"
        [ ! -e "$data/models/$version" ] || mv "$data/models/$version" "$data/models/.$version.old"
        mv "$data/models/.$version.new" "$data/models/$version"
        rm -rf "$data/models/.$version.old"
        say "model $version"
    fi
done
for file in frames.npz profile.json; do
    [ ! -e "$here/$file" ] || put "$here/$file" "$data/$file" 644 "$user:$group"
done
own "$user:$group" "$data"
if [ -n "$user" ]; then chown "root:$group" "$settings"; chmod 750 "$settings"; chmod 750 "$data"; fi

# -- does it work? Then it becomes the one that runs ---------------------------------------------------------------------
(cd / && "$release/bin/python" -I - "$settings/device.toml") <<'CHECK' || die "the client does not work here: see above"
import sys
from pathlib import Path
from device_client.client import Client  # whatever it needs is there
from device_client.settings import DeviceSettings
from tflite_models.catalog import load_catalog
from tflite_models.runtime import Submodel
from wire.settings import load_settings
settings = load_settings(DeviceSettings, Path(sys.argv[1]))
for folder in load_catalog(settings.models, check_hash=True).folders.values():
    model = Submodel(folder.model, runtime=settings.runtime)
    model.warm_up()  # a runtime may load and still not run on this processor
    print(f"splitfleet: {settings.name} of site {settings.site} runs {folder.version.name} on {model.runtime}")
CHECK
before="$(readlink "$code/current" || true)"
if [ "$before" != "releases/$RELEASE" ]; then
    anew
    ln -sfn "releases/$RELEASE" "$code/.current"
    mv -fT "$code/.current" "$code/current"
    for other in "$code"/releases/*; do  # the one before stays, to go back to
        case "releases/${other##*/}" in "releases/$RELEASE"|"$before") ;; *) rm -rf "$other" ;; esac
    done
fi
sync
if [ -e "$data/.anew" ]; then
    if [ -e "$data/state/updates" ]; then
        # A client that still runs would go on writing there.
        if [ -n "$service" ]; then systemctl stop splitfleet-device.service 2>/dev/null || true; fi
        rm -rf "$data/state/updates.before"
        mv "$data/state/updates" "$data/state/updates.before"
        say "what was flashed goes before earlier updates; they are set aside in $data/state/updates.before"
        sync
    fi
    rm -f "$data/.anew"
fi

if [ -n "$service" ]; then
    put "$here/splitfleet-device.service" /etc/systemd/system/splitfleet-device.service 644 root:root
    # A growing pause between restarts came with systemd 254; older ones would complain of unknown lines.
    if [ "$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')" -ge 254 ]; then
        mkdir -p /etc/systemd/system/splitfleet-device.service.d
        printf '[Service]\nRestartSteps=8\nRestartMaxDelaySec=300\n' > /etc/systemd/system/splitfleet-device.service.d/back-off.conf
    fi
    systemctl daemon-reload
    systemctl enable --quiet splitfleet-device.service
    systemctl restart --no-block splitfleet-device.service
    say "$NAME is installed; see it with: systemctl status splitfleet-device"
else
    say "$NAME is installed; it starts with: $code/current/bin/python -m device_client $settings/device.toml"
fi
