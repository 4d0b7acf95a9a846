#!/bin/bash
# Installs K3s on this machine with K3s's own installer, or updates an installed one. Run as root, after common.sh.
#
#   k3s.sh install    returns when the node is Ready. The default
#   k3s.sh start      for a server; returns when others can join. Prints the cluster's id, the SHA-256 of its CA certificate
#   k3s.sh check      changes nothing; prints "change" if `install` would restart K3s, else "same"
#   k3s.sh observe    changes nothing; prints the actual state, see below; needs only the first three variables
#   k3s.sh MODE STEP  one of these steps of `install` or `start`; ../ansible/k3s.yml does itself what lies between them:
#     begin           refuses what is impossible, and prints the wanted state as YAML; `check begin` changes nothing
#     place           puts the machine's files where K3s looks for them; prints "changed" if they were not there
#     installer       runs K3s's own installer, with the variables INSTALL_K3S_… of the caller
#     files           prints the fingerprint of the files that K3s runs from
#     stop            before K3s restarts
#     wait            returns when the node is Ready
#     recover [last]  after a failure: rolls a change back, removes a first install unless this was the last try
#     finish WISH     records what is installed
#
#   NODE_NAME, NODE_ROLE, NODE_IP   the node: its name, server | agent, its address in the lab
#   NODE_INTERFACE                  the interface that must carry the address; empty: eth1 if there is one, else any
#   K3S_VERSION                     the release, such as v1.25.4+k3s1; empty: the machine's own
#   K3S_ARGS                        further flags for `k3s server` or `k3s agent`, separated by spaces
#   SERVERS                         all servers, NAME=ADDRESS separated by spaces; several keep the cluster in etcd
#   CLUSTER_CA                      id of the existing cluster; empty: none, or unknown
#   SILENT                          servers that did not answer when asked for it; empty: all did
#   TRAEFIK                         every-node: a load balancer is in front of all nodes; see serve_on_every_node. Default: as K3s ships it
#   LAB_OWNER                       the lab and stack that own it, recorded for uninstall.sh; empty: not recorded
#   BUNDLE                          the bundle below /opt/k3s-lab that was sent; empty: the machine's own files
#   TOKEN_FILE                      the secret that joins nodes, moved to /etc/rancher/k3s/token. Default: /run/k3s-lab/token
#   SECRET_FILE                     secret K3s configuration. Default: /run/k3s-lab/secret
#   BY_HAND                         not empty: only what is installed is changed, because only `lab up` knows whether a cluster exists
#   UNASKED                         not empty, or BY_HAND: no option is set that may end pods, because only `lab up` asks
#   RUN                             a step after `begin`: the run, as `begin` named it
#   INSTALLER                       K3s's installer, if the machine's /opt/k3s-lab has none. Default: /home/vagrant/k3s-install.sh
#
# A failed first install is retried once after K3s's own uninstaller. If K3s has data, nothing is ever uninstalled: after a
# failed change the previous installation runs again. An interrupted change is recognized by what it saved; the next run continues.
#
# Exit codes: 0, the node is Ready · 1, failed · 2, the request is impossible, and nothing was touched
# Flags: https://docs.k3s.io/cli/server and https://docs.k3s.io/cli/agent
set -euo pipefail

readonly mode=${1:-install} step=${2:-} detail=${3:-}
readonly data=/var/lib/rancher/k3s config=/etc/rancher/k3s notes=/var/lib/k3s-lab # as in common.sh
readonly token_file=${TOKEN_FILE:-/run/k3s-lab/token}
readonly secret_file=${SECRET_FILE:-/run/k3s-lab/secret}
readonly token=$config/token ca=$data/server/tls/server-ca.crt
# The token as K3s reads it: prefixed with the cluster's id, so that a node shows it to no other cluster.
readonly join=$config/join
# They exist during a first installation, and during a change.
readonly installing=$notes/installing before=$notes/before
# What a step leaves for the next: secrets, when K3s was started, why a step failed.
readonly run=/run/k3s-lab

service=k3s uninstall=k3s-uninstall.sh
if [ "$NODE_ROLE" = agent ]; then service=k3s-agent uninstall=k3s-agent-uninstall.sh; fi
readonly unit=/etc/systemd/system/$service.service

die() {
  echo "k3s.sh on $NODE_NAME: $1" >&2
  if [ -n "$step" ]; then echo "k3s.sh on $NODE_NAME: $1" >$run/why; fi
  exit "${2:-1}"
}

