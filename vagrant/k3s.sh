#!/bin/sh
# Runs K3s's scripts on a machine for Pulumi: k3s.sh install | uninstall | kubeconfig | load
#   K3S_LAB_ROOT   the checkout
#   NODE_IP        the machine; the other variables are those of provision/k3s.sh
#   SERVER_IP      when an agent is uninstalled: the server that forgets it
#   IMAGE          load: the image to put into the node's image store
#   stdin          install: the token that joins nodes
set -eu

keys="$K3S_LAB_ROOT/.lab/ssh"

# on IP COMMAND...: runs a command on a machine; its host key is noted at first sight and must stay the same.
on() {
  ip="$1"
  shift
  ssh -i "$keys/id_ed25519" -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=10 -o LogLevel=ERROR \
    -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile="$keys/known_hosts.$ip" "vagrant@$ip" "$@"
}

case "$1" in
install)
  # A machine from a public box does not carry K3s's installer.
  on "$NODE_IP" 'umask 077; cat >.k3s-token; test -f /opt/k3s-lab/install.sh' ||
    on "$NODE_IP" 'cat >k3s-install.sh' <"$K3S_LAB_ROOT/.lab/bin/install.sh"
  on "$NODE_IP" sudo env NODE_NAME="$NODE_NAME" NODE_IP="$NODE_IP" NODE_ROLE="$NODE_ROLE" SERVER_IP="${SERVER_IP:-}" \
    K3S_VERSION="$K3S_VERSION" "'K3S_ARGS=$K3S_ARGS'" bash -s <"$K3S_LAB_ROOT/vagrant/provision/k3s.sh"
  ;;
uninstall)
  # A machine that is gone has nothing left to uninstall.
  if on "$NODE_IP" true 2>/dev/null; then
    on "$NODE_IP" sudo bash -s <"$K3S_LAB_ROOT/vagrant/provision/uninstall.sh"
  else
    echo "$NODE_NAME cannot be reached: nothing to uninstall there"
  fi
  # The server would refuse a new node of the same name until it has forgotten the old one and its password.
  if [ -n "${SERVER_IP:-}" ] && on "$SERVER_IP" test -x /usr/local/bin/k3s 2>/dev/null; then
    on "$SERVER_IP" sudo kubectl delete --request-timeout=10s --ignore-not-found --wait=false --namespace kube-system \
      "node/$NODE_NAME" "secret/$NODE_NAME.node-password.k3s" ||
      echo "the server did not answer: it still knows the node $NODE_NAME and its password"
    # Its pods went with it; the server would keep them for most of a minute.
    on "$SERVER_IP" sudo kubectl delete pods --request-timeout=10s --all-namespaces --force --grace-period=0 \
      --field-selector "spec.nodeName=$NODE_NAME" || echo "the server did not answer: it still knows pods of $NODE_NAME"
  fi
  ;;
kubeconfig)
  on "$NODE_IP" sudo cat /etc/rancher/k3s/k3s.yaml
  ;;
load)
  # The tag says the content: a node that has it need not get it again.
  ctr="sudo ctr --address /run/k3s/containerd/containerd.sock --namespace k8s.io images"
  if [ -z "$(on "$NODE_IP" "$ctr ls -q 'name==docker.io/$IMAGE'")" ]; then
    "$K3S_LAB_ROOT/scripts/lab" image "$IMAGE" | on "$NODE_IP" "$ctr import -"
  fi
  ;;
*)
  echo "k3s.sh: unknown action '$1': install, uninstall, kubeconfig or load" >&2
  exit 2
  ;;
esac
