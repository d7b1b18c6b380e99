#!/bin/sh
# Reads pip's output and shows where it is: one line that renews itself on a terminal, the large steps elsewhere.
if [ -t 1 ]; then terminal=1; else terminal=0; fi
exec awk -v terminal="$terminal" '
    /^(Collecting|Obtaining|Processing) / {
        count += 1
        if (terminal) { printf "\r\033[K  package %d: %s", count, $2; fflush() }
        else if (count % 20 == 0) { printf "  %d packages looked at\n", count; fflush() }
    }
    /^Installing collected packages/ {
        if (terminal) printf "\r\033[K"
        print "  unpacking"; fflush()
    }
    /^(Successfully installed|ERROR)/ { print "  " substr($0, 1, 100); fflush() }
'
