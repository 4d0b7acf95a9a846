#!/bin/sh
# Runs on a machine: its addresses and its flannel device as one JSON object, after a line that says so: a login shell may
# print something of its own first.
PATH=$PATH:/usr/sbin:/sbin
flannel=$(ip -details -json link show flannel.1 2>/dev/null) || flannel='[]'
printf '\nk3s-lab-begins\n{"addresses":%s,"flannel":%s}\n' "$(ip -json -4 address show)" "$flannel"
