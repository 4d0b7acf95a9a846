#!/bin/bash
# Removes K3s from this machine by K3s's own scripts, and what the lab brought for it. Run as root; does nothing where
# K3s is not installed.
set -euo pipefail
for script in k3s-agent-uninstall.sh k3s-uninstall.sh; do
  if [ -x /usr/local/bin/$script ]; then /usr/local/bin/$script; fi
done
# What K3s's scripts leave: the node's password, the lab's own file beside it, and folders where they are empty.
rm -rf /run/k3s-lab /etc/rancher/node /etc/systemd/network/10-k3s-lab-flannel.link
rmdir /etc/rancher /var/lib/rancher 2>/dev/null || true
rmdir --parents /usr/libexec/kubernetes/kubelet-plugins/volume/exec 2>/dev/null || true
# A machine that was made with K3s keeps it; what was sent, even in part, goes.
if [ -d /opt/k3s-lab ] && [ ! -d /opt/k3s-lab/containerd ]; then
  rm -rf /opt/k3s-lab /etc/systemd/system/k3s.service.d/k3s-lab.conf /etc/systemd/system/k3s-agent.service.d/k3s-lab.conf
  rmdir /etc/systemd/system/k3s.service.d /etc/systemd/system/k3s-agent.service.d 2>/dev/null || true
fi
# K3s's scripts remove its unit after systemd has read its units anew.
systemctl daemon-reload
