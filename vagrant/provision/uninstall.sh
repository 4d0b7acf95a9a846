#!/bin/bash
# Removes K3s from this machine with K3s's own scripts, and what the lab brought for it. Run as root, after common.sh. Does
# nothing if K3s is not installed, or now belongs to a node of another name, to another lab or to a user.
#   NODE_NAME   the node to remove; empty: any
#   LAB_OWNER   the lab and stack that own it, as passed to k3s.sh; empty: any
set -euo pipefail

readonly notes=/var/lib/k3s-lab # as in common.sh

installed=$(sed -n 's/^node //p' $notes/installed 2>/dev/null || true)
if [ -n "${NODE_NAME:-}" ] && [ -n "$installed" ] && [ "$installed" != "$NODE_NAME" ]; then
  echo "warning: this machine is now the node $installed: K3s stays on it"
  exit
fi
# A host may have a new owner: its K3s uninstalled by hand, and another installed. A lab's K3s has its token.
is_ours() {
  local owner
  owner=$(cat $notes/lab 2>/dev/null || true)
  if [ -z "${LAB_OWNER:-}" ]; then return; fi
  if [ -n "$owner" ] && [ "$owner" != "$LAB_OWNER" ]; then return 1; fi
  if [ ! -e /etc/systemd/system/k3s.service ] && [ ! -e /etc/systemd/system/k3s-agent.service ]; then return; fi
  [ -s /etc/rancher/k3s/token ] || [ -s $notes/before/etc/rancher/k3s/token ] || [ -e $notes/leaving ]
}
if ! is_ours; then
  echo "warning: K3s on the machine ${NODE_NAME:-} is not this lab's any more: it stays"
  exit
fi
remove_node() {
  install -d -m 0700 $notes # somebody may have removed them
  take_over
  touch $notes/leaving # interrupted, it has no token either
  remove_k3s k3s-agent-uninstall.sh k3s-uninstall.sh
  # What K3s's scripts leave: the node's password, the lab's own files, and folders if they are empty.
  rm -rf /run/k3s-lab /etc/rancher/node /etc/systemd/network/10-k3s-lab-flannel.link
  rmdir /etc/rancher /var/lib/rancher 2>/dev/null || true
  rmdir --parents /usr/libexec/kubernetes/kubelet-plugins/volume/exec 2>/dev/null || true
  local unit
  for unit in k3s k3s-agent; do
    rm -f /etc/systemd/system/$unit.service.d/k3s-lab.conf
    rmdir /etc/systemd/system/$unit.service.d 2>/dev/null || true
  done
  # K3s's scripts remove its unit only after systemd has reloaded its units.
  systemctl daemon-reload
}

# Without notes and configuration the lab has installed nothing here, and such folders are somebody else's.
if [ -d $notes ] || [ -e /etc/rancher/k3s/config.yaml.d/k3s-lab.yaml ]; then remove_node; fi
# A machine that was created with K3s keeps it; what was sent, even in part, is removed.
rm -rf /opt/k3s-lab/k3s-v* /opt/k3s-lab/.new-*
rmdir /opt/k3s-lab 2>/dev/null || true
# The notes say whose all this was: remove them last.
rm -rf $notes
