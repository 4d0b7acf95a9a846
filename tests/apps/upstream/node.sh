#!/bin/sh
# Makes this machine a cluster of one node, as a person does it: images, `kubeadm init`. Run by node.service.
set -eu
mounted=$(dirname "$0")

ctr --namespace k8s.io images import "$mounted/images.tar"
echo 1 >/proc/sys/net/ipv4/ip_forward
# Pods ask the cluster's own name server; behind it there is nobody, and least of all itself.
echo "nameserver $(ip -4 route show default | awk '{ print $3; exit }')" >/etc/kubernetes-resolv.conf
# Who asks for a Service before kube-proxy knows it shall ask again at once, not wait for an answer that never comes.
iptables -A FORWARD -d 10.96.0.0/16 -j REJECT

# This kernel's configuration cannot be read from inside a container.
kubeadm init --config "$mounted/kubeadm.yaml" --ignore-preflight-errors SystemVerification
