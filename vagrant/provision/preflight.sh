#!/bin/bash
# Checks a host before anything is done to it, as a user who may use sudo; changes nothing. Prints its identity, and its
# node if it already is one of the lab's cluster: k3s-lab machine=MACHINE-ID node=NAME
#   NODE_IP          the node's address
#   NODE_INTERFACE   the interface that must carry it; empty: any
#   PROGRAMS         further programs that it needs, separated by spaces; empty: none
#   CLUSTER_ID       SHA-256 of the token of the lab's cluster, whose K3s may already be here
set -euo pipefail

refuse() {
  echo "preflight.sh: $*" >&2
  exit 1
}

[ "$(uname -s)" = Linux ] || refuse "it runs $(uname -s), and K3s runs on Linux"
case "$(uname -m)" in
x86_64 | aarch64) ;;
*) refuse "its processor is $(uname -m), and K3s is available here only for x86_64 and aarch64" ;;
esac
[ -d /run/systemd/system ] || refuse "it does not run systemd, which starts K3s"
missing=
for program in curl tar ip ${PROGRAMS:-}; do
  if ! command -v "$program" >/dev/null; then missing="$missing $program"; fi
done
[ -z "$missing" ] || refuse "these programs are missing there; install them:$missing"

sudo -n true 2>/dev/null ||
  refuse "$(id -un) may not use sudo without a password; allow it there: echo '$(id -un) ALL=(ALL) NOPASSWD:ALL' | sudo tee /etc/sudoers.d/$(id -un)"

interface=$(ip -o -4 addr show | awk -v ip="$NODE_IP" '{ split($4, a, "/"); if (a[1] == ip) print $2 }')
[ -n "$interface" ] || refuse "no interface carries $NODE_IP; it has: $(ip -o -4 addr show | awk '{ print $2 "=" $4 }' | xargs)"
[ "${NODE_INTERFACE:-$interface}" = "$interface" ] || refuse "$NODE_IP is on $interface, not on $NODE_INTERFACE; set the machine's \`interface\` or \`ip\` in the stack file"

# Raspberry Pi OS boots without it.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  grep -qw memory /sys/fs/cgroup/cgroup.controllers ||
    refuse "its kernel does not account memory per container; add cgroup_memory=1 cgroup_enable=memory to the kernel's command line and reboot"
fi

# An interrupted change may have restored only a part of what it saved.
found=$({ sudo -n cat /etc/rancher/k3s/token 2>/dev/null || sudo -n cat /var/lib/k3s-lab/before/etc/rancher/k3s/token 2>/dev/null || true; } | sha256sum)
if [ -e /usr/local/bin/k3s ] && [ "${found%% *}" != "$CLUSTER_ID" ]; then
  refuse "K3s of another cluster is installed there; remove it first, through its lab or with k3s-uninstall.sh, or choose another host"
fi

# K3s would not start beside another kubelet, and its uninstaller would remove that one's data; as in k3s.sh.
if [ ! -e /usr/local/bin/k3s ] && ! sudo -n test -e /var/lib/k3s-lab; then
  kept=$(sudo -n find /var/lib/kubelet -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit 2>/dev/null || true)
  if [ -n "$kept" ] || curl --disable --noproxy '*' --silent --insecure --max-time 2 --output /dev/null https://127.0.0.1:10250/healthz; then
    refuse "the kubelet of another Kubernetes runs there, or its data is in /var/lib/kubelet; remove that one first, or choose another host"
  fi
fi

# K3s names a node after its machine unless a flag says otherwise. Without a unit nothing was installed.
unit=$(cat /etc/systemd/system/k3s.service /etc/systemd/system/k3s-agent.service 2>/dev/null || true)
node=
if [ -n "$unit" ]; then
  node=$(sed -n "s/.*--node-name=\([^' ]*\).*/\1/p" <<<"$unit" | head -n 1)
  node=${node:-$(uname -n | tr '[:upper:]' '[:lower:]')}
fi
echo "k3s-lab machine=$(cat /etc/machine-id) node=$node"
