#!/bin/sh
# Runs K3s's scripts on a machine for Pulumi: k3s.sh start | install | uninstall | unbalance | servers | kubeconfig
#   K3S_LAB_ROOT   the checkout
#   LAB_STACK      the stack that the machine belongs to
#   NODE_NAME      the machine; the other variables are those of provision/k3s.sh
#   SERVERS        the machines of all servers: NAME=ADDRESS NAME=ADDRESS…
#   INVENTORY      start, install: the machine in Ansible's inventory, as JSON, to use the playbook. Default: provision/k3s.sh is used
#   stdin          start, install: the token that joins nodes; on a second line, in base64, secret K3s configuration
set -eu
LC_ALL=C
export LC_ALL

lab="$K3S_LAB_ROOT/.lab"
owner="$(cat "$lab/id")/${LAB_STACK:-}"
provision="$K3S_LAB_ROOT/vagrant/provision"
ansible="$lab/${LAB_STACK:-}/ansible"

die() {
  echo "k3s.sh: $*" >&2
  exit 1
}

# on MACHINE.STACK COMMAND..., is_reachable MACHINE.STACK
# shellcheck source=vagrant/on.sh
. "$(dirname "$0")/on.sh"

# other_servers LIST: the names of the servers in the list, without this machine.
other_servers() {
  for server in $1; do
    if [ "${server%%=*}" != "$NODE_NAME" ]; then echo "${server%%=*}"; fi
  done
}

# The servers that stay in the cluster. A resource keeps the file, and removes it before all nodes if the whole cluster is
# deleted: then no server stays, and none has to be told.
staying() {
  list="$lab/$LAB_STACK/servers"
  if [ -e "$list" ] || { [ -e "$lab/$LAB_STACK" ] && [ ! -x "$lab/$LAB_STACK" ]; }; then
    cat "$list" || die "$list cannot be read: nothing was uninstalled. Run the same command as the user who owns it"
  fi
}

# tell LIST STEP: provision/leave.sh on the first other server of the list that has a cluster and can be reached.
# 0: done, or none of them has a cluster · 1: failed, with the reason
tell() { tell_one "$(other_servers "$1")" "$2"; }
tell_one() {
  list="$1"
  step="$2"
  silent=
  for name in $list; do
    status=0
    cat "$provision/common.sh" "$provision/leave.sh" |
      on "$name.$LAB_STACK" sudo env NODE_NAME="$NODE_NAME" NODE_IP="${NODE_IP:-}" "'K3S_ARGS=${K3S_ARGS:-}'" timeout 600 bash -s "$step" || status=$?
    case $status in
    0) return 0 ;;
    3) ;;
    4 | 124 | 255) silent="$silent $name" ;;
    *) return 1 ;;
    esac
  done
  [ -z "$silent" ] || echo "k3s.sh: these servers cannot be reached to tell them about $NODE_NAME:$silent" >&2
  [ -z "$silent" ]
}

# Reads the secrets, two lines, into memory that only root can read.
# shellcheck disable=SC2016 # expanded on the machine
keep_secrets='(umask 077; mkdir -p /run/k3s-lab; read -r token; read -r secret || true
  printf %s "$token" >/run/k3s-lab/token; printf %s "$secret" | base64 -d >/run/k3s-lab/secret)'

# here MODE: runs provision/k3s.sh on this machine, with all of its variables set, and $secrets if there are any. Each login
# takes a quarter of a second, so they come with the script, and never in arguments.
here() {
  {
    if [ -n "$secrets" ]; then printf '%s\n' "$keep_secrets" "$secrets" ""; fi
    cat "$provision/common.sh" "$provision/k3s.sh"
  } |
    on "$NODE_NAME.$LAB_STACK" sudo env NODE_NAME="$NODE_NAME" NODE_IP="$NODE_IP" NODE_ROLE="$NODE_ROLE" \
      NODE_INTERFACE="'${NODE_INTERFACE:-}'" SERVERS="'$SERVERS'" K3S_VERSION="'$K3S_VERSION'" "'K3S_ARGS=$K3S_ARGS'" \
      TRAEFIK="'${TRAEFIK:-}'" LAB_OWNER="$owner" CLUSTER_CA="'$ca'" SILENT="'$silent'" BUNDLE="'$bundle'" TOKEN_FILE=/run/k3s-lab/token SECRET_FILE=/run/k3s-lab/secret bash -s "$1"
}

