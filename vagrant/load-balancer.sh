#!/bin/sh
# Runs provision/load-balancer.sh on a machine for Pulumi: load-balancer.sh install | remove
#   K3S_LAB_ROOT   the checkout
#   LAB_STACK      the stack that the machine belongs to
#   NODE_NAME      the machine
#   stdin          install: HAProxy's configuration
set -eu

# on MACHINE.STACK COMMAND..., is_reachable MACHINE.STACK
# shellcheck source=vagrant/on.sh
. "$(dirname "$0")/on.sh"

machine="$NODE_NAME.$LAB_STACK"
config=
case "$1" in
install) config=$(base64 | tr -d '\n') ;;
remove)
  "$(dirname "$0")/k3s.sh" unbalance </dev/null ||
    echo "warning: the Middleware k3s-lab-retry, which Traefik had for $NODE_NAME, may still be in the namespace kube-system"
  # A lost machine has nothing left to remove.
  if ! is_reachable "$machine"; then
    echo "warning: $NODE_NAME cannot be reached, so HAProxy was not removed there; when it is back, run there: sudo systemctl disable --now k3s-lab-load-balancer"
    exit
  fi
  ;;
*)
  echo "load-balancer.sh: unknown action '$1': install or remove" >&2
  exit 2
  ;;
esac
on "$machine" sudo env LAB_OWNER="$(cat "$K3S_LAB_ROOT/.lab/id")/$LAB_STACK" CONFIG="$config" bash -s "$1" \
  <"$K3S_LAB_ROOT/vagrant/provision/load-balancer.sh"
