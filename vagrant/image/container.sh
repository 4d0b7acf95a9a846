#!/bin/sh
# Masks the units that a machine in a container has no use for.
set -eu
systemctl mask --quiet \
  getty.target console-getty.service systemd-logind.service systemd-udevd.service \
  systemd-udev-trigger.service systemd-timesyncd.service systemd-networkd.service systemd-resolved.service \
  systemd-modules-load.service systemd-sysctl.service dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
  sys-kernel-config.mount sys-fs-fuse-connections.mount