# What the machine was created with, or was sent: K3s, its installer, images, manifests.
find_assets() {
  assets=/opt/k3s-lab
  if [ -n "${BUNDLE:-}" ]; then
    assets=/opt/k3s-lab/$BUNDLE
  elif [ ! -x $assets/k3s ]; then
    case "$(readlink /usr/local/bin/k3s || true)" in
    /opt/k3s-lab/*/k3s) assets=$(dirname "$(readlink /usr/local/bin/k3s)") ;;
    esac
  fi
  installer=$assets/install.sh
  [ -f "$installer" ] || installer=${INSTALLER:-/home/vagrant/k3s-install.sh}
}

# --- the actual state ---

# Whether K3s's process exists, even if it is still starting.
runs() {
  case "$(systemctl show --property SubState --value $service)" in
  running | start | start-pre | start-post | reload) ;;
  *) return 1 ;;
  esac
}

is_member() { [ "$NODE_ROLE" = server ] && has_etcd; }

# Every node may query its own object with its kubelet's certificate. This happens several times a second while K3s needs
# the CPU: kubectl, which loads all of K3s, would compete with it.
ask_node() {
  local agent=$data/agent port=6443
  if [ "$NODE_ROLE" = agent ]; then port=6444; fi # its own way to the server
  node=$(curl --silent --max-time "$1" --cacert $agent/server-ca.crt --cert $agent/client-kubelet.crt --key $agent/client-kubelet.key \
    "https://127.0.0.1:$port/api/v1/nodes/$NODE_NAME?pretty=false" 2>/dev/null)
}

# A kubelet registers its node only when it starts. One that `start` has just started is about to.
is_unregistered() { has_data && ! is_starting && ask_node 5 && [[ $node =~ \"code\":404 ]]; }
is_starting() {
  local began up age
  [ -e $installing ] || return 1
  began=$(systemctl show --property ExecMainStartTimestampMonotonic --value $service) # microseconds
  read -r up _ </proc/uptime
  age=$((${up%.*} - began / 1000000))
  # Negative if the machine is a container that counts from its own start, and systemd from the kernel's.
  [ $age -ge -1 ] && [ $age -lt $((60 * slower)) ]
}

# Why the node cannot continue without the servers, once that was checked.
alone=
# The server keeps reporting the last status of a node: only one that the kubelet sent since K3s was started counts.
started=
is_ready() {
  ask_node 5 || return 1
  [[ $node =~ \"type\":\"Ready\",\"status\":\"True\",\"lastHeartbeatTime\":\"([^\"]*)\" ]] || return 1
  [ -z "$started" ] || [[ ${BASH_REMATCH[1]} > $started ]]
}

# Whether the node has the labels and taints that leave.sh recorded as the lab's.
has_marks() {
  local mark key value
  if ! [[ $node =~ \"k3s-lab/marks\":\"([^\"]*)\" ]]; then return; fi
  for mark in ${BASH_REMATCH[1]//,/ }; do
    key=${mark%%[=:]*}
    value=${mark#"$key"}
    value=${value%:*}
    value=${value#=}
    case $mark in
    *:*) mark="\"key\":\"$key\",${value:+\"value\":\"$value\",}\"effect\":\"${mark##*:}\"" ;;
    *) mark="\"$key\":\"$value\"" ;;
    esac
    if [[ $node != *"$mark"* ]]; then return 1; fi
  done
}

# The files that K3s runs from, as far as the lab wrote them. A program is identified by size and time: reading it takes too long.
fingerprint() {
  {
    cat $unit $unit.env $unit.d/k3s-lab.conf $config/config.yaml.d/k3s-lab*.yaml $join || true
    readlink --canonicalize /usr/local/bin/k3s || true
    stat --dereference --format '%s %Y' /usr/local/bin/k3s || true
    systemctl is-enabled $service || true
  } 2>/dev/null | sha256sum | cut -c 1-32
}

# The mount points of /etc/fstab, and of systemd's enabled mount units, at, above or below K3s's data that are not mounted: a disk
# that failed at boot still has the data.
unmounted() {
  local place point
  place=$(readlink --canonicalize-missing $data)/
  {
    awk '$1 !~ /^#/ && $2 ~ /^\// && $4 !~ /noauto/ { print $2 }' /etc/fstab || true
    sed -n 's/^Where[[:blank:]]*=[[:blank:]]*//p' /etc/systemd/system/*.{wants,requires}/*.mount || true
  } 2>/dev/null | while read -r point; do
    if [[ $place = "${point%/}"/* || $point = "$place"* ]] && ! mountpoint --quiet "$point"; then echo "$point"; fi
  done
}

noted() { sed -n "s/^$1 //p" $notes/installed 2>/dev/null || true; }

# In a few words what differs from the last installation; "healthy" if nothing does.
state() {
  if [ -e $installing ]; then echo "its installation was interrupted"; return; fi
  if [ -d $before ]; then echo "a change of it was interrupted"; return; fi
  if [ ! -e $unit ] || [ ! -x /usr/local/bin/k3s ] || ! has_data; then echo "K3s is not installed"; return; fi
  if ! runs; then echo "K3s is stopped"; return; fi
  if [ -e $notes/installed ] && [ "$(noted files)" != "$(fingerprint)" ]; then
    echo "K3s's unit, configuration or program was changed by hand"
  elif is_ready; then
    # leave.sh cordoned it for a change that was interrupted.
    if [[ $node =~ k3s-lab/cordoned ]]; then
      echo "it is cordoned"
    elif ! has_marks; then
      echo "its labels or taints were changed by hand"
    else
      echo healthy
    fi
  elif [[ ${node:-} =~ \"code\":404 ]]; then
    echo "its node is not registered"
  else
    echo "its node is not Ready"
  fi
}

# version_of PROGRAM: the release of a K3s program; nothing if it does not exist.
version_of() { if [ -x "$1" ]; then "$1" --version | awk 'NR == 1 { print $3 }'; fi; }

# One per line, "KEY VALUE"; a key may be missing, `bundle` may occur several times.
observe() {
  node=
  echo "arch $(uname -m)"
  unmounted | sed 's/^/unmounted /'
  echo "state $(state)"
  if has_data; then echo "data yes"; elif [ -e $notes/installed ]; then echo "data lost"; fi
  if is_member; then echo "etcd yes"; fi
  if [ "$NODE_ROLE" = server ]; then echo "ca $(hash_of $ca)"; else echo "ca $(hash_of $data/agent/server-ca.crt)"; fi
  if [ "$NODE_ROLE" = server ] && [ -s $config/k3s.yaml ]; then
    echo "certificate $(sed -n 's/.*client-certificate-data: *//p' $config/k3s.yaml | tr -d '\n' | sha256sum | cut -d ' ' -f 1)"
  fi
  if [ -s $notes/version ]; then echo "version $(cat $notes/version)"; fi
  if [ -x /opt/k3s-lab/k3s ] && [ ! -e /opt/k3s-lab/bundle ]; then echo "preinstalled $(version_of /opt/k3s-lab/k3s)"; fi
  local marker
  for marker in /opt/k3s-lab/bundle /opt/k3s-lab/*/bundle; do
    if [ -s "$marker" ]; then echo "bundle $(cat "$marker")"; fi
  done
}

# --- the wanted state ---

# A slow machine gets more time: the same work is timed on each, and takes 0.1 s on a usual computer. It is timed only once,
# because a machine that is sometimes slow must not get a different configuration each time.
slowness() {
  if [ ! -s $notes/slowness ]; then
    local began=${EPOCHREALTIME/./} i
    for ((i = 0; i < 40000; i++)); do :; done
    local took=$((${EPOCHREALTIME/./} - began))
    echo $((took < 100000 ? 1 : (took + 99999) / 100000)) >$notes/slowness
  fi
  cat $notes/slowness
}

find_interface() {
  local wanted=${NODE_INTERFACE:-}
  interface=$(ip -o -4 addr show | awk -v ip="$NODE_IP" '{ split($4, a, "/"); if (a[1] == ip) print $2 }')
  [ -n "$interface" ] || die "no interface carries $NODE_IP; found: $(ip -o -4 addr show | awk '{ print $2 "=" $4 }' | xargs)" 2
  # The lab promises eth1; on a machine without one, with names such as enp0s8 or ens4, the address decides.
  if [ -z "$wanted" ] && ip -o link show eth1 >/dev/null 2>&1; then wanted=eth1; fi
  [ "${wanted:-$interface}" = "$interface" ] ||
    die "$NODE_IP is on $interface, not on $wanted; fix the machine's network, or set its \`interface\` in the stack file to $interface" 2
}

# Beside another Kubernetes' kubelet K3s does not start, and its uninstaller would remove that one's data.
refuse_other_kubelet() {
  local found
  if runs; then return; fi
  found=$(find /var/lib/kubelet -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit 2>/dev/null || true)
  if [ -e $notes/installed ] || [ -e $installing ]; then found=; fi # K3s left it
  if [ -n "$found" ] || curl --silent --insecure --max-time 2 --output /dev/null https://127.0.0.1:10250/healthz; then
    die "the kubelet of another Kubernetes runs here, or its data is in /var/lib/kubelet: remove that one first, or choose another host" 2
  fi
}

# Never change K3s of another cluster.
refuse_other_cluster() {
  if [ ! -e /usr/local/bin/k3s ] && ! has_data && [ ! -e $data/agent/client-kubelet.crt ]; then
    refuse_other_kubelet
    return
  fi
  # What remains after K3s's own uninstaller, or after the program was deleted by hand, is still the lab's.
  if [ ! -e /usr/local/bin/k3s ] && [ ! -e $token ] && [ -e $notes/installed ]; then return; fi
  # An interrupted change may have restored only a part of what it saved.
  local own
  for own in $token $before$token; do
    if [ -s "$own" ] && { [ ! -s "$token_file" ] || cmp -s "$own" "$token_file"; }; then return; fi
  done
  die "K3s of another cluster is installed here, or its data is in $data; remove it first, through its lab or with k3s-uninstall.sh" 2
}

# A load balancer that becomes a node is removed only once all nodes exist, and uses their ports until then.
refuse_load_balancer() {
  local service=k3s-lab-load-balancer
  if [ -e /etc/systemd/system/$service.service ] && systemctl is-active --quiet $service; then
    die "a load balancer of the lab is on this machine and uses a node's ports: remove the machine from the stack file, run the same command, then add it as a node" 2
  fi
}

# flag_of PATTERN: a flag of the installed unit.
flag_of() { grep -o -- "'$1'" $unit 2>/dev/null | head -n 1 | tr -d "'" || true; }

# serves ADDRESS: whether an API server answers there, even with 401: a K3s that itself still waits for others answers 503.
# No secret is sent: when K3s joins, it verifies the server.
serves() {
  case "$(curl --silent --insecure --max-time 3 --output /dev/null --write-out '%{http_code}' "https://$1:6443/readyz" 2>/dev/null)" in
  200 | 401) ;;
  *) return 1 ;;
  esac
}

others() {
  local server
  for server in $SERVERS; do
    if [ "${server%%=*}" != "$NODE_NAME" ]; then echo "${server#*=}"; fi
  done
}

find_serving() {
  local ip
  for ip in $(others); do
    if serves "$ip"; then
      serving=$ip
      return
    fi
  done
  return 1
}

# The K3s flags with which this node joins the others.
join_flags() {
  local first=${SERVERS%% *} installed serving=
  installed=$(flag_of '--server=https://[^:]*:6443')
  if [ "$NODE_ROLE" = server ] && has_data; then
    # A server that has its part of the cluster's data keeps it, and its flag, which K3s no longer reads. A single server
    # migrates its data to etcd, so that others can join.
    if is_member; then
      if [ -n "$installed" ]; then echo "$installed"; else flag_of --cluster-init; fi
    elif [ -n "$(others)" ]; then
      echo "--cluster-init"
    fi
    return
  fi
  if [ -z "$(others)" ]; then return; fi
  # An agent keeps its server as long as the cluster has it.
  local ip=${installed#--server=https://}
  if [ "$NODE_ROLE" = agent ] && has_data && others | grep -Fqx "${ip%:6443}"; then
    echo "$installed"
    return
  fi
  find_serving || true
  # A server that lost its data must not start a second cluster while the first one exists.
  if [ "$NODE_ROLE" = server ] && [ -z "$serving" ]; then
    if [ -n "${CLUSTER_CA:-}" ]; then
      until_true $ready_within find_serving ||
        die "the cluster has other servers, and none of them answered within $ready_within s: this one does not start a second cluster. $(way_back) Then run the same command again."
    elif [ "${first%%=*}" = "$NODE_NAME" ]; then
      # This server starts a cluster only if there is none.
      [ -z "${SILENT:-}" ] ||
        die "these servers do not say whether they have the cluster's data: $SILENT. $NODE_NAME must not start a second cluster: bring them back, or remove them from the stack file"
      echo "--cluster-init"
      return
    fi
  fi
  echo "--server=https://${serving:-$(others | head -n 1)}:6443"
}

# K3s's configuration contains what the machine needs but the user did not ask for; the flags stay the user's own, and so does
# an existing config.yaml.
config_text() {
  echo "token-file: $join"
  if [ -d /opt/k3s-lab/containerd ] || [ -d "$assets/images" ]; then
    # Images that were sent here cannot be pulled again, so a full disk must not delete them.
    echo "kubelet-arg+: [image-gc-high-threshold=100, image-gc-low-threshold=99]"
  fi
  if [ "$NODE_ROLE" = server ] && [ "$slower" -gt 1 ]; then
    # Assembling the API's whole description, which Pulumi requests, takes a slow machine longer than the usual 60 s.
    echo "kube-apiserver-arg+: [request-timeout=$((60 * slower))s]"
  fi
  if [ -e "$assets/offline" ]; then
    # Without a name server that pods can use, K3s would send their queries to a public one.
    echo "resolv-conf: $config/k3s-lab-resolv.conf"
  fi
}

set_arguments() {
  flags=$(join_flags)
  # A node is named after its machine unless the stack file names it differently.
  if [ "$(uname -n)" != "$NODE_NAME" ]; then flags="--node-name=$NODE_NAME${flags:+ $flags}"; fi
  arguments="--node-ip=$NODE_IP --flannel-iface=$interface${K3S_ARGS:+ $K3S_ARGS}${flags:+ $flags}"
}

# Everything that determines how K3s should run.
wanted() {
  printf '%s\n' "$NODE_ROLE $arguments" "$(config_text)" "$assets" "${own:-${K3S_VERSION:-}}"
  if [ -s "$secret_file" ]; then cat "$secret_file"; fi
}

check_assets() {
  own=$(version_of "$assets/k3s")
  if [ -n "$own" ] && [ -n "${K3S_VERSION:-}" ] && [ "$own" != "$K3S_VERSION" ]; then
    die "K3s $K3S_VERSION was requested, but this machine has $own, and cannot download another; set k3s.version to $own" 2
  fi
}

# Ask K3s whether it knows the flags before anything is touched: with --help first it starts nothing.
check_flags() {
  local program=$assets/k3s said
  local -a list
  read -ra list <<<"$arguments"
  if [ ! -x "$program" ]; then
    program=/usr/local/bin/k3s
    if [ ! -x "$program" ] || [ "$(cat $notes/version 2>/dev/null)" != "${K3S_VERSION:-}" ]; then return; fi
  fi
  if ! said=$("$program" "$NODE_ROLE" --help "${list[@]}" 2>&1 >/dev/null); then
    die "K3s does not accept these flags: $(printf '%s\n' "$said" | sed -n 's/.*level=fatal msg="\(.*\)"$/\1/p' | head -n 1). Nothing was touched; fix k3s.${NODE_ROLE}Args in the stack file" 2
  fi
}

encrypts() { grep -qsE -- "--secrets-encryption(=true)?('| |$)"; }

# K3s honours this flag only from a cluster's first start: https://docs.k3s.io/cli/secrets-encrypt
check_encryption() {
  if $is_first || [ "$NODE_ROLE" = agent ] || [ ! -e "$unit" ]; then return; fi
  local way="Nothing was touched: restore k3s.serverArgs, or take the cluster down first"
  if encrypts <"$unit"; then
    encrypts <<<"$arguments" || die "K3s runs here with --secrets-encryption, and without it could not read the cluster's Secrets, which are encrypted. $way" 2
  elif encrypts <<<"$arguments"; then
    die "K3s cannot turn --secrets-encryption on for an existing cluster: it was created without, and each server would create its own key, which the others do not have. $way" 2
  fi
}

# The options, NAME=VALUE, by which a kubelet has less room or etcd accepts no more writes; as in stacks/model/k3s-cluster.ts.
room() {
  printf '%s\n' max-pods=110 quota-backend-bytes=0 'eviction-hard=imagefs.available<5%,nodefs.available<5%'
  { grep -oE -- "--(kubelet-arg=(max-pods|pods-per-core|eviction-(hard|soft)|(kube|system)-reserved|reserved-(cpus|memory))|etcd-arg=quota-backend-bytes)[-+]?=[^' ]*" || true; } |
    sed -E 's/^--[a-z]+-arg=//; s/^([a-z-]*[a-z])[-+]=/\1=/'
}

# A kubelet ends what does not fit when it starts.
check_room() {
  local less
  if [ -z "${BY_HAND:-}${UNASKED:-}" ] || $is_first || [ ! -e "$unit" ]; then return; fi
  less=$(awk -F= '
    { name = $1; value = substr($0, length(name) + 2) }
    name == "quota-backend-bytes" && (value + 0 <= 0 || value + 0 > 2147483647) { value = "2147483648" }
    NR == FNR { was[name] = value; next }
    { now[name] = value }
    END {
      for (name in now)
        if (name ~ /^(max-pods|quota-backend-bytes)$/ ? now[name] + 0 < was[name] + 0 : now[name] != was[name])
          print name "=" now[name]
    }' <(room <"$unit") <(room <<<"$arguments"))
  [ -z "$less" ] || die "this may end pods on $NODE_NAME, or stop etcd for good: ${less//$'\n'/, }. Nothing was touched. If you mean it, run scripts/lab up, which asks first; if not, restore the stack file" 2
}

# The lab has one cluster: a node of another one, lost or unintended, is not turned into a node of this one.
check_cluster() {
  local own
  own=$(hash_of $data/agent/server-ca.crt)
  if [ -z "${CLUSTER_CA:-}" ] || [ -z "$own" ] || [ "$own" = "$CLUSTER_CA" ]; then return; fi
  die "K3s here belongs to another cluster than the servers: nothing was touched. Run the same command again, which then offers to reinstall this node"
}

# older A B: whether release A comes before B.
older() { [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort --version-sort | head -n 1)" = "$1" ]; }
minor() { printf '%s\n' "$1" | sed 's/^v[0-9]*\.\([0-9]*\)\..*/\1/'; }

# Kubernetes cannot be downgraded or skip a minor release: https://kubernetes.io/releases/version-skew-policy/
check_version() {
  local from to=${own:-${K3S_VERSION:-}}
  from=$(cat $notes/version 2>/dev/null || true)
  if [ -z "$from" ] || [ -z "$to" ] || ! has_data; then return; fi
  if older "$to" "$from"; then die "K3s $from runs here, and K3s cannot be downgraded to $to, which may not be able to read its data. Set k3s.version to $from or a later release" 2; fi
  if [ $(($(minor "$to") - $(minor "$from"))) -gt 1 ]; then
    die "K3s $from runs here, and an upgrade to $to would skip a minor release: upgrade to v1.$(($(minor "$from") + 1)) first" 2
  fi
}

# hears ADDRESS: whether a server's machine answers, even if only to refuse because no etcd runs there.
hears() {
  local code=0
  curl --silent --output /dev/null --connect-timeout 2 --max-time 4 "https://$1:2380" || code=$?
  [ "$code" != 28 ] # curl's "timed out"
}

is_quorum_in_reach() {
  local ip all=1 heard=1
  for ip in $(others); do
    all=$((all + 1))
    if hears "$ip"; then heard=$((heard + 1)); fi
  done
  [ $((heard * 2)) -gt "$all" ]
}

# A server that has lost the others restarts over and over, and its etcd does not always answer.
is_alone() {
  local at
  at=$(others | xargs | sed 's/ /, /g')
  alone=
  if [ "$NODE_ROLE" = agent ]; then
    find_serving || alone="no server answers it at $at"
  elif is_member && ! etcd_status 127.0.0.1 >/dev/null && { etcd 127.0.0.1 maintenance/status >/dev/null || ! is_quorum_in_reach; }; then
    alone="etcd on it has no leader: it and the servers at $at do not hear each other"
  fi
  [ -n "$alone" ]
}
is_in_company() { ! is_alone; }

# Without the servers the node would not become Ready, neither after a change nor after its rollback.
await_servers() {
  until_true $((30 * slower)) is_in_company ||
    die "$alone. Nothing was touched: start the servers, or fix the network between them and $NODE_NAME, then run the same command again"
}

# A change stops this server for seconds: the others must keep the quorum without it.
check_quorum() {
  local all members alive=0 id name address
  is_member || return 0
  all=$(etcd_members) || return 0 # it does not run
  members=$(printf '%s\n' "$all" | wc -l)
  if [ "$members" -lt 3 ]; then return; fi
  missing=
  while read -r id name address; do
    if etcd_status "$address" >/dev/null; then alive=$((alive + 1)); else missing="$missing $name"; fi
  done <<<"$all"
  [ $((alive - 1)) -gt $((members / 2)) ]
}

# --- changing ---

# put FILE: writes standard input to a file; on a full disk the old file stays.
put() {
  if cat >"$1.new" && mv "$1.new" "$1"; then return; fi
  rm -f "$1.new"
  return 1
}

# joins_by FILE: whether the node joins with the token in this file. join_text FILE: the token that it joins with.
joins_by() { [ "$(sed 's/.*://' $join 2>/dev/null)" = "$(cat "$1")" ]; }
join_text() { printf '%s%s' "${CLUSTER_CA:+K10$CLUSTER_CA::server:}" "$(cat "$1")"; }

# Inside a condition such as bring_up's, bash does not exit when a command fails: each must return by itself.
write_config() {
  install -d -m 0755 $config $config/config.yaml.d || return
  if [ -s "$token_file" ]; then
    (umask 077 && put $token <"$token_file") || return
    rm -f "$token_file"
  fi
  # Once written it stays: it means the same with and without the cluster's id.
  if ! joins_by $token; then
    (umask 077 && join_text $token | put $join) || return
  fi
  printf '%s\n' "$(config_text)" | put $config/config.yaml.d/k3s-lab.yaml || return
  if [ -e "$assets/offline" ]; then echo "nameserver ${NODE_IP%.*}.1" | put $config/k3s-lab-resolv.conf || return; fi
  rm -f $config/config.yaml.d/k3s-lab-secret.yaml
  if [ -s "$secret_file" ]; then install -m 0600 -o root "$secret_file" $config/config.yaml.d/k3s-lab-secret.yaml; fi
}

# Packets that kube-proxy forwards from a virtio interface into flannel's VXLAN leave with a wrong outer checksum, and the
# other node drops them. Computing it earlier fixes that; udev sets this whenever flannel creates its device.
write_link() {
  if is_virtio; then printf '[Match]\nOriginalName=flannel.1\n[Link]\nTransmitChecksumOffload=no\n' >/etc/systemd/network/10-k3s-lab-flannel.link; fi
}
is_virtio() { [[ $(readlink "/sys/class/net/$interface/device/driver") == */virtio_net ]]; }

readonly manifests=$data/server/manifests
readonly values=$manifests/k3s-lab-traefik-config.yaml retry=$manifests/k3s-lab-traefik-retry.yaml # of serve_on_every_node
# Of a folder that is a link, the link is kept as one, and what is in the folder, which may be a disk of its own.
kept=() kept_folders=()
find_kept() {
  local folder target one
  kept=("$values" "$retry" "$config" "$unit" "$unit.env" "$unit.d" "/etc/systemd/system/multi-user.target.wants/$service.service" /usr/local/bin/k3s)
  kept_folders=("$manifests")
  for folder in "$config" "$config/config.yaml.d" "$unit.d"; do
    if [ ! -L "$folder" ] || [ ! -d "$folder" ]; then continue; fi
    target=$(readlink --canonicalize "$folder")
    for one in "${kept[@]}"; do
      if [[ $target/ = "$one"/* ]]; then continue 2; fi
    done
    kept_folders+=("$target")
    for one in "$target"/* "$before$target"/*; do
      one=$target/${one##*/}
      if [[ " ${kept[*]} " != *" $one "* ]]; then kept+=("$one"); fi
    done
  done
}

# Saves what runs now, completely or not at all. After an interrupted change, the installation before it counts.
is_interrupted=false
save() {
  if [ -d $before ]; then
    is_interrupted=true # before its start, perhaps
    return
  fi
  rm -rf $before.new
  mkdir -m 0700 $before.new
  local path
  find_kept
  for path in "${kept[@]}"; do
    if is_there "$path"; then cp -a --parents "$path" $before.new; fi
  done
  mkdir -p "${kept_folders[@]/#/$before.new}" # says that they were saved, if only that they were empty
  sync -f $before.new
  mv $before.new $before
}

# A partial copy must never be taken for a complete one.
forget_saved() {
  find_kept
  rm -rf $before.old "${kept[@]/%/.kept}"
  if [ -d $before ]; then mv $before $before.old; fi
  rm -rf $before.old
}

is_there() { [ -e "$1" ] || [ -L "$1" ]; }
# A change that an earlier release of the lab began has no such folders saved. What was not saved stays as it is.
has_saved() { [[ " ${kept_folders[*]} " != *" ${1%/*} "* ]] || [ -d "$before${1%/*}" ]; }
is_as_kept() {
  has_saved "$1" || return 0
  if is_there "$before$1"; then diff -r --no-dereference "$before$1" "$1" >/dev/null 2>&1; elif is_there "$1"; then false; fi
}

# traefik_values TEXT: the manifest with the values of K3s's Traefik chart. K3s keeps the values of a deleted file: empty
# values, "", undo them.
traefik_values() {
  printf 'apiVersion: helm.cattle.io/v1\nkind: HelmChartConfig\nmetadata:\n  name: traefik\n  namespace: kube-system\nspec:\n  valuesContent: %s\n' "$1"
}

declare -a changed
put_back() {
  [ -d $before ] || die "the previous installation is no longer saved in $before: run the same command again"
  local path
  # Copy only the saved files: copying the folder itself would change the root folder's mode. Copy all before replacing any,
  # because the disk may be full. Unchanged files stay.
  changed=()
  find_kept
  for path in "${kept[@]}"; do
    rm -rf "$path.kept"
    if is_as_kept "$path"; then continue; fi
    changed+=("$path")
    if ! is_there "$before$path"; then continue; fi
    if ! mkdir -p "$(dirname "$path")" || ! cp -a "$before$path" "$path.kept"; then
      rm -rf "${kept[@]/%/.kept}"
      die "the change failed, and the previous installation cannot be copied back from $before: nothing was removed. Free some disk space, then run the same command again"
    fi
  done
  for path in "${changed[@]}"; do
    rm -rf "$path"
    if is_there "$path.kept"; then
      mv "$path.kept" "$path"
    elif [ "$path" = "$values" ]; then
      traefik_values '""' >"$values"
    fi
  done
  systemctl daemon-reload
}

# etcd's leader hands over before it stops; otherwise nothing could be written for seconds.
step_down() {
  local status id name address
  is_member && status=$(etcd_status 127.0.0.1) || return 0
  if [ "${status% *}" != "${status#* }" ]; then return; fi
  while read -r id name address; do
    if [ "$id" = "${status% *}" ] || [ "$name" = - ] || ! etcd_status "$address" >/dev/null; then continue; fi
    if hand_over 127.0.0.1 "$id"; then return; fi
  done < <(etcd_members)
}

make_way() {
  started=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  # A starting K3s ignores SIGTERM, and systemd would wait for 90 s.
  if [ "$(systemctl show --property SubState --value $service)" != running ]; then
    systemctl kill --kill-who=main --signal=SIGKILL $service 2>/dev/null || true
  fi
  systemctl reset-failed $service 2>/dev/null || true
}

start_k3s() {
  make_way
  if [ "$mode" = start ] || [ -n "$alone" ]; then
    systemctl restart --no-block $service
    return
  fi
  # A server's unit is active once its API is, and waiting for systemd costs nothing. The result is checked later.
  timeout "$ready_within" systemctl restart $service 8>&- || true
}

# Behind a load balancer, which drops a lost node, each node leads only to its own Traefik. That one keeps no connections to
# pods, and tries another pod if one does not answer at once: Kubernetes notices only after 40 s that the pods of a lost
# node are lost. With concurrent requests the next pod is a matter of chance, so it retries many times.
serve_on_every_node() {
  local carried=$assets/manifests group=traefik.io
  if [ "${TRAEFIK:-}" != every-node ]; then
    if [ ! -e $retry ]; then return; fi
    cp "$carried/k3s-lab-traefik-config.yaml" $values 2>/dev/null || traefik_values '""' >$values
    rm -f $retry
    return
  fi
  mkdir -p $manifests
  if [[ ! -e $carried/k3s-lab-traefik-io.yaml && ${K3S_VERSION:-v1.25.} =~ ^v1\.2[5-7]\. ]]; then group=traefik.containo.us; fi
  {
    printf 'apiVersion: %s/v1alpha1\nkind: Middleware\nmetadata:\n  name: k3s-lab-retry\n  namespace: kube-system\n' $group
    printf 'spec:\n  retry:\n    attempts: 20\n'
  } >$retry.new
  {
    if [ -e "$carried/k3s-lab-traefik-config.yaml" ]; then
      cat "$carried/k3s-lab-traefik-config.yaml"
    else
      traefik_values $'|-\n    additionalArguments:'
    fi | sed '/^    additionalArguments:$/a \
      - --serverstransport.forwardingtimeouts.dialtimeout=200ms\
      - --serverstransport.maxidleconnsperhost=-1\
      - --entrypoints.web.http.middlewares=kube-system-k3s-lab-retry@kubernetescrd\
      - --entrypoints.websecure.http.middlewares=kube-system-k3s-lab-retry@kubernetescrd'
    printf '    deployment:\n      kind: DaemonSet\n    service:\n      spec:\n        internalTrafficPolicy: Local\n        externalTrafficPolicy: Local\n'
  } >$values.new
  mv $retry.new $retry
  mv $values.new $values
}

place() {
  if [ -n "$own" ]; then
    # A link, because uninstalling removes K3s and the retry needs it again.
    ln -sf "$assets/k3s" /usr/local/bin/k3s || return
    CARRIED=$assets "$assets/place.sh" "$NODE_ROLE" || return
  fi
  if [ "$NODE_ROLE" = server ]; then serve_on_every_node || return; fi
}

# run_k3s_installer NAME=VALUE...: the variables K3S_… here are not meant for K3s. It takes the proxy from the installer's
# environment, and must not use it within the lab.
run_k3s_installer() {
  local direct
  if [ -n "${http_proxy:-}${https_proxy:-}${HTTP_PROXY:-}${HTTPS_PROXY:-}" ]; then
    direct=$(printf '%s\n' "${no_proxy:-${NO_PROXY:-}}" localhost 127.0.0.1 "$NODE_IP" "$(others)" | xargs | tr ' ' ',')
    set -- "NO_PROXY=$direct" "no_proxy=$direct" "$@"
  fi
  env --unset=K3S_VERSION --unset=K3S_ARGS "$@" sh "$installer"
}

run_installer() {
  local file_before
  file_before=$(fingerprint)
  write_config && write_link && place || return
  local download=("INSTALL_K3S_VERSION=${K3S_VERSION:-}")
  if [ -n "$own" ]; then download=(INSTALL_K3S_SKIP_DOWNLOAD=true); fi
  # The installer would wait for the service forever, and an agent without its server never comes up.
  run_k3s_installer "${download[@]}" INSTALL_K3S_SKIP_START=true INSTALL_K3S_EXEC="$NODE_ROLE $arguments" || return
  if [ "$file_before" != "$(fingerprint)" ] || must_start; then
    step_down
    start_k3s
  fi
}

must_start() { $is_interrupted || ! runs || is_unregistered; }

has_several_servers() { [ "$(echo "$SERVERS" | wc -w)" -gt 1 ]; }

is_up() {
  if [ "$mode" = start ]; then [ -s $ca ]; else is_ready && is_healthy_member; fi
}

# The next server changes only once this one is a healthy etcd member again.
is_healthy_member() { ! is_member || etcd_status 127.0.0.1 >/dev/null; }

# systemd restarts K3s whenever it exits. Only one server may join etcd at a time: those that have to wait exit and restart.
wait_until_up() {
  local ends_allowed=0
  if has_several_servers; then
    ends_allowed=1
    if $is_first; then ends_allowed=20; fi
  fi
  until is_up; do
    if [ $SECONDS -ge $deadline ]; then return 1; fi
    if [ "$(systemctl show --property NRestarts --value $service)" -gt $ends_allowed ]; then return 1; fi
    # A query takes longer on a slow machine, and must stay a small part of the time.
    pause "$((3 * slower / 10)).$((3 * slower % 10))"
  done
}

bring_up() {
  deadline=$((SECONDS + ready_within))
  run_installer && wait_until_up
}

# K3s's own reason comes last, where it is read first.
explain() {
  local said begun=${started/T/ }
  # It may have restarted meanwhile, which logs a lot. Messages from before this run are not the reason.
  said=$(journalctl --no-pager --lines 1000 --unit $service ${started:+"--since=${begun%Z} UTC"})
  tail -n 30 <<<"$said" >&2
  reason=$(printf '%s\n' "$said" | grep -o 'level=fatal msg=".*"' | tail -n 1 || true)
  why="${reason:+. K3s says: $reason}"
  if is_alone; then why="$why. And $alone"; fi
  echo "k3s.sh on $NODE_NAME: $service ended, or its node was not Ready after $ready_within s; its last lines are above$why" >&2
}

# After an interrupted installation: somebody may have used it since.
begin_first() { if may_hold /var/lib/kubelet/pods; then echo pods; fi >$installing; }

# Makes room for another try.
remove_failed() {
  explain
  if [ "$NODE_ROLE" = server ] && has_several_servers; then
    # The others know it as an etcd member, and would refuse it if it returned without its data.
    die "the installation failed; what exists of it stays, and the next run continues from there. $(way_back)"
  fi
  # K3s's own scripts remove the local volumes of pods too.
  if may_hold $data/storage; then
    die "the installation failed, and nothing was removed, because pods have data in $data/storage: save what you need from there."
  fi
  if [ -s $installing ]; then
    die "the installation failed, and nothing was removed, because pods have run in it since it was interrupted: fix the cause and run the same command again, or delete it with scripts/lab down."
  fi
  echo "k3s.sh on $NODE_NAME: the installation failed; removing K3s and trying once more" >&2
  if [ -x /usr/local/bin/k3s-killall.sh ]; then /usr/local/bin/k3s-killall.sh; fi
  # Uninstalling removes the token too.
  install -D -m 0600 $token "$token_file"
  remove_k3s $uninstall
}

first_install() {
  begin_first
  if ! bring_up; then
    remove_failed
    bring_up || { explain; exit 1; }
  fi
  # From now on there is something to lose, whatever happens in the rest of this run.
  if [ "$mode" = install ]; then rm -f $installing; fi
}

begin_change() {
  await_servers
  until_true 60 check_quorum ||
    die "etcd's members$missing do not answer, and without this server too the cluster would lose its quorum: nothing was touched. Bring them back first"
  save
}

change() {
  begin_change
  bring_up || roll_back
}

roll_back() {
  explain
  echo "k3s.sh on $NODE_NAME: restoring the previous installation" >&2
  put_back
  # If nothing was started or changed, the previous installation still runs.
  if [ -n "$started" ] || [ ${#changed[@]} -gt 0 ] || ! runs; then start_k3s; fi
  deadline=$((SECONDS + ready_within))
  if [ -n "$alone" ]; then deadline=$SECONDS; fi
  if ! has_saved "$values" && { is_there "$values" || is_there "$retry"; }; then
    why=". Traefik's settings in $manifests stay as they are, because the release of the lab that began this change did not save them$why"
  fi
  if wait_until_up; then
    forget_saved
    die "the change failed, and K3s runs as before$why"
  fi
  die "the change failed; the previous installation is restored, and its node is not Ready yet$why"
}

# The wanted state of this machine for the playbook, as YAML.
plan() {
  (umask 077 && join_text "$token_file" >$run/join)
  answer() { if "${@:2}"; then echo "$1: true"; else echo "$1: false"; fi; }
  block() { printf '%s: |-\n  %s\n' "$1" "${2//$'\n'/$'\n  '}"; }
  echo "phase: $phase"
  echo "run: '$(cat $run/run 2>/dev/null || true)'"
  answer is_joined joins_by "$token_file"
  answer has_secret test -s "$secret_file"
  answer is_offline test -e "$assets/offline"
  answer is_carried test -n "$own"
  answer is_virtio is_virtio
  answer must_start must_start
  echo "service: $service"
  echo "files: '$(fingerprint)'"
  echo "wish: '$wish'"
  block arguments "$arguments"
  block config "$(config_text)"
}

note() {
  printf 'node %s\nwanted %s\nfiles %s\n' "$NODE_NAME" "$1" "$(fingerprint)" >$notes/installed.new
  mv $notes/installed.new $notes/installed
  version_of /usr/local/bin/k3s >$notes/version
}

# Removes what only an earlier release needs, and imported archives, which K3s would import at every start.
tidy() {
  local folder
  forget_saved
  if [ -e "$assets/bundle" ]; then
    rm -f $data/agent/images/k3s-lab-*
    cp "$assets/bundle" $data/agent/k3s-lab-imported
  fi
  for folder in /opt/k3s-lab/k3s-*; do
    if [ -d "$folder" ] && [ "$folder" != "$assets" ]; then rm -rf "$folder"; fi
  done
}

placed() {
  {
    readlink /usr/local/bin/k3s || true
    cat $unit.d/k3s-lab.conf $manifests/k3s-lab-*.yaml || true
  } 2>/dev/null | sha256sum
}

# The steps that follow `begin`.
later_step() {
  local there
  own=$(version_of "$assets/k3s")
  is_first=false
  if [ -e $installing ]; then is_first=true; fi
  started=$(cat $run/started 2>/dev/null || true)
  case "$step" in
  place)
    there=$(placed)
    place
    if [ "$there" != "$(placed)" ]; then echo changed >&3; fi
    ;;
  # It keeps the lock, so that a later run can end it: it may still be downloading when the connection has broken.
  installer) run_k3s_installer </dev/null ;;
  # One that does not run has to be started, whatever its files are.
  files) if runs; then fingerprint >&3; fi ;;
  stop)
    step_down
    make_way
    echo "$started" >$run/started
    ;;
  wait)
    deadline=$((SECONDS + ready_within))
    wait_until_up
    ;;
  recover)
    if [ -d $before ]; then roll_back; fi
    if $is_first && [ "$detail" != last ]; then
      remove_failed
    else
      explain
      die "K3s did not come up, and what is there is kept$why"
    fi
    ;;
  finish)
    if [ "$mode" = start ]; then exit; fi
    rm -f $installing
    note "$detail"
    tidy
    ;;
  *) die "unknown step '$step'" 2 ;;
  esac
  exit
}

