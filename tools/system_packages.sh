#!/bin/sh
# Installs the Debian packages that splitfleet's demo (`demo`), its demo and tests (`test`, the default) or the self-test of an emulated
# board (`arm64`) use. Does nothing when they are there, and says what to type when it may not install. Exit code 1: something is still
# missing.
set -u

# What is looked for, and the package it comes in.
demo="mosquitto=mosquitto /usr/share/datasets/fashion-mnist=dataset-fashion-mnist"
test="$demo openssl=openssl influxd=influxdb victoria-metrics=victoria-metrics promtool=prometheus chromium=chromium mcopy=mtools \
systemd-analyze=systemd"
arm64="mosquitto=mosquitto debootstrap=debootstrap qemu-aarch64-static=qemu-user-static"
case "${1:-test}" in
    demo) wanted="$demo" ;;
    test) wanted="$test" ;;
    arm64) wanted="$arm64" ;;
    *) echo "usage: $0 [demo|test|arm64]" >&2; exit 2 ;;
esac

PATH="$PATH:/usr/sbin:/sbin"
missing=""
for pair in $wanted; do
    what="${pair%%=*}"
    case "$what" in
        /*) [ -e "$what" ] ;;
        *) command -v "$what" >/dev/null 2>&1 ;;
    esac || missing="$missing ${pair#*=}"
done
missing="${missing# }"
[ -n "$missing" ] || exit 0

give_up() {
    echo "Not installed: $missing. $1" >&2
    case "$missing" in
        *mosquitto*) echo "Without mosquitto the embedded broker is used, and the tests that need mosquitto cannot run." >&2 ;;
    esac
    case "$missing" in
        *dataset*) echo "Without the data set the shipped models work, but none can be trained or measured anew." >&2 ;;
    esac
    exit 1
}

command -v apt-get >/dev/null 2>&1 || give_up "This is no Debian or Ubuntu: install them in this system's own way."
if [ "$(id -u)" -eq 0 ]; then
    as_root="env"
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n env"
else
    give_up "Install them with: sudo apt-get install $missing"
fi

running() { pgrep -f "$1" >/dev/null 2>&1; }
# Debian starts a service it has just installed. The demo and the tests start servers of their own.
services=""
for pair in mosquitto=mosquitto influxdb=influxd victoria-metrics=victoria-metrics prometheus=prometheus \
    prometheus-node-exporter=prometheus-node-exporter; do
    running "/usr/s\\?bin/${pair#*=}" || services="$services ${pair%%=*}"
done

echo "Installing $missing with apt-get"
install() {
    # shellcheck disable=SC2086  # the list is words on purpose
    $as_root DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1
}
if ! install; then
    $as_root apt-get update -qq >/dev/null 2>&1
    install || give_up "apt-get could not install them; see: apt-get install $missing"
fi

for service in $services; do
    case " $missing " in
        *" $service "*) $as_root service "$service" stop >/dev/null 2>&1 || true ;;
    esac
done
