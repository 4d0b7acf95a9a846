#!/bin/bash
# Updates the cluster about a node, on a server that stays. Run as root, after common.sh.
#   leave.sh before | gone | after | forget | cordon | uncordon | marks | unbalance
#   NODE_NAME   the node that leaves or changes
#   NODE_IP     its address
#   K3S_ARGS    marks: its K3s flags
#   BY_HAND     marks: not empty: no new taint is set that evicts pods, because only `lab up` asks
#
# before     moves its pods, and removes a server from etcd while it still runs, so that the others always have a majority
# gone       the same for a lost machine, whose pods cannot move
# after      deletes the node, its password, which would keep a node of that name from joining, and its pods, which the
#            cluster would keep for most of a minute
# forget     both, for a node that lost its data and will join again; does nothing if the cluster does not know it
# cordon     moves its pods before a change; uncordon: accepts pods again, unless somebody else cordoned it
# marks      sets the labels and taints of its flags, and removes those of earlier flags: K3s sets taints only when a node
#            joins, and removes neither
# unbalance  the load balancer has left: removes what Traefik had for it
#
# Exit codes: 0 · 1, the cluster still counts on the node: nothing may be uninstalled · 3, there is no cluster here, or it is
# just starting · 4, its API does not answer. After 3 and 4 ask another server
set -euo pipefail

readonly data=/var/lib/rancher/k3s notes=/var/lib/k3s-lab # as in common.sh

die() {
  echo "leave.sh: $1" >&2
  exit "${2:-1}"
}

# api PATH: queries this server's API as administrator; kubectl, which loads all of K3s, takes ten times as long.
api() {
  local tls=$data/server/tls
  curl --silent --max-time 5 --cacert $tls/server-ca.crt --cert $tls/client-admin.crt --key $tls/client-admin.key "https://127.0.0.1:6443/$1"
}
answers() { [ "$(api readyz)" = ok ]; }
# An unknown node gives a Status with code 404.
node=
look() { node=$(api "api/v1/nodes/$NODE_NAME?pretty=false"); }
is_unknown() { look && [[ $node == *'"code":404'* ]]; }
is_known() { look && [[ $node != *'"code":404'* ]]; }
is_ready() { [[ $node == *'"type":"Ready","status":"True"'* ]]; }
is_cordoned() { [[ $node == *'"unschedulable":true'* ]]; }
is_cordoned_by_us() { [[ $node == *k3s-lab/cordoned* ]]; }

# "NAMESPACE NAME" of the Deployments whose only replica is on this node: the lab's, and K3s's Ingress controller.
lone_here() {
  local all here
  all=$(kubectl get deployments --all-namespaces --output \
    'jsonpath={range .items[?(@.spec.replicas==1)]}{.metadata.namespace} {.metadata.name} {.metadata.labels.k3s-lab/lab}{"\n"}{end}') || return 1
  # A terminating pod already has its replacement.
  here=$(kubectl get pods --all-namespaces --field-selector "spec.nodeName=$NODE_NAME,status.phase!=Failed,status.phase!=Succeeded" --output \
    'jsonpath={range .items[*]}{.metadata.namespace} {.metadata.generateName} {.metadata.labels.pod-template-hash} {.metadata.deletionTimestamp}{"\n"}{end}') || return 1
  printf '%s\n' "$all" | awk 'NF == 3 || $0 ~ /^kube-system traefik *$/ { print $1, $2 }' |
    grep -Fx -f <(printf '%s\n' "$here" | awk 'NF == 3 { sub("-" $3 "-$", "", $2); print $1, $2 }') || true
}

# A drain ends a pod before its replacement exists. A rollout starts the replacement first, and never on a cordoned node.
# Nodes that leave together move their lone pods one node after the other, and so also those that came from the others. The
# scheduler may not have noticed the cordon yet, so check the node again.
move_lone() {
  local deadline lone namespace name rest moved=true
  exec 7>/run/k3s-lab/lone.lock
  flock 7
  deadline=$((SECONDS + 60))
  while $moved && [ $SECONDS -lt $deadline ] && lone=$(lone_here) && [ -n "$lone" ]; do
    while read -r namespace name; do
      kubectl rollout restart --namespace "$namespace" "deployment/$name" || true
    done <<<"$lone"
    while read -r namespace name; do
      rest=$((deadline - SECONDS))
      if [ $rest -lt 1 ]; then rest=1; fi # 0 would be without end
      if ! kubectl rollout status --namespace "$namespace" --timeout="${rest}s" "deployment/$name"; then
        moved=false
        echo "$namespace/$name has no pod elsewhere yet: requests to it may be lost while $NODE_NAME is drained"
      fi
    done <<<"$lone"
  done
  exec 7>&-
}

