#!/bin/sh
# A fence that needs no power switch: it asks the host itself, over a way that is not the network between the hosts, and is
# content only when that host says that it refuses everything and that the kernel has nothing of it any more. plug= is the
# host's control socket. A host that does not answer is not fenced.
set -eu
socket=$(sed -n 's/^plug=//p')
status() { interlockctl --control "unix:$socket" -o json status vda | tr -d ' \n'; }
interlockctl --control "unix:$socket" fence vda >/dev/null || true
until status | grep -q '"state":"fenced".*"admitted":0,"held":0,"submitted":0'; do sleep 0.2; done
echo "$socket is fenced"