cd / # cp --parents fails elsewhere
find_assets
if [ "$mode" = observe ]; then
  observe
  exit
fi
case "$mode" in install | start | check) ;; *) die "unknown mode '$mode'" 2 ;; esac

# `start` prints only the cluster's id, and a step only its answer.
exec 3>&1
if [ "$mode" = start ] || [ -n "$step" ]; then exec >&2; fi

install -d -m 0700 $notes
# Each step is a process of its own. A run that was taken over must not roll back what the other one does: its own `recover` too
# is refused.
case "$mode,$step" in
check,begin) ;;
*, | *,begin) take_over && rm -f $run/run ;;
*)
  [ "${RUN:-}" = "$(cat $run/run 2>/dev/null)" ] || die "another run has begun on this machine since: this one changes nothing more"
  take_over
  ;;
esac
# Delete what was sent for this run, however it ends; after a successful check an installation follows.
remove_sent() {
  case "$?,$mode,$step" in
  0,check, | 0,*,begin | 0,*,recover | *,place | *,installer | *,files | *,stop | *,wait) ;;
  *) rm -f "$token_file" "$secret_file" $run/join ${INSTALLER:+"$INSTALLER"} ;;
  esac
}
trap remove_sent EXIT

slower=$(slowness)
ready_within=$((180 * slower)) # seconds
case "$step" in
'') ;;
begin)
  if [ "$mode" != check ]; then
    rm -f $run/started $run/why
    echo "$$-$EPOCHREALTIME" >$run/run
  fi
  ;;
