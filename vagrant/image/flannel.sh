#!/bin/sh
# The CNI plugin flannel. A pod may be scheduled a moment before K3s has written its node's part of the network, and
# kubelet would try again only 15 s later: a new pod waits for that file.
if [ "${CNI_COMMAND:-}" = ADD ]; then
  tries=0
  until [ -s /run/flannel/subnet.env ] || [ "$tries" -ge 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
  done
fi
exec "${0%/*}/flannel-plugin" "$@"
