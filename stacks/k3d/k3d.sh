#!/bin/sh
# Drives a cluster of k3d for Pulumi: k3d.sh ACTION, see main.ts. Deletions that Pulumi recorded call it too.
#   K3S_LAB_ROOT   the checkout
exec node "$K3S_LAB_ROOT/stacks/k3d/main.ts" "$@"