*) later_step ;;
esac
point=$(unmounted)
[ -z "$point" ] || die "${point%%$'\n'*}, which /etc/fstab or a mount unit names, is not mounted, and K3s's data may be on it: nothing was touched. Mount it, or remove it there" 2
find_interface
refuse_other_cluster
refuse_load_balancer
[ -f "$installer" ] || die "K3s's installer is missing: copy its install.sh to $installer first" 2
[ -s "$token_file" ] || [ -s $token ] || die "the token is missing: copy it to $token_file first" 2
check_assets
check_version
check_cluster

is_first=false
if [ -e $installing ] || ! has_data; then is_first=true; fi
if $is_first && [ -n "${BY_HAND:-}" ]; then
  die "K3s is not installed here, or not completely, and only lab up knows whether its cluster exists elsewhere: nothing was touched. Run scripts/lab up" 2
fi
set_arguments
check_flags
check_encryption
check_room
wish=$(wanted | sha256sum | cut -c 1-32)
is_same=false
if ! $is_first && [ ! -d $before ] && [ "$(noted wanted)" = "$wish" ] && [ "$(noted files)" = "$(fingerprint)" ]; then is_same=true; fi

phase=change
if $is_first; then phase=first; elif $is_same && runs && ! is_unregistered; then phase=same; fi

# Only `install` changes what already runs: it waits for the result.
if [ "$mode" = start ] && ! $is_first; then phase=started; fi
if [ "$step" = begin ] && [[ $mode == check || $phase == started ]]; then
  plan >&3
  exit
fi
if [ "$mode" = check ]; then
  if $is_same || $is_first; then echo same && exit; fi
  await_servers # before its pods move for nothing
  echo change
  exit
fi
finish_start() {
  hash_of $ca >&3
  exit
}
if [ $phase = started ]; then finish_start; fi
rm -f $notes/leaving
if [ -n "${LAB_OWNER:-}" ]; then echo "$LAB_OWNER" >$notes/lab; fi
if [ "$step" = begin ]; then
  case "$phase,$NODE_ROLE" in
  same,agent) await_servers ;;
  first,*) begin_first ;;
  change,*) begin_change ;;
  esac
  plan >&3
  exit
fi
case "$phase" in
same)
  if [ "$NODE_ROLE" = agent ]; then await_servers; else serve_on_every_node; fi
  deadline=$((SECONDS + ready_within))
  wait_until_up || { explain; exit 1; }
  ;;
first) first_install ;;
change) change ;;
esac
if [ "$mode" = start ]; then finish_start; fi
note "$wish"
tidy
