#!/bin/sh
# Unpacks the images of the archives in /images into /opt/k3s-lab/containerd, laid out as containerd's root folder, so that K3s
# finds them in its image store when it starts for the first time; provision/k3s.sh links them there.
# /fill is not an overlay mount, which a container's own file system is: unpacking makes one on it.
set -eu

containerd --log-level error --root /fill --state /run/fill --address /run/fill.sock &
daemon=$!
ctr() { command ctr --address /run/fill.sock --namespace k8s.io "$@"; }
tries=0
until ctr version >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ "$tries" -gt 300 ]; then
    echo "fill.sh: containerd did not answer within 30 s; its messages are above" >&2
    exit 1
  fi
  sleep 0.1
done
for archive in /images/*; do
  ctr images import "$archive"
done
ctr images list -q
kill $daemon
wait $daemon || true

store=/opt/k3s-lab/containerd
mkdir -p "$store"
for part in content.v1.content metadata.v1.bolt snapshotter.v1.overlayfs; do
  mv "/fill/io.containerd.$part" "$store/"
done
