#!/bin/sh
# Runs K3s's scripts on a machine for Pulumi: k3s.sh install | uninstall | kubeconfig | load
#   K3S_LAB_ROOT   the checkout
#   LAB_STACK      the stack that the machine belongs to
#   NODE_NAME      the machine; the other variables are those of provision/k3s.sh
#   SERVERS        the machines of all servers: NAME=ADDRESS NAME=ADDRESS…
#   NODE_ADDRESS   load: the machine, as ssh knows it
#   IMAGE          load: the image to put into the node's image store
#   stdin          install: the token that joins nodes
set -eu

# on MACHINE.STACK COMMAND...: runs a command on a machine, reached as machine.sh wrote down.
on() {
  alias="$1"
  shift
  ssh -F "$K3S_LAB_ROOT/.lab/ssh/$alias/config" "$alias" "$@"
}

# on_server SCRIPT COMMAND...: runs a command on the first server but this machine where it succeeds; SCRIPT is its input.
on_server() {
  script="$1"
  shift
  for server in $SERVERS; do
    name="${server%%=*}"
    if [ "$name" != "${NODE_NAME:-}" ] && on "$name.$LAB_STACK" "$@" <"$script"; then return; fi
  done
  return 1
}

case "$1" in
install)
  here="$NODE_NAME.$LAB_STACK"
  # A machine whose image or box does not carry K3s gets what it needs from here, unless it has just that.
  carried=$(on "$here" 'uname -m; cat /opt/k3s-lab/bundle 2>/dev/null || { test ! -x /opt/k3s-lab/k3s || echo made-with; }' </dev/null)
  case "$carried" in
  *made-with) ;;
  *)
    arch=$(printf '%s\n' "$carried" | head -n 1)
    if [ "$(printf '%s\n' "$carried" | tail -n 1)" != "$("$K3S_LAB_ROOT/scripts/lab" bundle "$arch" --id </dev/null)" ]; then
      "$K3S_LAB_ROOT/scripts/lab" bundle "$arch" </dev/null |
        on "$here" 'sudo sh -c "rm -rf /opt/k3s-lab && mkdir /opt/k3s-lab && tar --extract --directory /opt/k3s-lab"'
    fi
    ;;
  esac
  # The token goes first, to memory that only root reads; the script follows it.
  { cat && echo && cat "$K3S_LAB_ROOT/vagrant/provision/k3s.sh"; } |
    on "$here" sudo env NODE_NAME="$NODE_NAME" NODE_IP="$NODE_IP" NODE_ROLE="$NODE_ROLE" \
      NODE_INTERFACE="'${NODE_INTERFACE:-}'" SERVERS="'$SERVERS'" K3S_VERSION="$K3S_VERSION" "'K3S_ARGS=$K3S_ARGS'" \
      bash -c "'read -r token; (umask 077; mkdir -p /run/k3s-lab; printf %s \"\$token\" >/run/k3s-lab/token); exec bash -s'"
  # verify waits so many times longer for this machine.
  on "$here" sudo cat /run/k3s-lab/slowness </dev/null >"$K3S_LAB_ROOT/.lab/$LAB_STACK/machines/$NODE_NAME.slowness"
  ;;
uninstall)
  here="$NODE_NAME.$LAB_STACK"
  # etcd must let go of a server while there are enough of them to agree; see provision/leave.sh.
  leave() {
    on_server "$K3S_LAB_ROOT/vagrant/provision/leave.sh" sudo env NODE_NAME="$NODE_NAME" bash -s "$1" ||
      echo "warning: the cluster was not told that $NODE_NAME leaves; if it goes on, run there: kubectl delete node $NODE_NAME"
  }
  # With the whole cluster on its way out, nobody stays to be told.
  if [ "$NODE_ROLE" = server ] && [ -z "${LAB_ALL_LEAVE:-}" ]; then leave before; fi
  # A machine that is gone has nothing left to uninstall; a host that cannot be reached keeps what it has.
  if on "$here" true 2>/dev/null; then
    on "$here" sudo bash -s <"$K3S_LAB_ROOT/vagrant/provision/uninstall.sh"
  else
    echo "warning: $NODE_NAME cannot be reached, and nothing is uninstalled there; a host that comes back is rid of K3s by k3s-uninstall.sh or k3s-agent-uninstall.sh"
  fi
  if [ -z "${LAB_ALL_LEAVE:-}" ]; then leave after; fi
  ;;
kubeconfig)
  on_server /dev/null sudo cat /etc/rancher/k3s/k3s.yaml
  ;;
load)
  # The tag says the content: a node that has it need not get it again.
  ctr="sudo ctr --address /run/k3s/containerd/containerd.sock --namespace k8s.io images"
  if [ -z "$(on "$NODE_ADDRESS" "$ctr ls -q 'name==docker.io/$IMAGE'")" ]; then
    "$K3S_LAB_ROOT/scripts/lab" image "$IMAGE" | on "$NODE_ADDRESS" "$ctr import -"
  fi
  ;;
*)
  echo "k3s.sh: unknown action '$1': install, uninstall, kubeconfig or load" >&2
  exit 2
  ;;
esac
