#!/bin/sh
# Runs on a machine: its addresses, its flannel device, its clock, what became of K3s and what datastore.sh has said, as one
# JSON object, after a line that says so: a login shell may print something of its own first.
PATH=$PATH:/usr/sbin:/sbin
flannel=$(ip -details -json link show flannel.1 2>/dev/null) || flannel='[]'
unit=k3s-agent
if [ "$(systemctl show --property=LoadState --value k3s 2>/dev/null)" = loaded ]; then unit=k3s; fi
show() { systemctl show --property="$1" --value $unit 2>/dev/null; }
# What the kernel killed for want of memory: in this container, or since it started.
killed=$(sed -n 's/^oom_kill //p' /sys/fs/cgroup/memory.events /proc/vmstat 2>/dev/null | head -n 1)
printf '\nk3s-lab-begins\n{"addresses":%s,"flannel":%s,"clock":%s,"k3s":{"state":"%s","restarts":%s,"killed":%s},"secrets":%s}\n' \
  "$(ip -json -4 address show)" "$flannel" "$(date +%s)" "$(show SubState)" "$(show NRestarts | grep . || echo 0)" "${killed:-0}" "${secrets:-null}"