evict() {
  kubectl drain "$NODE_NAME" --ignore-daemonsets --delete-emptydir-data "$@" --timeout=60s ||
    echo "$NODE_NAME was not drained: some of its pods stay until it stops"
}

# Pods of a silent node would stay terminating forever: they are deleted afterwards.
drain() {
  if kubectl cordon "$NODE_NAME"; then move_lone; fi
  evict --force
}

# Before a change. A drain would lose a pod without a controller, which otherwise keeps running while K3s restarts. kubectl
# drains nothing if there is one, so the others are selected by the labels that their controllers set.
move_away() {
  local bare label
  if kubectl cordon "$NODE_NAME"; then move_lone; fi
  bare=$(kubectl get pods --all-namespaces --field-selector "spec.nodeName=$NODE_NAME" --output \
    'jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name} {.metadata.ownerReferences[*].controller}{"\n"}{end}' |
    awk 'NF == 1 { print $1 }' | xargs) || bare="its pods, which cannot be listed"
  if [ -z "$bare" ]; then
    evict
    return
  fi
  echo "pods that no controller would recreate stay on $NODE_NAME: $bare"
  # In parallel: each may wait for a PodDisruptionBudget.
  for label in pod-template-hash controller-revision-hash controller-uid; do evict "--pod-selector=$label" & done
  wait
}

# The node's members, including those that never got a name.
own_members() {
  local all
  all=$(etcd_members) || return 1
  members_of "$NODE_NAME" <<<"$all"
  printf '%s\n' "$all" | awk -v ip="$NODE_IP" '$2 == "-" && $3 == ip'
}
# leads ID: whether this member is etcd's leader. Sets $here to the id of this server's own member.
leads() { local status; status=$(etcd_status 127.0.0.1) && here=${status% *} && [ "${status#* }" = "$1" ]; }

# Members leave one at a time: etcd must agree on each before the next. A leader first hands over to this server, which stays;
# etcd would notice a vanished leader only after seconds.
let_go() {
  local members id address here
  has_etcd || return 0
  exec 9>/run/k3s-lab/leave.lock
  flock 9
  until_true 60 etcd_members >/dev/null || die "etcd does not answer within 60 s, so $NODE_NAME cannot leave it. $(way_back)"
  local deadline=$((SECONDS + 60))
  # An unanswered query proves nothing: a member is gone only if a list lacks it.
  until members=$(own_members) && [ -z "$members" ]; do
    if [ $SECONDS -ge $deadline ]; then die "etcd did not remove $NODE_NAME within 60 s: it stays a server. See on this machine: journalctl --unit k3s"; fi
    while read -r id _ address; do
      if [ -z "$id" ]; then continue; fi
      if leads "$id" && hand_over "$address" "$here"; then until_true 10 leads "$here" || true; fi
      etcd 127.0.0.1 cluster/member/remove "{\"ID\":\"$id\"}" >/dev/null || pause 1
    done <<<"$members"
  done
  until_true 30 etcd_status 127.0.0.1 >/dev/null || die "etcd has no leader since $NODE_NAME left it"
}

remove_node() {
  kubectl delete --ignore-not-found --wait=false --namespace kube-system \
    "node/$NODE_NAME" "secret/$NODE_NAME.node-password.k3s"
  kubectl delete pods --all-namespaces --force --grace-period=0 --field-selector "spec.nodeName=$NODE_NAME"
}

# K3s's own controller keeps a server's node until it has removed the member that the node names, and that controller
# may have been lost with the server. A late one would remove the member that has just joined under that name.
let_node_go() {
  if until_true 10 is_unknown; then return; fi
  kubectl patch node "$NODE_NAME" --type=merge --patch '{"metadata":{"finalizers":null}}' || true
  until_true 30 is_unknown || die "the cluster did not forget $NODE_NAME within 30 s, and would mistake it for the one that joins again; see: kubectl get node $NODE_NAME --output yaml"
}

