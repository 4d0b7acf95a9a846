#!/bin/bash
# Installs K3s on a machine of by-hand.sh, as root; NODE_IP and INSTALL_K3S_EXEC come with the call.
set -euo pipefail

assets=/opt/k3s-lab
mkdir -p /etc/rancher/k3s
install -m 0600 ~vagrant/token /etc/rancher/k3s/token
rm ~vagrant/token
{
  echo "token-file: /etc/rancher/k3s/token"
  echo "kubelet-arg: [image-gc-high-threshold=100, image-gc-low-threshold=99]"
  if [ -e $assets/offline ]; then
    echo "nameserver ${NODE_IP%.*}.1" >/etc/rancher/k3s/resolv.conf
    echo "resolv-conf: /etc/rancher/k3s/resolv.conf"
  fi
} >/etc/rancher/k3s/config.yaml
ln -s $assets/k3s /usr/local/bin/k3s
if [[ $INSTALL_K3S_EXEC == server* ]]; then
  mkdir -p /var/lib/rancher/k3s/server/manifests
  find $assets/manifests -name '*.yaml' -exec cp {} /var/lib/rancher/k3s/server/manifests/ \;
fi
INSTALL_K3S_SKIP_DOWNLOAD=true sh $assets/install.sh
