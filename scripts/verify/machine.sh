#!/bin/sh
# Runs on a machine: its addresses and its flannel device as one JSON object.
PATH=$PATH:/usr/sbin:/sbin
flannel=$(ip -details -json link show flannel.1 2>/dev/null) || flannel='[]'
printf '{"addresses":%s,"flannel":%s}\n' "$(ip -json -4 address show)" "$flannel"
