#!/bin/bash
# Installs K3s on this machine by K3s's own installer, or brings an installed one up to date. Run as root.
#
#   NODE_NAME, NODE_IP, NODE_ROLE   the node: its name, its address in the lab, server | agent
#   NODE_INTERFACE                  the interface that must carry the address; empty: eth1, or where there is none any
#   K3S_VERSION                     the release, such as v1.25.4+k3s1; empty: the one that the machine carries
#   K3S_ARGS                        further flags for `k3s server` or `k3s agent`, separated by spaces
#   SERVERS                         all servers, NAME=ADDRESS separated by spaces; several keep the cluster in etcd
#   TOKEN_FILE                      the secret that joins nodes, moved to /etc/rancher/k3s/token. Default: /run/k3s-lab/token
#   /opt/k3s-lab                    what the machine carries of K3s; without it /home/vagrant/k3s-install.sh is run
#
# Flags: https://docs.k3s.io/cli/server and https://docs.k3s.io/cli/agent
set -euo pipefail

# What the machine was made with, or was sent: K3s, its installer, images, manifests.
readonly carried=/opt/k3s-lab
readonly token_file=${TOKEN_FILE:-/run/k3s-lab/token}
readonly token=/etc/rancher/k3s/token

service=k3s uninstall=k3s-uninstall.sh
if [ "$NODE_ROLE" = agent ]; then service=k3s-agent uninstall=k3s-agent-uninstall.sh; fi

die() {
  echo "k3s.sh on $NODE_NAME: $*" >&2
  exit 1
}

# pause SECONDS: without a process, for a poll must not take the processor from what it waits for.
pause() { read -r -t "$1" <> <(:) || true; }

# A slow machine gets more time: the same work is timed everywhere, and takes 0.1 s on a usual computer.
slowness() {
  local began=${EPOCHREALTIME/./} i
  for ((i = 0; i < 40000; i++)); do :; done
  local took=$((${EPOCHREALTIME/./} - began))
  echo $((took < 100000 ? 1 : (took + 99999) / 100000))
}
slower=$(slowness)
ready_within=$((180 * slower)) # seconds

find_interface() {
  local wanted=${NODE_INTERFACE:-}
  interface=$(ip -o -4 addr show | awk -v ip="$NODE_IP" '{ split($4, a, "/"); if (a[1] == ip) print $2 }')
  [ -n "$interface" ] || die "no interface carries $NODE_IP; found: $(ip -o -4 addr show | awk '{ print $2 "=" $4 }' | xargs)"
  # The lab promises eth1; a machine that has none, with names such as enp0s8 or ens4, goes by the address.
  if [ -z "$wanted" ] && ip -o link show eth1 >/dev/null 2>&1; then wanted=eth1; fi
  [ "${wanted:-$interface}" = "$interface" ] ||
    die "$NODE_IP is on $interface, not on $wanted; mend the machine's network, or set the machine's \`interface\` in the stack file to $interface"
}

# K3s of another cluster is not the lab's to change.
refuse_foreign() {
  if [ ! -e /usr/local/bin/k3s ] || { [ -s $token ] && { [ ! -s "$token_file" ] || cmp -s $token "$token_file"; }; }; then
    return
  fi
  die "K3s of another cluster is installed here; take it away first, by its lab or by k3s-uninstall.sh"
}

installer=$carried/install.sh
[ -f $installer ] || installer=/home/vagrant/k3s-install.sh

