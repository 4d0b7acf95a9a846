#!/bin/sh
# Puts the K3s files of a machine's or k3d node's image where K3s looks for them: place.sh server | agent. Runs as root and
# can be repeated: it overwrites nothing that K3s has written.
set -eu

carried=${CARRIED:-/opt/k3s-lab}
data=${K3S_DATA:-/var/lib/rancher/k3s}
units=${UNITS:-/etc/systemd/system}

if [ "$1" = server ] && [ -n "$(ls "$carried/manifests" 2>/dev/null)" ]; then
  mkdir -p "$data/server/manifests"
  for manifest in "$carried"/manifests/*.yaml; do
    # Behind a load balancer, k3s.sh writes this one.
    case "${TRAEFIK:-} $manifest" in "every-node "*/k3s-lab-traefik-config.yaml) continue ;; esac
    cp "$manifest" "$data/server/manifests/"
  done
fi

# From a bundle: image archives, which K3s imports at its next start, once per bundle; and the programs that a K3s built
# without them needs.
if [ -e "$carried/bundle" ]; then
  if ! cmp -s "$carried/bundle" "$data/agent/k3s-lab-imported"; then
    mkdir -p "$data/agent/images"
    for archive in "$carried"/images/*; do ln -sf "$archive" "$data/agent/images/k3s-lab-${archive##*/}"; done
  fi
  if [ -d "$carried/bin" ]; then
    for unit in k3s k3s-agent; do
      mkdir -p "$units/$unit.service.d"
      echo "[Service]
Environment=PATH=$carried/cni:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$carried/bin" >"$units/$unit.service.d/k3s-lab.conf"
    done
  fi
fi

# Fills K3s's image store without copying the images: containerd's small databases are copied, blobs and unpacked images are
# links. What K3s adds later goes into its own directory.
from=$carried/containerd to=$data/agent/containerd
snapshots=io.containerd.snapshotter.v1.overlayfs
if [ -d "$from" ] && [ ! -d "$to" ]; then
  mkdir -p "$to/$snapshots/snapshots"
  cp -r "$from/io.containerd.metadata.v1.bolt" "$to/"
  cp -rs "$from/io.containerd.content.v1.content" "$to/"
  cp "$from/$snapshots/metadata.db" "$to/$snapshots/"
  ln -s "$from/$snapshots/snapshots/"* "$to/$snapshots/snapshots/"
fi
