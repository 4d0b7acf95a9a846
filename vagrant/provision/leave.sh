#!/bin/bash
# Tells the cluster, on a server that stays, what becomes of a node. Run as root, after common.sh.
#   leave.sh before | gone | after | forget | cordon | uncordon | marks | unbalance
#   NODE_NAME   the node that leaves, or is changed
#   NODE_IP     its address
#   K3S_ARGS    marks: the flags of its K3s
#
# before     its pods move, and a server leaves etcd, while it still runs: those that stay always agree
# gone       the same for one whose machine is gone: its pods cannot move
# after      the cluster forgets the node, its password, without which none of that name could join again, and its pods,
#            which it would keep for most of a minute
# forget     both, for a node that lost its data and is to join again; does nothing where the cluster does not know it
# cordon     its pods move, for a change of it; uncordon: it takes pods again, unless somebody else cordoned it
# marks      it gets the labels and taints of its flags, and loses those of earlier flags: K3s sets taints only when a node
#            joins, and removes neither
# unbalance  the load balancer has left: what Traefik had for it goes
# marks      it gets the labels and taints of its flags, and loses those that it had from earlier ones. K3s sets taints only
#            when a node joins, and removes neither
#
# Exit codes: 0 · 1, the cluster still counts on the node: nothing may be uninstalled · 3, no cluster is here, or one that
# only begins · 4, its API does not answer. With 3 and 4 another server may know more
set -euo pipefail

readonly data=/var/lib/rancher/k3s notes=/var/lib/k3s-lab # as in common.sh

die() {
  echo "leave.sh: $1" >&2
  exit "${2:-1}"
}

# api PATH: asks this server's API as its administrator; kubectl, which is all of K3s, takes ten times as long.
api() {
  local tls=$data/server/tls
  curl --silent --max-time 5 --cacert $tls/server-ca.crt --cert $tls/client-admin.crt --key $tls/client-admin.key "https://127.0.0.1:6443/$1"
}
answers() { [ "$(api readyz)" = ok ]; }
# A node that is not known gives a Status with code 404.
node=
look() { node=$(api "api/v1/nodes/$NODE_NAME?pretty=false"); }
is_unknown() { look && [[ $node == *'"code":404'* ]]; }
is_known() { look && [[ $node != *'"code":404'* ]]; }
is_ready() { [[ $node == *'"type":"Ready","status":"True"'* ]]; }
is_cordoned() { [[ $node == *'"unschedulable":true'* ]]; }
is_cordoned_by_us() { [[ $node == *k3s-lab/cordoned* ]]; }

# "NAMESPACE NAME" of the Deployments of one replica that have it on this node: the lab's, and K3s's Ingress controller.
lone_here() {
  local all here
  all=$(kubectl get deployments --all-namespaces --output \
    'jsonpath={range .items[?(@.spec.replicas==1)]}{.metadata.namespace} {.metadata.name} {.metadata.labels.k3s-lab/lab}{"\n"}{end}') || return 1
  # One that ends already has its successor.
  here=$(kubectl get pods --all-namespaces --field-selector "spec.nodeName=$NODE_NAME,status.phase!=Failed,status.phase!=Succeeded" --output \
    'jsonpath={range .items[*]}{.metadata.namespace} {.metadata.generateName} {.metadata.labels.pod-template-hash} {.metadata.deletionTimestamp}{"\n"}{end}') || return 1
  printf '%s\n' "$all" | awk 'NF == 3 || $0 ~ /^kube-system traefik *$/ { print $1, $2 }' |
    grep -Fx -f <(printf '%s\n' "$here" | awk 'NF == 3 { sub("-" $3 "-$", "", $2); print $1, $2 }') || true
}

# A drain ends a pod before its successor is there. A rollout makes the successor first, and on a cordoned node it makes none.
# Of nodes that leave at once one moves its lone pods after the other, and so finds the successors that it was given. The
# scheduler may not have seen the cordon yet: the node is asked again.
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

