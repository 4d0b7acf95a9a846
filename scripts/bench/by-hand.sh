#!/bin/bash
# The lab by hand, as fast as plain tools bring it up: by-hand.sh up | down
# `up` ends when all apps answer and prints a line "phase NAME" at the end of each phase.
#   BENCH_DIR           a separate folder for key, token and Vagrant's state
#   LAB_MACHINE_IMAGE   image of the machines, with K3s and its installer in /opt/k3s-lab
#   SYSTEM_IMAGES       archive of K3s's own images
#   APP_IMAGES          archive of the apps' image
#   APP_MANIFESTS, APP_ROUTES see by-hand-apps.sh
#   PATH                has vagrant, kubectl, ssh, curl
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
export VAGRANT_CWD=$here VAGRANT_DOTFILE_PATH=$BENCH_DIR/vagrant KUBECONFIG=$BENCH_DIR/kubeconfig
server=192.168.42.110 agent=192.168.42.111 network=vagrant_network_192.168.42.0/24

on() {
  local ip=$1
  shift
  ssh -i "$BENCH_DIR/id_ed25519" -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no \
    -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "vagrant@$ip" "$@"
}

# The agent's installer may come first: K3s waits there until its server answers.
install_k3s() {
  local ip=$1
  shift
  on "$ip" 'umask 077; cat >token' <"$BENCH_DIR/token"
  on "$ip" sudo env NODE_IP="$ip" INSTALL_K3S_EXEC="'$*'" bash -s <"$here/by-hand-node.sh"
}

# shellcheck source=scripts/bench/by-hand-apps.sh
. "$here/by-hand-apps.sh"

up() {
  mkdir -p "$BENCH_DIR"
  [ -f "$BENCH_DIR/id_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -f "$BENCH_DIR/id_ed25519"
  (umask 077 && head -c 32 /dev/urandom | base64 >"$BENCH_DIR/token")

  # Vagrant uses an existing network, which then belongs to someone else.
  docker network inspect $network >/dev/null 2>&1 || touch "$BENCH_DIR/own-network"
  vagrant up --provider docker --parallel --no-color
  echo "phase machines"

  install_k3s $agent agent --node-ip=$agent --flannel-iface=eth1 --server=https://$server:6443 &
  local joining=$!
  install_k3s $server server --node-ip=$server --flannel-iface=eth1 --write-kubeconfig-mode=644
  echo "phase K3s server"

  (umask 077 && on $server cat /etc/rancher/k3s/k3s.yaml | sed "s/127.0.0.1/$server/" >"$KUBECONFIG")
  apply_apps

  wait $joining
  await_apps $server
}

case "${1:-}" in
up) up ;;
down)
  if [ -d "$VAGRANT_DOTFILE_PATH" ]; then vagrant destroy --force --no-color; fi
  # Removes what an interrupted run created and Vagrant does not know.
  docker ps --all --quiet --filter label=k3s-lab.stack=by-hand | xargs --no-run-if-empty docker rm --force --volumes
  if [ -e "$BENCH_DIR/own-network" ]; then docker network rm $network >/dev/null 2>&1 || true; fi
  rm -rf "$BENCH_DIR"
  ;;
*)
  echo "usage: by-hand.sh up | down" >&2
  exit 2
  ;;
esac
