#!/bin/sh
# Builds the box of libvirt's machines without a loop device or Docker: a Debian with K3s and its images in it. Run as
# root, in a mount namespace of its own (unshare --mount): what it mounts goes with it.
#   build.sh WORK    a folder with files/, which lies above Debian's files, and images/, archives of images for K3s;
#                    WORK/machine.box is made there
#     SUITE, PACKAGES    Debian's release and packages, separated by commas
#     SIZE               of the disk, such as 8G; UUID, of its file system
#     SOURCE_DATE_EPOCH  every file's time, in seconds
#     NODE               Node.js, which rewrites containerd's databases
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$1
root=$work/root
say() { echo "== $1"; }

say "making a Debian $SUITE"
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
# What differs from one making to the next: logs, caches, ids; databases; times; the order of files in a folder.
rm -rf "$root"/var/log/* "$root"/var/cache/ldconfig/aux-cache "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* \
  "$root/var/lib/dbus/machine-id" "$root/etc/hostname" "$root/etc/resolv.conf"
ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
store=$root/opt/k3s-lab/containerd
"$NODE" --disable-warning=ExperimentalWarning "$here/../../scripts/host/bolt.ts" "$SOURCE_DATE_EPOCH" \
  "$store/io.containerd.metadata.v1.bolt/meta.db" "$store/io.containerd.snapshotter.v1.overlayfs/metadata.db"
find "$root" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
# A tmpfs lists files as they were made, and mke2fs takes them as they are listed.
mkdir "$work/sorted"
mount -t tmpfs -o size=90% tmpfs "$work/sorted"
tar --create --sort=name --xattrs --xattrs-include='*' --directory "$root" . |
  tar --extract --xattrs --xattrs-include='*' --preserve-permissions --numeric-owner --directory "$work/sorted"
rm -rf "$root"
root=$work/sorted
box=$work/box
mkdir "$box"
cp "$root"/boot/vmlinuz-* "$box/vmlinuz"
cp "$root"/boot/initrd.img-* "$box/initrd"
truncate --size "$SIZE" "$work/disk"
# Copies of the first block would hold the time of making, and only the first itself can be given another.
mke2fs -q -t ext4 -m 0 -U "$UUID" -O sparse_super2,^resize_inode \
  -E "hash_seed=$UUID,lazy_itable_init=1,num_backup_sb=0" -d "$root" "$work/disk"
umount "$root"
# mke2fs writes its own time, and when this computer changed a file, into the file system.
{
  dumpe2fs "$work/disk" 2>/dev/null | "$here/inodes.sh" | while read -r inode; do
    for time in atime ctime mtime crtime; do echo "set_inode_field <$inode> $time @$SOURCE_DATE_EPOCH"; done
    for time in atime_extra ctime_extra mtime_extra crtime_extra; do echo "set_inode_field <$inode> $time 0"; done
  done
  for time in mkfs_time wtime lastcheck; do echo "set_super_value $time @$SOURCE_DATE_EPOCH"; done
} >"$work/times"
E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH debugfs -w -f "$work/times" "$work/disk" >/dev/null

say "packing the box"
qemu-img convert -c -o compression_type=zstd -O qcow2 "$work/disk" "$box/box.img"
rm "$work/disk"
cp "$here/Vagrantfile" "$box/"
printf '{"provider":"libvirt","format":"qcow2","virtual_size":%s}\n' "${SIZE%G}" >"$box/metadata.json"
tar --create --file "$work/machine.box" --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mode=0644 \
  --mtime="@$SOURCE_DATE_EPOCH" --directory "$box" Vagrantfile box.img initrd metadata.json vmlinuz