# Pods of a node that does not answer would end for ever: they are deleted afterwards.
drain() {
  if kubectl cordon "$NODE_NAME"; then move_lone; fi
  evict --force
}

# Before a change. A pod that nobody made but a person would be lost by it: it goes on while K3s starts again. kubectl drains
# none where there is one, so the others are chosen by the labels that their controllers give them.
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
  # Side by side: each may wait as long as it can for a PodDisruptionBudget.
  for label in pod-template-hash controller-revision-hash controller-uid; do evict "--pod-selector=$label" & done
  wait
}

# Members of the node, those too that never came so far as to have a name.
own_members() {
  local all
  all=$(etcd_members) || return 1
  members_of "$NODE_NAME" <<<"$all"
  printf '%s\n' "$all" | awk -v ip="$NODE_IP" '$2 == "-" && $3 == ip'
}
# leads ID: whether etcd's leader is this member. Sets $here to the id of this server's own.
leads() { local status; status=$(etcd_status 127.0.0.1) && here=${status% *} && [ "${status#* }" = "$1" ]; }

# One member leaves at a time: etcd must agree on each before the next. Its leader hands over to this server first, which
# stays; that a leader vanishes would be noticed only after seconds.
let_go() {
  local members id address here
  has_etcd || return 0
  exec 9>/run/k3s-lab/leave.lock
  flock 9
  until_true 60 etcd_members >/dev/null || die "etcd does not answer within 60 s, so $NODE_NAME cannot leave it. $(way_back)"
  local deadline=$((SECONDS + 60))
  # A question that is not answered says nothing: only a list without it says that a member is gone.
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

# K3s's own controller holds on to a server's node until it has removed the member that the node names, and that controller
# may have been lost with the server. Coming to it late it would remove the member that has just joined under that name.
let_node_go() {
  if until_true 10 is_unknown; then return; fi
  kubectl patch node "$NODE_NAME" --type=merge --patch '{"metadata":{"finalizers":null}}' || true
  until_true 30 is_unknown || die "the cluster did not forget $NODE_NAME within 30 s, and would mistake it for the one that joins again; see: kubectl get node $NODE_NAME --output yaml"
}

# An annotation lists the labels (KEY=VALUE) and taints (KEY=VALUE:EFFECT, KEY:EFFECT) that are the lab's, from before they are
# set until they are gone. What others gave the node, or have changed since, stays.
set_marks() {
  local plan verb rest
  local -a given
  # shellcheck disable=SC2016 # the names are those of the template
  plan=$(kubectl get node "$NODE_NAME" --output 'go-template={{range $key, $value := .metadata.labels}}has {{$key}}={{$value}}
{{end}}{{range .spec.taints}}has {{.key}}{{with .value}}={{.}}{{end}}:{{.effect}}
{{end}}{{range $key, $value := .metadata.annotations}}{{if eq $key "k3s-lab/marks"}}own {{$value}}{{end}}{{end}}' |
    K3S_ARGS=${K3S_ARGS-} awk '
      # A node has one value for the key of a label, and for the key and effect of a taint.
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
            if (!(mark[j] in has)) plan(mark[j], mark[j])
          }
        }
        for (i = 1; i <= owned; i++)
          if (own[i] in has && !(key_of(own[i]) in kept)) {
            leaving = leaving "," own[i]
            plan(own[i], key_of(own[i]) "-")
          }
        if (wanted leaving != was) note(wanted leaving)
        if (label != "") print "label" label
        if (taint != "") print "taint" taint
        if (leaving != "") note(wanted)
      }')
  while read -r verb rest; do
    read -ra given <<<"$rest"
    if [ -n "$verb" ]; then kubectl "$verb" --overwrite node "$NODE_NAME" "${given[@]}"; fi
  done <<<"$plan"
}

# A Traefik whose middleware is missing answers no request: the middleware goes once no Traefik has it. K3s keeps what was in
# a manifest that is gone, and notes what it has deployed; by that note it would not deploy the same again.
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
# A cluster that only begins has nothing to forget.
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
