#!/bin/sh
# Loads an image into a node's image store, if it is not there. Only what the node lacks is sent: the apps' images share a
# layer of 130 MB.
#   K3S_LAB_ROOT   the checkout
#   NODE_ADDRESS   ssh://MACHINE.STACK or docker://CONTAINER
#   IMAGE          the image; `lab image` builds it or finds it in the cache
# Exit code 75: the node's containerd does not answer.
set -eu
LC_ALL=C
export LC_ALL
name=${NODE_ADDRESS#*://}

# node COMMAND: runs a shell command on the node.
case $NODE_ADDRESS in
ssh:*)
  # shellcheck source=vagrant/on.sh
  . "$K3S_LAB_ROOT/vagrant/on.sh"
  node() { on "$name" "sudo sh -c '$1'"; }
  ;;
docker:*) node() { docker exec --interactive "$name" sh -c "$1"; } ;;
esac

# `lab up` may be loading it already. Two at once do no harm, but each takes twice as long. macOS has no flock.
of=${IMAGE##*/}
exec 9>>"$K3S_LAB_ROOT/.lab/load.$name.${of%%:*}"
flock -w 60 9 2>/dev/null || true

ctr="ctr --address /run/k3s/containerd/containerd.sock --namespace k8s.io"
held=$(node "$ctr content ls -q && { $ctr images check name==docker.io/$IMAGE || true; }" </dev/null) || exit 75
# The tag identifies the content, but an import that fails can leave the name without all layers.
case $held in *" complete ("*) exit ;; esac

send() { "$K3S_LAB_ROOT/scripts/lab" image "$IMAGE" "$@" | node "$ctr images import -"; }
# The node may have dropped a layer meanwhile.
send --without "$held" 2>/dev/null || send
