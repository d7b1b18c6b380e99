#!/bin/sh
# Run once as root, by firstrun.sh or cloud-init: installs, then removes this folder with its private key from the boot partition.
here="$(cd "$(dirname "$0")" && pwd)"
{
    if sh "$here/install.sh"; then
        rm -rf "$here"
    fi
} >> "$here.log" 2>&1
exit 0
