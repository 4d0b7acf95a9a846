#!/bin/sh
# Drives a cluster of k3d for Pulumi: k3d.sh create | start | delete | sweep | add-agent | start-agent | remove-agent | kubeconfig | load
#   K3S_LAB_ROOT    the checkout
#   LAB_STACK       the stack that the cluster belongs to, K3D_CLUSTER its name in k3d; both absent for load
#   NODE_NAME       the node; of a cluster its first server
#   SERVERS         create, start: the names of all its servers
#   NODE_ARGUMENT   add-agent: what `k3d node create` makes NODE_NAME from
#   K3D_IMAGE       create: the image of the nodes; pulled where Docker does not have it
#   IMAGE           load: the image to put into the node's image store
#   LAB_GENERATION  names this making of the cluster or agent, LAB_BOOT this start of it; stacks/observe.ts reads them back
#   stdin           create: what k3d makes, as a k3d config
set -eu

notes="$K3S_LAB_ROOT/.lab/${LAB_STACK:-}/machines"
label="k3s-lab.checkout=$K3S_LAB_ROOT"
server="k3d-${K3D_CLUSTER:-}-server-0"

# k3d leaves its own temporary files behind.
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

fail() {
  echo "k3d.sh: $*" >&2
  exit 1
}

note() {
  mkdir -p "$notes"
  printf '%s' "$LAB_GENERATION" >"$notes/$NODE_NAME.generation"
  note_boot
}

note_boot() {
  printf '%s' "$LAB_BOOT" >"$notes/$NODE_NAME.boot"
  # shellcheck disable=SC2086 # a list
  docker inspect --format '{{.State.Status}} {{.State.StartedAt}}' ${SERVERS:-$NODE_NAME} >"$notes/$NODE_NAME.state"
}

# address CONTAINER: its address in the cluster's network, while it runs.
address() {
  docker inspect --format "{{(index .NetworkSettings.Networks \"k3d-$K3D_CLUSTER\").IPAddress}}" "$1"
}

# pin CONTAINER ADDRESS: it keeps this address for good. Docker gives out addresses in the order containers start, and
# after a restart an agent may have the server's, whose certificates then are somebody else's. k3d pins servers alone.
pin() {
  docker network disconnect "k3d-$K3D_CLUSTER" "$1"
  docker network connect --ip "$2" "k3d-$K3D_CLUSTER" "$1"
}

# K3s writes its own list of names for CoreDNS at every start, and what k3d has put into it is gone. This file K3s only
# reads: CoreDNS knows the computer itself by the name that k3d gives it, also after a restart.
name_the_host() {
  gateway=$(docker network inspect --format '{{(index .IPAM.Config 0).Gateway}}' "k3d-$K3D_CLUSTER")
  docker exec --interactive "$server" sh -c 'cat >/var/lib/rancher/k3s/server/manifests/k3s-lab-host.yaml' <<END
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns-custom, namespace: kube-system}
data:
  k3s-lab.server: |
    host.k3d.internal:53 {
      hosts {
        $gateway host.k3d.internal
      }
    }
END
}

server_kubectl() { docker exec "$server" kubectl --request-timeout=10s "$@"; }

# others: who made servers of this cluster's name, where that was not this checkout.
others() {
  docker ps --all --filter "label=k3d.cluster=$K3D_CLUSTER" --filter label=k3d.role=server \
    --format '{{with .Label "k3s-lab.checkout"}}{{.}}{{else}}somebody else{{end}}' | grep -Fxv "$K3S_LAB_ROOT" | head -n 1
}

# one_at_a_time COMMAND...: k3d's helper container has one name, so that two k3d for one cluster are in each other's way.
# macOS has no flock; there agents that come together may fail, and come with the next run.
one_at_a_time() {
  mkdir -p "$notes"
  if command -v flock >/dev/null; then flock "$notes" "$@"; else "$@"; fi
}

# An agent's K3s has joined its server, and got its certificates from it, when its containerd answers.
wait_for_containerd() {
  deadline=$(($(date +%s) + 120))
  until docker exec "$NODE_NAME" ctr version >/dev/null 2>&1; do
    if [ "$(date +%s)" -ge $deadline ]; then
      docker logs --tail 30 "$NODE_NAME" >&2
      fail "K3s in $NODE_NAME has not started its containerd within 120 s; its last lines are above"
    fi
    sleep 0.3
  done
}

