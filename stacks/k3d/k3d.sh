#!/bin/sh
# Drives a cluster of k3d for Pulumi: k3d.sh load, or any action of main.ts, which says what it reads.
#   K3S_LAB_ROOT   the checkout
#   NODE_NAME      load: the node
#   IMAGE          load: the image to put into the node's image store
set -eu

if [ "$1" != load ]; then exec node "$K3S_LAB_ROOT/stacks/k3d/main.ts" "$@"; fi

# The tag says the content: a node that has it need not get it again.
images="ctr --namespace k8s.io images"
# shellcheck disable=SC2086 # a command and its arguments
if [ -z "$(docker exec "$NODE_NAME" $images ls -q "name==docker.io/$IMAGE")" ]; then
  "$K3S_LAB_ROOT/scripts/lab" image "$IMAGE" | docker exec --interactive "$NODE_NAME" $images import -
fi
