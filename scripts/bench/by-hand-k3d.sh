#!/bin/bash
# The k3d lab by hand, as fast as plain tools bring it up: by-hand-k3d.sh up | down
# `up` ends when all apps answer and prints a line "phase NAME" at the end of each phase.
#   BENCH_DIR           a separate folder for the kubeconfig
#   LAB_K3D_IMAGE       image of the nodes; if empty, k3d's own
#   APP_IMAGES          archive of the apps' image
#   APP_MANIFESTS, APP_ROUTES see by-hand-apps.sh
#   PATH                has k3d, kubectl, curl
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cluster=byhand
address=127.0.0.1:8081
export KUBECONFIG=$BENCH_DIR/kubeconfig

# shellcheck source=scripts/bench/by-hand-apps.sh
. "$here/by-hand-apps.sh"

up() {
  (umask 077 && mkdir -p "$BENCH_DIR")

  k3d cluster create $cluster --no-lb -p "$address:80@server:0:direct" --api-port 127.0.0.1:6550 \
    ${LAB_K3D_IMAGE:+--image "$LAB_K3D_IMAGE"} \
    --kubeconfig-update-default=false --kubeconfig-switch-context=false --wait
  (umask 077 && k3d kubeconfig get $cluster >"$KUBECONFIG")
  echo "phase cluster"

  # The other mode starts a container that k3d pulls.
  # It sometimes fails if the node's containerd has only just started; a user would repeat it.
  k3d image import --mode direct --cluster $cluster "$APP_IMAGES" ||
    k3d image import --mode direct --cluster $cluster "$APP_IMAGES"
  echo "phase app image"

  apply_apps
  await_apps $address
}

case "${1:-}" in
up) up ;;
down)
  # Also removes what an interrupted run left: it all carries the cluster's label or name.
  k3d cluster delete $cluster || true
  docker ps --all --quiet --filter label=k3d.cluster=$cluster | xargs --no-run-if-empty docker rm --force --volumes
  docker volume rm k3d-$cluster-images >/dev/null 2>&1 || true
  docker network rm k3d-$cluster >/dev/null 2>&1 || true
  rm -rf "$BENCH_DIR"
  ;;
*)
  echo "usage: by-hand-k3d.sh up | down" >&2
  exit 2
  ;;
esac
