#!/bin/sh
# Run once as root, by firstrun.sh or cloud-init: installs, then removes this folder with its private key from the boot partition.
here="$(cd "$(dirname "$0")" && pwd)"
{
    # The note: a power cut while the folder goes must not leave half of it, with the key, to an installer that refuses it.
    if [ -e "$here/installed" ] || sh "$here/install.sh"; then
        : > "$here/installed"
        sync
        rm -rf "$here/tls" "$here"
    fi
} >> "$here.log" 2>&1
exit 0
