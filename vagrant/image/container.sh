#!/bin/sh
# Masks units that are useless in a container.
set -eu
systemctl mask --quiet \
  getty.target console-getty.service systemd-logind.service systemd-udevd.service \
  systemd-udev-trigger.service systemd-timesyncd.service systemd-networkd.service systemd-resolved.service \
  systemd-modules-load.service systemd-sysctl.service dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
  sys-kernel-config.mount sys-fs-fuse-connections.mount

# The public key that logs in as Vagrant's user comes from the container's environment, so that it does not depend on who owns
# the key file on the host or where that file is now.
cat >/usr/local/sbin/k3s-lab-ssh-key <<'SCRIPT'
#!/bin/sh
key=$(tr '\0' '\n' </proc/1/environ | sed -n 's/^K3S_LAB_SSH_KEY=//p')
if [ -z "$key" ]; then exit; fi
printf '%s\n' "$key" >/home/vagrant/.ssh/authorized_keys
chown vagrant:vagrant /home/vagrant/.ssh/authorized_keys
chmod 0600 /home/vagrant/.ssh/authorized_keys
SCRIPT
chmod 0755 /usr/local/sbin/k3s-lab-ssh-key
printf '[Service]\nExecStartPre=/usr/local/sbin/k3s-lab-ssh-key\n' >/etc/systemd/system/ssh.service.d/k3s-lab-ssh-key.conf
