#!/bin/sh
# Wrapper around flannel's CNI plugin. A pod can be scheduled just before K3s writes its node's subnet file, and kubelet would
# retry only 15 s later. So ADD waits up to 10 s for that file.
if [ "${CNI_COMMAND:-}" = ADD ]; then
  tries=0
  until [ -s /run/flannel/subnet.env ] || [ "$tries" -ge 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
  done
fi
exec "${0%/*}/flannel-plugin" "$@"