# mark: sets the labels and taints of the node's flags. A kubelet may not do that later, so a server does.
mark() {
  case "$(seen data) $K3S_ARGS" in yes* | *--node-label=* | *--node-taint=*) ;; *) return 0 ;; esac
  if [ "$NODE_ROLE" = server ]; then tell_one "$NODE_NAME" marks; else tell "$SERVERS" marks; fi
}

seen() { printf '%s\n' "$survey" | sed -n "s/^$1 //p"; }

# For the playbook, whose steps are logins of their own.
send_secrets() { on "$NODE_NAME.$LAB_STACK" sudo bash -c "'rm -f /run/k3s-lab/why; $keep_secrets'"; }

# What the playbook reads, also when run by hand: the machine, and its secrets, which only the user may read.
write_inventory() {
  mkdir -p "$ansible/inventory" "$ansible/secrets/$NODE_NAME"
  (
    umask 077
    read -r token
    read -r secret || true
    printf %s "$token" >"$ansible/secrets/$NODE_NAME/token"
    printf %s "$secret" | base64 -d >"$ansible/secrets/$NODE_NAME/secret"
  )
  # Somebody may be reading the folder.
  printf '%s\n' "$INVENTORY" >"$ansible/$NODE_NAME.json"
  mv "$ansible/$NODE_NAME.json" "$ansible/inventory/$NODE_NAME.json"
}
forget_inventory() {
  rm -rf "$ansible/inventory/$NODE_NAME.json" "$ansible/secrets/$NODE_NAME"
  rmdir "$ansible"/* "$ansible" 2>/dev/null || true
}

# bring MODE: like `here`, or with the playbook. The reason of a failure comes last, where it is read first.
bring() {
  if [ -z "${INVENTORY:-}" ]; then
    here "$1"
    return
  fi
  # Ansible wants UTF-8, and takes a path with a comma for a list of machines.
  if ! (cd "$ansible" && LC_ALL=C.UTF-8 ANSIBLE_CONFIG="$K3S_LAB_ROOT/vagrant/ansible/ansible.cfg" ansible-playbook \
    --inventory "inventory/$NODE_NAME.json" --extra-vars "by_hand='' mode=$1 cluster_ca=$ca bundle=$bundle silent='$silent'" \
    "$K3S_LAB_ROOT/vagrant/ansible/k3s.yml" </dev/null >&2); then
    on "$NODE_NAME.$LAB_STACK" sudo cat /run/k3s-lab/why </dev/null >&2 || true
    return 1
  fi
  if [ "$1" = start ]; then here observe | sed -n 's/^ca //p'; fi
}

# A machine without this K3s gets it from here, completely or not at all. Its own files stay.
send_bundle() {
  bundle=
  if [ -n "$(seen preinstalled)" ] && { [ -z "$K3S_VERSION" ] || [ "$(seen preinstalled)" = "$K3S_VERSION" ]; }; then return; fi
  arch=$(seen arch)
  bundle=$("$K3S_LAB_ROOT/scripts/lab" bundle "$arch" --id </dev/null)
  if seen bundle | grep -Fqx "$bundle"; then return; fi
  "$K3S_LAB_ROOT/scripts/lab" bundle "$arch" </dev/null |
    on "$NODE_NAME.$LAB_STACK" "sudo sh -ec 'rm -rf /opt/k3s-lab/.new-*; mkdir -p /opt/k3s-lab/.new-$bundle
      tar --extract --directory /opt/k3s-lab/.new-$bundle; test -s /opt/k3s-lab/.new-$bundle/bundle
      rm -rf /opt/k3s-lab/$bundle; mv /opt/k3s-lab/.new-$bundle /opt/k3s-lab/$bundle'"
}

# find_cluster: the id of the cluster that other servers have, in $ca; in $silent those that did not answer.
find_cluster() {
  silent=
  for name in $(other_servers "$SERVERS"); do
    found=$(on "$name.$LAB_STACK" 'sudo sh -c "test ! -s /var/lib/rancher/k3s/server/tls/server-ca.crt || sha256sum /var/lib/rancher/k3s/server/tls/server-ca.crt"' </dev/null) ||
      silent="$silent $name"
    ca=${found%% *}
    if [ -n "$ca" ]; then return 0; fi
  done
  return 1
}

# Nodes get the id of the cluster that they join, and so show the token to no other. The first server does not wait.
learn_cluster() {
  ca=
  if [ "$NODE_ROLE" = server ] && [ "$(seen data)" = yes ]; then return; fi
  first=${SERVERS%%=*}
  deadline=$(($(date +%s) + 120))
  until find_cluster; do
    if [ "$NODE_NAME" = "$first" ]; then return; fi
    [ "$(date +%s)" -lt $deadline ] || die "no server has started a cluster for $NODE_NAME to join within 120 s${silent:+; these cannot be reached:$silent}"
    sleep 0.5
  done
  # The cluster's old records of a node that lost its data would keep it from joining.
  if [ "$(seen data)" != yes ]; then tell "$SERVERS" forget; fi
}

prepare() {
  bundle='' ca='' silent='' secrets=''
  if [ "${INVENTORY:-}" ]; then
    command -v ansible-playbook >/dev/null || die "ansible-playbook is missing: install ansible-core, or set k3s-lab:provisioner to shell"
    on "$NODE_NAME.$LAB_STACK" test -x /usr/bin/python3 </dev/null ||
      die "$NODE_NAME has no /usr/bin/python3, which Ansible needs there: install it, or set k3s-lab:provisioner to shell"
  fi
  survey=$(here observe)
  send_bundle
  learn_cluster
  if [ -z "${INVENTORY:-}" ]; then
    forget_inventory
    secrets=$(cat)
  else
    sent=$(cat)
    printf '%s\n' "$sent" | write_inventory
    printf '%s\n' "$sent" | send_secrets
  fi
}

case "$1" in
start)
  { prepare; } >&2
  bring start
  ;;
install)
  prepare
  is_drained=
  # A node without data is being installed, not changed.
  if [ "$NODE_ROLE" = agent ] && [ "$(seen data)" = yes ]; then
    planned=$(here check)
    if [ "$planned" = change ]; then
      tell "$SERVERS" cordon || true
      is_drained=yes
    elif [ "$(seen state)" = "it is cordoned" ]; then
      is_drained=yes
    fi
  fi
  # A separate variable: tell sets `status` too, and a failed change would count as done.
  installed=0
  bring install || installed=$?
  if [ $installed = 0 ] && ! mark; then installed=1; fi
  if [ "$is_drained" ]; then tell "$SERVERS" uncordon || echo "warning: $NODE_NAME may still be cordoned: kubectl uncordon $NODE_NAME"; fi
  [ $installed = 0 ] || exit $installed
  # verify multiplies its timeouts for this machine by this number.
  mkdir -p "$lab/$LAB_STACK/machines"
  on "$NODE_NAME.$LAB_STACK" sudo cat /var/lib/k3s-lab/slowness </dev/null >"$lab/$LAB_STACK/machines/$NODE_NAME.slowness"
  ;;
uninstall)
  stays=$(staying)
  step=gone
  if is_reachable "$NODE_NAME.$LAB_STACK"; then step=before; fi
  if ! tell "$stays" $step; then
    # If it left silently, it would still count in etcd, and the others might lack a majority.
    [ "$NODE_ROLE" = agent ] || die "$NODE_NAME stays a server, because the others were not told that it is leaving: nothing was uninstalled. Bring them back and run the same command again. $(bash -c '. "$0"; way_back' "$provision/common.sh")"
    echo "warning: the pods of $NODE_NAME were not moved before it left"
  fi
  # A lost machine has nothing left to uninstall; an unreachable host keeps what it has.
  if [ "$step" = before ]; then
    cat "$provision/common.sh" "$provision/uninstall.sh" | on "$NODE_NAME.$LAB_STACK" sudo env NODE_NAME="$NODE_NAME" LAB_OWNER="$owner" bash -s
  else
    echo "warning: $NODE_NAME cannot be reached, so nothing was uninstalled there; when it is back, run k3s-uninstall.sh or k3s-agent-uninstall.sh there"
  fi
  tell "$stays" after ||
    echo "warning: the cluster was not told that $NODE_NAME has left; if the cluster still runs, run there: kubectl delete node $NODE_NAME"
  forget_inventory
  ;;
unbalance) tell "$(staying)" unbalance ;;
servers)
  mkdir -p "$lab/$LAB_STACK"
  printf '%s\n' "$SERVERS" >"$lab/$LAB_STACK/servers.new"
  mv "$lab/$LAB_STACK/servers.new" "$lab/$LAB_STACK/servers"
  ;;
kubeconfig)
  for name in $(NODE_NAME='' other_servers "$SERVERS"); do
    if on "$name.$LAB_STACK" sudo cat /etc/rancher/k3s/k3s.yaml </dev/null; then exit; fi
  done
  exit 1
  ;;
*)
  echo "k3s.sh: unknown action '$1': start, install, uninstall, unbalance, servers or kubeconfig" >&2
  exit 2
  ;;
esac
