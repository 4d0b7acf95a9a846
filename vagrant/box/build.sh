#!/bin/sh
# Builds the box of libvirt's machines without a loop device or Docker: a Debian with K3s and its images in it. Run as
# root, in a mount namespace of its own (unshare --mount): what it mounts goes with it.
#   build.sh WORK    a folder with files/, which lies above Debian's files, and images/, archives of images for K3s;
#                    WORK/machine.box is made there
#     SUITE, PACKAGES    Debian's release and packages, separated by commas
#     SIZE               of the disk, such as 8G
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$1
root=$work/root
say() { echo "== $1"; }

say "building a Debian $SUITE"
# mmdebstrap sends SIGHUP to its whole process group when it fails.
setsid --wait mmdebstrap --quiet --variant=minbase --include="$PACKAGES" "$SUITE" "$root"

say "setting it up as a machine"
cp -r "$work/files/." "$root/"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
cp "$here/../image/setup.sh" "$here/../image/fill.sh" "$here/vm.sh" "$root/tmp/"
chroot "$root" sh /tmp/setup.sh
chroot "$root" sh /tmp/vm.sh

say "unpacking K3s's images into it"
mkdir "$root/images" "$root/fill"
mount --bind "$work/images" "$root/images"
# In namespaces of its own, so that whatever containerd starts ends with it.
unshare --pid --fork --kill-child --net chroot "$root" sh /tmp/fill.sh
umount "$root/images" "$root/tmp" "$root/run" "$root/proc"
rm -rf "$root/images" "$root/fill"

say "making the disk"
rm -rf "$root"/var/log/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* \
  "$root/var/lib/dbus/machine-id" "$root/etc/hostname" "$root/etc/resolv.conf"
ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
box=$work/box
mkdir "$box"
cp "$root"/boot/vmlinuz-* "$box/vmlinuz"
cp "$root"/boot/initrd.img-* "$box/initrd"
truncate --size "$SIZE" "$work/disk"
mke2fs -q -t ext4 -m 0 -E lazy_itable_init=1 -d "$root" "$work/disk"

say "packing the box"
qemu-img convert -c -o compression_type=zstd -O qcow2 "$work/disk" "$box/box.img"
rm "$work/disk"
cp "$here/Vagrantfile" "$box/"
printf '{"provider":"libvirt","format":"qcow2","virtual_size":%s}\n' "${SIZE%G}" >"$box/metadata.json"
tar --create --file "$work/machine.box" --owner=0 --group=0 --numeric-owner --mode=0644 --directory "$box" \
  Vagrantfile box.img initrd metadata.json vmlinuz
