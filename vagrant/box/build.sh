#!/bin/sh
# Builds the box for libvirt, a Debian with K3s and its images, without Docker or a loop device. Run it as root in its own
# mount namespace (unshare --mount), so that its mounts end with it.
#   build.sh WORK    a folder with files/, which are copied over Debian's, and images/, the image archives for K3s;
#                    creates WORK/machine.box
#     SUITE, PACKAGES    Debian's release; its packages, separated by commas
#     SIZE               size of the disk, such as 8G
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$1
root=$work/root
say() { echo "== $1"; }

say "installing Debian $SUITE"
# mmdebstrap sends SIGHUP to its whole process group when it fails.
setsid --wait mmdebstrap --quiet --variant=minbase --include="$PACKAGES" "$SUITE" "$root"

say "setting up the machine"
cp -r "$work/files/." "$root/"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
cp "$here/../image/setup.sh" "$here/../image/fill.sh" "$here/vm.sh" "$root/tmp/"
chroot "$root" sh /tmp/setup.sh
chroot "$root" sh /tmp/vm.sh

say "unpacking the images for K3s"
mkdir "$root/images" "$root/fill"
mount --bind "$work/images" "$root/images"
# In its own PID namespace, so that everything containerd starts ends with it.
unshare --pid --fork --kill-child --net chroot "$root" sh /tmp/fill.sh
umount "$root/images" "$root/tmp" "$root/run" "$root/proc"
rm -rf "$root/images" "$root/fill"

say "creating the disk"
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
