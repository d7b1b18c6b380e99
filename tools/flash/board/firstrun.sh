#!/bin/sh
# Lies on the boot partition of Raspberry Pi OS. Its kernel command line starts it once, as root, and the board then starts anew.
boot="$(cd "$(dirname "$0")" && pwd)"
sh "$boot/splitfleet/first-boot.sh"
# Only now, so that after a power cut the next boot tries again; but also where the installer refused, or the board would
# boot into it for ever: its words are in splitfleet.log.
sed 's/ systemd\.\(run\|run_success_action\|unit\)=[^ ]*//g' "$boot/cmdline.txt" > "$boot/cmdline.new" &&
    sync && mv -f "$boot/cmdline.new" "$boot/cmdline.txt" && sync
rm -f "$boot/firstrun.sh"
exit 0
