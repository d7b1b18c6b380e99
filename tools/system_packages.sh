#!/bin/sh
# Installs the Debian packages that the demo and the tests use: mosquitto (the broker), the Fashion-MNIST
# images (training and measuring the shipped models) and openssl (certificates for the tests). Does nothing when they are there,
# and says what to type when it may not install. Exit code 1: something is still missing.
set -u

missing=""
PATH="$PATH:/usr/sbin:/sbin"
command -v mosquitto >/dev/null 2>&1 || missing="mosquitto"
[ -d /usr/share/datasets/fashion-mnist ] || missing="$missing dataset-fashion-mnist"
command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
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

running() { pgrep -x mosquitto >/dev/null 2>&1; }
if running; then broker_ran=1; else broker_ran=0; fi

echo "Installing $missing with apt-get"
install() {
    # shellcheck disable=SC2086  # the list is two words on purpose
    $as_root DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1
}
if ! install; then
    $as_root apt-get update -qq >/dev/null 2>&1
    install || give_up "apt-get could not install them; see: apt-get install $missing"
fi

# Debian starts the service it has just installed. The tests and the demo start brokers of their own.
if [ "$broker_ran" -eq 0 ]; then
    case "$missing" in
        *mosquitto*) $as_root service mosquitto stop >/dev/null 2>&1 || true ;;
    esac
fi
