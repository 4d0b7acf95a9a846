#!/bin/sh
# What a virtual machine needs in addition to ../image/setup.sh. Runs chrooted into the box while it is built.
set -eu

# Vagrant's well-known public key, for the first login; Vagrant then replaces it with a new one.
# https://github.com/hashicorp/vagrant/tree/main/keys
cat >/home/vagrant/.ssh/authorized_keys <<'KEY'
ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key
KEY
chown vagrant:vagrant /home/vagrant/.ssh/authorized_keys
chmod 0600 /home/vagrant/.ssh/authorized_keys

# eth0 is Vagrant's network; Vagrant configures eth1, the lab's. Without internet access there must still be a default route:
# K3s and kube-proxy need one (https://docs.k3s.io/installation/airgap#default-network-route).
cat >/etc/systemd/network/10-eth0.network <<'CONF'
[Match]
Name=eth0
[Network]
DHCP=ipv4
LinkLocalAddressing=no
IPv6AcceptRA=no
[DHCPv4]
ClientIdentifier=mac
[Route]
Destination=0.0.0.0/0
Metric=4242
Scope=link
CONF
systemctl enable --quiet systemd-networkd.service systemd-resolved.service
systemctl mask --quiet systemd-networkd-wait-online.service getty@tty1.service serial-getty@ttyS0.service \
  e2scrub_reap.service systemd-logind.service dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
  sys-fs-fuse-connections.mount modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service
echo '/dev/vda / ext4 rw,noatime 0 0' >/etc/fstab

# Otherwise the first boot rebuilds caches that are current: minutes on an emulated CPU (systemd-update-done.service).
touch /etc/.updated /var/.updated

# The initramfs needs little more than the disk's driver.
sed -i 's/^MODULES=.*/MODULES=list/' /etc/initramfs-tools/initramfs.conf
printf '%s\n' virtio_pci virtio_blk ext4 crc32c_generic >>/etc/initramfs-tools/modules
update-initramfs -u
