#!/bin/sh
# The orchestrator of docker/compose.yaml, as short as one can be: it waits until the guest writes, asks the source to
# close, and opens the destination with the receipt. Then it shows what happens there until it is stopped.
set -eu
at_source() { interlockctl --control unix:/run/source/control.sock "$@"; }
at_destination() { interlockctl --control unix:/run/destination/control.sock "$@"; }

until at_destination status vda >/dev/null 2>&1; do sleep 1; done
until at_source -o json status vda 2>/dev/null | grep -q '"since"'; do sleep 1; done
sleep "${WARM_UP_SECONDS:-3}"
echo 'orchestrator: asks the source to close; only its receipt lets the destination open'
at_source close vda --disconnect >/tmp/receipt.json
grep -A 4 '"drained"' /tmp/receipt.json
at_destination open vda --receipt /tmp/receipt.json
echo 'orchestrator: the disk is open at the destination'
exec interlockctl --control unix:/run/destination/control.sock watch vda