# K3s's configuration file holds what the user did not ask for but the machine needs; the flags stay the user's own.
write_config() {
  install -d -m 0755 /etc/rancher/k3s
  if [ -s "$token_file" ]; then
    install -m 0600 -o root "$token_file" $token
    rm -f "$token_file"
  fi
  {
    echo "token-file: $token"
    if [ -d $carried/containerd ] || [ -d $carried/images ]; then
      # Images that were brought here cannot be pulled again, so a full disk must not delete them.
      echo "kubelet-arg: [image-gc-high-threshold=100, image-gc-low-threshold=99]"
    fi
    if [ "$NODE_ROLE" = server ] && [ "$slower" -gt 1 ]; then
      # To put the API's whole description together, which Pulumi asks for, takes a slow machine longer than the usual 60 s.
      echo "kube-apiserver-arg: [request-timeout=$((60 * slower))s]"
    fi
    if [ -e $carried/offline ]; then
      # Without a name server that pods can use, K3s would send their questions to a public one.
      echo "nameserver ${NODE_IP%.*}.1" >/etc/rancher/k3s/resolv.conf
      echo "resolv-conf: /etc/rancher/k3s/resolv.conf"
    fi
  } >/etc/rancher/k3s/config.yaml
}

# What kube-proxy passes on from a virtual network interface into flannel's VXLAN leaves with a wrong outer checksum, and
# the other node drops it. Computed before it gets there it is right; udev sees to that whenever flannel makes its device.
write_link() {
  case $(readlink "/sys/class/net/$interface/device/driver") in
  */virtio_net) printf '[Match]\nOriginalName=flannel.1\n[Link]\nTransmitChecksumOffload=no\n' >/etc/systemd/network/10-k3s-lab-flannel.link ;;
  esac
}

# Links, for uninstalling removes K3s from its places and the retry needs it again.
place_carried() {
  [ -x $carried/k3s ] || return 0
  local own
  own=$($carried/k3s --version | awk 'NR == 1 { print $3 }')
  if [ -n "${K3S_VERSION:-}" ] && [ "$own" != "$K3S_VERSION" ]; then
    die "K3s $K3S_VERSION was asked for and this machine carries $own, and can download no other; set k3s.version to $own"
  fi
  ln -sf $carried/k3s /usr/local/bin/k3s
  $carried/place.sh "$NODE_ROLE"
}

# is_serving ADDRESS: whether a server there takes nodes in. The token proves who asks; it is given in no argument.
is_serving() {
  printf 'user = "node:%s"\n' "$(cat $token)" |
    curl --config - --silent --fail --insecure --max-time 3 --output /dev/null "https://$1:6443/v1-k3s/readyz"
}