# An annotation lists the lab's labels (KEY=VALUE) and taints (KEY=VALUE:EFFECT, KEY:EFFECT), from before they are set until
# they are removed. What others set, or have changed since, stays.
set_marks() {
  local plan verb rest
  local -a given
  # shellcheck disable=SC2016 # the names are those of the template
  plan=$(kubectl get node "$NODE_NAME" --output 'go-template={{range $key, $value := .metadata.labels}}has {{$key}}={{$value}}
{{end}}{{range .spec.taints}}has {{.key}}{{with .value}}={{.}}{{end}}:{{.effect}}
{{end}}{{range $key, $value := .metadata.annotations}}{{if eq $key "k3s-lab/marks"}}own {{$value}}{{end}}{{end}}' |
    K3S_ARGS=${K3S_ARGS-} awk '
      # A node has one value per label key, and per taint key and effect.
      function key_of(mark) { sub(/=[^:]*/, "", mark); return mark }
      function plan(mark, what) { if (mark ~ /:/) taint = taint " " what; else label = label " " what }
      function note(marks) { print "annotate k3s-lab/marks" (marks == "" ? "-" : "=" substr(marks, 2)) }
      $1 == "has" { has[$2] = 1 }
      $1 == "own" { was = "," $2; owned = split($2, own, ",") }
      END {
        flags = split(ENVIRON["K3S_ARGS"], flag, " ")
        for (i = 1; i <= flags; i++) {
          if (!sub(/^--node-(label|taint)=/, "", flag[i])) continue
          marks = split(flag[i], mark, ",")
          for (j = 1; j <= marks; j++) {
            sub(/=:/, ":", mark[j])
            wanted = wanted "," mark[j]
            kept[key_of(mark[j])] = 1
            if (mark[j] in has) continue
            plan(mark[j], mark[j])
            if (mark[j] ~ /:NoExecute$/ && index(was ",", "," mark[j] ",") == 0) evicting = evicting " " mark[j]
          }
        }
        for (i = 1; i <= owned; i++)
          if (own[i] in has && !(key_of(own[i]) in kept)) {
            leaving = leaving "," own[i]
            plan(own[i], key_of(own[i]) "-")
          }
        if (evicting != "") print "evict" evicting
        if (wanted leaving != was) note(wanted leaving)
        if (label != "") print "label" label
        if (taint != "") print "taint" taint
        if (leaving != "") note(wanted)
      }')
  while read -r verb rest; do
    if [ "$verb" = evict ]; then
      [ -z "${BY_HAND:-}" ] || die "a new taint would evict pods from $NODE_NAME: $rest. Its labels and taints stay as they are. If you mean it, run scripts/lab up, which asks first; if not, restore the stack file"
      continue
    fi
    read -ra given <<<"$rest"
    if [ -n "$verb" ]; then kubectl "$verb" --overwrite node "$NODE_NAME" "${given[@]}"; fi
  done <<<"$plan"
}

# A Traefik whose middleware is missing answers no request, so the middleware is deleted once no Traefik uses it. K3s keeps
# the objects of a deleted manifest, and records what it deployed; because of that record it would not deploy the same again.
is_unused() {
  local found
  found=$(kubectl get pods --namespace kube-system --output 'jsonpath={.items[*].spec.containers[*].args}') || return 1
  [[ $found != *k3s-lab-retry* ]]
}
unbalance() {
  local group
  until_true 120 is_unused || die "Traefik in kube-system still uses the middleware k3s-lab-retry, which stays"
  kubectl delete --ignore-not-found --namespace kube-system addons.k3s.cattle.io/k3s-lab-traefik-retry
  for group in traefik.io traefik.containo.us; do # K3s has one of them, or both
    kubectl delete --ignore-not-found --namespace kube-system "middlewares.$group/k3s-lab-retry" || true
  done
}

[ -x /usr/local/bin/k3s ] && [ -e $data/server/tls/client-admin.crt ] || exit 3
# A cluster that is just starting has nothing to forget.
if [ "$1" = forget ] && [ -e $notes/installing ] && ! answers; then exit 3; fi
if [ "$1" = unbalance ] && [ -e $data/server/manifests/k3s-lab-traefik-retry.yaml ]; then exit 0; fi
until_true 60 answers || die "the API does not answer within 60 s; see on this machine: journalctl --unit k3s" 4
mkdir -p /run/k3s-lab
case "$1" in
before | gone)
  if [ "$1" = before ] && is_known && is_ready; then drain; fi
  let_go
  ;;
after) remove_node ;;
forget)
  let_go
  if is_known; then
    remove_node
    let_node_go
  fi
  ;;
cordon)
  if is_known && is_ready && ! is_cordoned; then
    kubectl annotate --overwrite node "$NODE_NAME" k3s-lab/cordoned=true
    move_away
  fi
  ;;
uncordon)
  if is_known && is_cordoned_by_us; then
    kubectl uncordon "$NODE_NAME"
    kubectl annotate node "$NODE_NAME" k3s-lab/cordoned-
  fi
  ;;
marks) set_marks ;;
unbalance) unbalance ;;
*)
  echo "leave.sh: unknown step '$1': before, gone, after, forget, cordon, uncordon, marks or unbalance" >&2
  exit 2
  ;;
esac