# What an interrupted run of k3d has left, which k3d itself takes for somebody else's.
remove_leftovers() {
  for id in $(docker ps --all --quiet --filter "label=k3d.cluster=$K3D_CLUSTER"); do
    docker rm --force --volumes "$id" >/dev/null
  done
  if docker network inspect "k3d-$K3D_CLUSTER" >/dev/null 2>&1; then docker network rm "k3d-$K3D_CLUSTER"; fi
  if docker volume inspect "k3d-$K3D_CLUSTER-images" >/dev/null 2>&1; then docker volume rm "k3d-$K3D_CLUSTER-images"; fi
}

case "$1" in
create)
  other=$(others)
  [ -z "$other" ] ||
    fail "a cluster $K3D_CLUSTER is there already, made by $other: give yours another metadata.name, or remove that one with: k3d cluster delete $K3D_CLUSTER"
  remove_leftovers
  docker image inspect "$K3D_IMAGE" >/dev/null 2>&1 || docker pull "$K3D_IMAGE" ||
    fail "the image $K3D_IMAGE is neither here nor can it be pulled: run \`scripts/lab up $LAB_STACK\`, which builds one, or name another image"
  k3d cluster create --config - --runtime-label "$label@server:*"
  for role in loadbalancer registry; do
    for id in $(docker ps --quiet --filter "network=k3d-$K3D_CLUSTER" --filter "label=k3d.role=$role"); do
      pin "$id" "$(address "$id")"
    done
  done
  name_the_host
  note
  ;;
start)
  k3d cluster start "$K3D_CLUSTER" --wait
  name_the_host
  note_boot
  ;;
delete)
  k3d cluster delete "$K3D_CLUSTER"
  remove_leftovers
  # The folder says that a cluster exists.
  rm -rf "$notes"
  ;;
sweep)
  [ -n "$(others)" ] || remove_leftovers
  rm -rf "$notes"
  ;;
add-agent)
  docker rm --force --volumes "$NODE_NAME" >/dev/null 2>&1 || true
  one_at_a_time k3d node create "$NODE_ARGUMENT" --cluster "$K3D_CLUSTER" --role agent --runtime-label "$label" --wait=false
  # With the interface goes the tunnel that K3s has laid over it: K3s starts with the one that stays.
  ip=$(address "$NODE_NAME")
  docker kill "$NODE_NAME" >/dev/null
  pin "$NODE_NAME" "$ip"
  docker start "$NODE_NAME"
  wait_for_containerd
  note
  ;;
start-agent)
  docker start "$NODE_NAME"
  wait_for_containerd
  note_boot
  ;;
remove-agent)
  # Its pods move while it still runs.
  server_kubectl drain "$NODE_NAME" --ignore-daemonsets --delete-emptydir-data --timeout=60s ||
    echo "$NODE_NAME is not drained: its pods end with it"
  docker rm --force --volumes "$NODE_NAME" >/dev/null 2>&1 || true
  # The server would refuse a new node of the same name until it has forgotten the old one and its password.
  server_kubectl delete --ignore-not-found --wait=false --namespace kube-system \
    "node/$NODE_NAME" "secret/$NODE_NAME.node-password.k3s" || echo "the server still knows $NODE_NAME and its password"
  # Now its pods, which are of DaemonSets: the server would keep them for most of a minute.
  server_kubectl delete pods --all-namespaces --field-selector "spec.nodeName=$NODE_NAME" --force --grace-period=0 ||
    echo "the server still knows pods of $NODE_NAME"
  rm -f "$notes/$NODE_NAME".*
  ;;
kubeconfig)
  k3d kubeconfig get "$K3D_CLUSTER"
  ;;
load)
  # The tag says the content: a node that has it need not get it again.
  images="ctr --namespace k8s.io images"
  # shellcheck disable=SC2086 # a command and its arguments
  if [ -z "$(docker exec "$NODE_NAME" $images ls -q "name==docker.io/$IMAGE")" ]; then
    "$K3S_LAB_ROOT/scripts/lab" image "$IMAGE" | docker exec --interactive "$NODE_NAME" $images import -
  fi
  ;;
*)
  echo "k3d.sh: unknown action '$1': create, start, delete, sweep, add-agent, start-agent, remove-agent, kubeconfig or load" >&2
  exit 2
  ;;
esac
