#!/bin/bash
# Installs K3s on this machine by K3s's own installer, or brings an installed one up to date. Run as root.
#
#   NODE_NAME, NODE_IP, NODE_ROLE   the node: its name, its address on the lab's network, server | agent
#   K3S_VERSION                     the release, such as v1.25.4+k3s1; empty: the one that the machine carries
#   K3S_ARGS                        further flags for `k3s server` or `k3s agent`, separated by spaces
#   SERVER_IP                       for an agent: the address of its server
#   ~vagrant/k3s-install.sh         K3s's installer, for a machine that does not carry it
#   ~vagrant/.k3s-token             the secret that joins nodes, mode 0600; moved to /etc/rancher/k3s/token
#
# Flags: https://docs.k3s.io/cli/server and https://docs.k3s.io/cli/agent
set -euo pipefail

# What the machine was made with, where nothing can be downloaded: K3s, its installer, images, manifests.
readonly carried=/opt/k3s-lab
readonly ready_within=180 # seconds

service=k3s uninstall=k3s-uninstall.sh
if [ "$NODE_ROLE" = agent ]; then service=k3s-agent uninstall=k3s-agent-uninstall.sh; fi

die() {
  echo "k3s.sh on $NODE_NAME: $*" >&2
  exit 1
}

# The lab's interface is the one that carries the address; the lab promises that it is eth1.
interface=$(ip -o -4 addr show | awk -v ip="$NODE_IP" '{ split($4, a, "/"); if (a[1] == ip) print $2 }')
[ -n "$interface" ] || die "no interface carries $NODE_IP; found: $(ip -o -4 addr show | awk '{ print $2 "=" $4 }' | xargs)"
[ "$interface" = eth1 ] || die "$NODE_IP is on $interface, not on eth1; check the network of the machine in the Vagrantfile"

installer=$carried/install.sh
[ -f $installer ] || installer=~vagrant/k3s-install.sh
[ -f "$installer" ] || die "K3s's installer is missing: copy its install.sh to $installer first"

# K3s's configuration file holds what the user did not ask for but the machine needs; the flags stay the user's own.
write_config() {
  install -d -m 0755 /etc/rancher/k3s
  if [ -f ~vagrant/.k3s-token ]; then
    install -m 0600 -o root ~vagrant/.k3s-token /etc/rancher/k3s/token
    rm -f ~vagrant/.k3s-token
  fi
  [ -s /etc/rancher/k3s/token ] || die "the token is missing: copy it to ~vagrant/.k3s-token first"
  {
    echo "token-file: /etc/rancher/k3s/token"
    if [ -d $carried/containerd ]; then
      # Images that came with the machine cannot be pulled again, so a full disk must not delete them.
      echo "kubelet-arg: [image-gc-high-threshold=100, image-gc-low-threshold=99]"
    fi
    if [ -e $carried/offline ]; then
      # Without a name server that pods can use, K3s would send their questions to a public one.
      echo "nameserver ${NODE_IP%.*}.1" >/etc/rancher/k3s/resolv.conf
      echo "resolv-conf: /etc/rancher/k3s/resolv.conf"
    fi
  } >/etc/rancher/k3s/config.yaml
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

run_installer() {
  local exec_args="$NODE_ROLE --node-ip=$NODE_IP --flannel-iface=$interface${K3S_ARGS:+ $K3S_ARGS}"
  if [ "$NODE_ROLE" = agent ]; then exec_args="$exec_args --server=https://$SERVER_IP:6443"; fi
  write_config
  place_carried
  local download=("INSTALL_K3S_VERSION=${K3S_VERSION:-}")
  if [ -x $carried/k3s ]; then download=(INSTALL_K3S_SKIP_DOWNLOAD=true); fi
  # The installer waits for the service without end, and an agent without its server is never up.
  env "${download[@]}" INSTALL_K3S_EXEC="$exec_args" timeout "$ready_within" sh "$installer"
}

# Every node may ask for itself with its kubelet's certificate. It is asked several times a second while K3s needs the
# processors: kubectl, which is all of K3s, would take them from it.
is_ready() {
  local agent=/var/lib/rancher/k3s/agent port=6443
  if [ "$NODE_ROLE" = agent ]; then port=6444; fi # its own way to the server
  curl --silent --max-time 5 --cacert $agent/server-ca.crt --cert $agent/client-kubelet.crt --key $agent/client-kubelet.key \
    "https://127.0.0.1:$port/api/v1/nodes/$NODE_NAME?pretty=false" 2>/dev/null | grep -q '"type":"Ready","status":"True"'
}

wait_until_ready() {
  local deadline=$((SECONDS + ready_within))
  until is_ready; do
    if [ $SECONDS -ge $deadline ] || ! systemctl is-active --quiet $service; then return 1; fi
    read -r -t 0.3 <> <(:) || true
  done
}

explain() {
  journalctl --no-pager --lines 30 --unit $service >&2
  echo "k3s.sh on $NODE_NAME: $service ended, or its node was not Ready after $ready_within s; its last lines are above" >&2
}

if ! { run_installer && wait_until_ready; }; then
  explain
  echo "k3s.sh on $NODE_NAME: the installation failed; removing K3s and trying once more" >&2
  if [ -x /usr/local/bin/k3s-killall.sh ]; then /usr/local/bin/k3s-killall.sh; fi
  # Uninstalling removes the token too.
  cp /etc/rancher/k3s/token ~vagrant/.k3s-token
  if [ -x /usr/local/bin/$uninstall ]; then /usr/local/bin/$uninstall; fi
  if ! { run_installer && wait_until_ready; }; then
    explain
    exit 1
  fi
fi
