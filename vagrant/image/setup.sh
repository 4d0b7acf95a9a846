#!/bin/sh
# Turns a minimal Debian with systemd into a machine with user vagrant and SSH by key. Containers also run container.sh,
# virtual machines ../box/vm.sh.
set -eu

useradd --create-home --shell /bin/bash vagrant
# "*" and not "!": sshd refuses a locked account even with a key.
usermod --password '*' vagrant
install -d -o vagrant -g vagrant -m 0700 /home/vagrant/.ssh
echo 'vagrant ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/vagrant
chmod 0440 /etc/sudoers.d/vagrant

cat >/etc/ssh/sshd_config.d/lab.conf <<'CONF'
PasswordAuthentication no
UseDNS no
CONF

# Each machine generates its own host keys and machine-id at first boot.
rm -f /etc/ssh/ssh_host_*
: >/etc/machine-id
mkdir -p /etc/systemd/system/ssh.service.d
cat >/etc/systemd/system/ssh.service.d/host-keys.conf <<'CONF'
[Service]
ExecStartPre=
ExecStartPre=/bin/sh -c 'test -s /etc/ssh/ssh_host_ed25519_key || ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key'
ExecStartPre=/usr/sbin/sshd -t
CONF
echo 'HostKey /etc/ssh/ssh_host_ed25519_key' >>/etc/ssh/sshd_config.d/lab.conf

mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=32M\n' >/etc/systemd/journald.conf.d/lab.conf

# K3s starts its own containerd and the lab its own HAProxy; the timers would only use CPU.
systemctl mask --quiet \
  containerd.service haproxy.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
  systemd-tmpfiles-clean.timer
systemctl enable --quiet ssh.service
systemctl set-default --quiet multi-user.target
