#!/bin/bash
# Tells the cluster, on a server that stays, that a node leaves: leave.sh before | after. Run as root.
#   NODE_NAME   the node that leaves
#
# before   a server leaves etcd while it still runs, so that those that stay always agree: K3s's etcd controller removes
#          the member of a node that is annotated so (pkg/etcd/member_controller.go of K3s)
# after    the cluster forgets the node, its password, without which none of that name could join again, and its pods,
#          which it would keep for most of a minute
set -euo pipefail

# K3s is kubectl where it is called so. What kubectl keeps for the next time goes with the lab.
kubectl() { (exec -a kubectl /usr/local/bin/k3s --request-timeout=10s --cache-dir=/run/k3s-lab/kubectl "$@"); }
# until_true WHAT COMMAND...: asks again until the command succeeds, for a minute.
until_true() {
  local deadline=$((SECONDS + 60)) what="$1"
  shift
  until "$@"; do
    if [ $SECONDS -ge $deadline ]; then
      echo "$what after 60 s; see: journalctl --unit k3s" >&2
      exit 1
    fi
    read -r -t 0.5 <> <(:) || true
  done
}
field() { kubectl get node "$NODE_NAME" --ignore-not-found --output "jsonpath={.metadata.$1}"; }
is_removed() { [ -n "$(field 'annotations.etcd\.k3s\.cattle\.io/removed-node-name')" ]; }
answers() { kubectl get --raw /readyz >/dev/null 2>&1; }

# When etcd's leader has left, those that stay choose another, and K3s starts anew meanwhile.
until_true "the API does not answer" answers
case "$1" in
before)
  if [ "$(field 'labels.node-role\.kubernetes\.io/etcd')" != true ]; then exit; fi
  kubectl annotate --overwrite node "$NODE_NAME" etcd.k3s.cattle.io/remove=true
  until_true "etcd still has the member of $NODE_NAME" is_removed
  ;;
after)
  kubectl delete --ignore-not-found --wait=false --namespace kube-system \
    "node/$NODE_NAME" "secret/$NODE_NAME.node-password.k3s"
  kubectl delete pods --all-namespaces --force --grace-period=0 --field-selector "spec.nodeName=$NODE_NAME"
  ;;
*)
  echo "leave.sh: unknown step '$1': before or after" >&2
  exit 2
  ;;
esac
