#!/bin/sh
# Imports the image archives in /images and keeps the unpacked store in /opt/k3s-lab/containerd, laid out like containerd's root
# directory. place.sh links it into K3s's data directory, so that K3s starts with the images in its store.
# /fill must not be on an overlay mount, as a container's own file system is: unpacking mounts an overlay on it.
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
