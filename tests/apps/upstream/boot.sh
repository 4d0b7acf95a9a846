#!/bin/sh
# What the container of an upstream node starts with: lays out what a bare Debian lacks and becomes systemd, which then
# runs node.sh. Mounted beside this file:
#   kubernetes      upstream Kubernetes and etcd in one program
#   runc            what stands before runc where the host needs it; may be missing
#   images.tar      the images of the cluster
#   node.sh, kubeadm.yaml
set -eu
mounted=$(dirname "$0")

for part in etcd kubeadm kubectl kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do
  ln -sf "$mounted/kubernetes" "/usr/local/bin/$part"
done

# A container has no use for these.
for unit in getty.target console-getty.service ssh.service systemd-logind.service systemd-udevd.service \
  systemd-udev-trigger.service systemd-timesyncd.service systemd-networkd.service systemd-resolved.service \
  systemd-modules-load.service systemd-sysctl.service dev-hugepages.mount sys-kernel-debug.mount \
  sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount; do
  ln -sf /dev/null "/etc/systemd/system/$unit"
done
: >/etc/machine-id

mkdir -p /etc/containerd /etc/cni/net.d /etc/systemd/system/multi-user.target.wants
cat >/etc/containerd/config.toml <<CONF
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/k3s-lab/pause:$KUBERNETES_VERSION"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
CONF
# One node: each pod has a cable of its own to it, and needs no bridge.
cat >/etc/cni/net.d/10-pods.conflist <<'CONF'
{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {"type": "ptp", "ipMasq": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
CONF

cat >/etc/systemd/system/containerd.service <<CONF
[Service]
Type=notify
Environment=PATH=$mounted:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/usr/bin/containerd
Delegate=yes
KillMode=process
Restart=always
CONF
# The flags are kubeadm's own, which it writes before it starts this unit.
cat >/etc/systemd/system/kubelet.service <<'CONF'
[Unit]
Requires=containerd.service
After=containerd.service
[Service]
EnvironmentFile=/var/lib/kubelet/kubeadm-flags.env
ExecStart=/usr/local/bin/kubelet --kubeconfig=/etc/kubernetes/kubelet.conf --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS
Restart=always
RestartSec=1
CONF
cat >/etc/systemd/system/node.service <<CONF
[Unit]
Requires=containerd.service
After=containerd.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=$mounted/node.sh
CONF
ln -sf ../node.service /etc/systemd/system/multi-user.target.wants/node.service

exec /lib/systemd/systemd
