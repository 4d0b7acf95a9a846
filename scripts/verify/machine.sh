#!/bin/sh
# Runs on a machine: prints its addresses, flannel device, clock, K3s's state and the output of datastore.sh as one
# JSON object, after a marker line: a login shell may print something first.
PATH=$PATH:/usr/sbin:/sbin
flannel=$(ip -details -json link show flannel.1 2>/dev/null) || flannel='[]'
unit=k3s-agent
if [ "$(systemctl show --property=LoadState --value k3s 2>/dev/null)" = loaded ]; then unit=k3s; fi
show() { systemctl show --property="$1" --value $unit 2>/dev/null; }
# OOM kills: in this container, or since boot.
killed=$(sed -n 's/^oom_kill //p' /sys/fs/cgroup/memory.events /proc/vmstat 2>/dev/null | head -n 1)
printf '\nk3s-lab-begins\n{"addresses":%s,"flannel":%s,"clock":%s,"k3s":{"state":"%s","restarts":%s,"killed":%s},"secrets":%s}\n' \
  "$(ip -json -4 address show)" "$flannel" "$(date +%s)" "$(show SubState)" "$(show NRestarts | grep . || echo 0)" "${killed:-0}" "${secrets:-null}"