# What joins this node to the others: flags for K3s.
join_flags() {
  local -a others=()
  local server first=${SERVERS%% *}
  for server in $SERVERS; do
    if [ "${server%%=*}" != "$NODE_NAME" ]; then others+=("${server#*=}"); fi
  done
  if [ "$NODE_ROLE" = server ] && [ ${#others[@]} = 0 ]; then return; fi
  # A server that has its part of the cluster's data keeps to it. One that lost it must not start a second cluster.
  local is_new=true serving='' ip
  local data=/var/lib/rancher/k3s/server/db
  if [ -e $data/state.db ] || [ -d $data/etcd/member ]; then is_new=false; fi
  for ip in "${others[@]}"; do
    if [ -z "$serving" ] && is_serving "$ip"; then serving=$ip; fi
  done
  if [ "$NODE_ROLE" = server ] && [ "${first%%=*}" = "$NODE_NAME" ] && { [ $is_new = false ] || [ -z "$serving" ]; }; then
    echo "--cluster-init"
  else
    echo "--server=https://${serving:-${others[0]}}:6443"
  fi
}

# What K3s runs from: nothing of it changed means nothing is to be started again.
installed_state() {
  cat /etc/systemd/system/$service.service /etc/systemd/system/$service.service.env /etc/rancher/k3s/config.yaml 2>/dev/null
  stat --dereference --format '%s %Y' /usr/local/bin/k3s 2>/dev/null
}

run_installer() {
  local exec_args before flags
  before=$(installed_state || true)
  write_config
  write_link
  place_carried
  flags=$(join_flags)
  # A node is called what its machine is called, unless the stack file calls it something else.
  if [ "$(uname -n)" != "$NODE_NAME" ]; then flags="--node-name=$NODE_NAME${flags:+ $flags}"; fi
  exec_args="$NODE_ROLE --node-ip=$NODE_IP --flannel-iface=$interface${K3S_ARGS:+ $K3S_ARGS}${flags:+ $flags}"
  local download=("INSTALL_K3S_VERSION=${K3S_VERSION:-}")
  if [ -x $carried/k3s ]; then download=(INSTALL_K3S_SKIP_DOWNLOAD=true); fi
  # The installer would wait for the service without end, and an agent without its server is never up.
  env "${download[@]}" INSTALL_K3S_SKIP_START=true INSTALL_K3S_EXEC="$exec_args" sh "$installer" || return 1
  if [ "$before" != "$(installed_state)" ] || ! systemctl is-active --quiet $service; then
    # A server's unit is up when its API is, and to wait for systemd costs nothing. What comes of it is seen later.
    timeout "$ready_within" systemctl restart $service || true
  fi
}

# Every node may ask for itself with its kubelet's certificate. It is asked several times a second while K3s needs the
# processors: kubectl, which is all of K3s, would take them from it.
is_ready() {
  local agent=/var/lib/rancher/k3s/agent port=6443
  if [ "$NODE_ROLE" = agent ]; then port=6444; fi # its own way to the server
  curl --silent --max-time 5 --cacert $agent/server-ca.crt --cert $agent/client-kubelet.crt --key $agent/client-kubelet.key \
    "https://127.0.0.1:$port/api/v1/nodes/$NODE_NAME?pretty=false" 2>/dev/null | grep -q '"type":"Ready","status":"True"'
}

has_several_servers() { [ "$(echo "$SERVERS" | wc -w)" -gt 1 ]; }

# systemd starts K3s again whenever it ends. One server may join etcd at a time: those that have to wait end and come back.
wait_until_ready() {
  local ends_allowed=0 asked=${EPOCHREALTIME/./} took rest
  if has_several_servers; then ends_allowed=20; fi
  until is_ready; do
    if [ $SECONDS -ge $deadline ]; then return 1; fi
    if [ "$(systemctl show --property NRestarts --value $service)" -gt $ends_allowed ]; then return 1; fi
    # At most a tenth of the time is spent on asking.
    took=$((${EPOCHREALTIME/./} - asked))
    took=$((took < 100000 ? 300000 : took * 9))
    printf -v rest '%d.%06d' $((took / 1000000)) $((took % 1000000))
    pause "$rest"
    asked=${EPOCHREALTIME/./}
  done
}

bring_up() {
  deadline=$((SECONDS + ready_within))
  run_installer && wait_until_ready
}

explain() {
  journalctl --no-pager --lines 30 --unit $service >&2
  echo "k3s.sh on $NODE_NAME: $service ended, or its node was not Ready after $ready_within s; its last lines are above" >&2
}

find_interface
refuse_foreign
[ -f "$installer" ] || die "K3s's installer is missing: copy its install.sh to $installer first"
[ -s "$token_file" ] || [ -s $token ] || die "the token is missing: copy it to $token_file first"

if ! bring_up; then
  explain
  if [ "$NODE_ROLE" = server ] && has_several_servers; then
    # The others know it as a member of etcd, and would refuse it if it came back without its data.
    die "the installation failed, and what is there stays: the next run goes on from it"
  fi
  echo "k3s.sh on $NODE_NAME: the installation failed; removing K3s and trying once more" >&2
  if [ -x /usr/local/bin/k3s-killall.sh ]; then /usr/local/bin/k3s-killall.sh; fi
  # Uninstalling removes the token too.
  install -D -m 0600 $token "$token_file"
  if [ -x /usr/local/bin/$uninstall ]; then /usr/local/bin/$uninstall; fi
  if ! bring_up; then
    explain
    exit 1
  fi
fi
# Who waits for this machine later asks here how long.
mkdir -p /run/k3s-lab
echo "$slower" >/run/k3s-lab/slowness
# Imported once: K3s would import them at every start.
if [ -e $carried/bundle ]; then
  rm -f /var/lib/rancher/k3s/agent/images/k3s-lab-*
  cp $carried/bundle /var/lib/rancher/k3s/agent/k3s-lab-imported
fi
