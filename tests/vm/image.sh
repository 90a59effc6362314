#!/bin/sh
# Makes the virtual machine's disk below DIR from Debian trixie's packages, and the key to log in with:
#   disk.ext4  root file system     vmlinuz, initrd  for direct boot     key, key.pub
# Needs root and mmdebstrap; the mirror is the one that this machine uses.
set -eu
dir=$1
here=$(cd "$(dirname "$0")" && pwd)
[ -f "$dir/done-4" ] && exit 0
mkdir -p "$dir"
rm -rf "$dir/root"
trap 'rm -rf "$dir/root"' EXIT
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m 1 'debian.*/debian/*$')
packages="systemd-sysv,udev,dbus,dbus-user-session,libpam-systemd,linux-image-cloud-amd64,openssh-server,iproute2,procps"
packages="$packages,podman,conmon,crun,runc,netavark,aardvark-dns,uidmap,passt,nftables,fuse-overlayfs,catatonit,apparmor,busybox-static,kmod,containerd,python3-grpcio"
[ -f "$dir/key" ] || ssh-keygen -q -t ed25519 -N '' -C fleet-nvidia-vm -f "$dir/key"
mmdebstrap --mode=root --variant=minbase --components=main --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --aptopt='Apt::Install-Recommends "false"' \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"; echo MODULES=list > "$1/etc/initramfs-tools/conf.d/vm"; printf "virtio_pci\nvirtio_blk\next4\n" > "$1/etc/initramfs-tools/modules"' \
    --customize-hook="$here/driver/build \"\$1\"" \
    trixie "$dir/root" "$mirror"
root=$dir/root
printf '/dev/vda / ext4 rw,noatime 0 1\n' > "$root/etc/fstab"
echo fleet-vm > "$root/etc/hostname"
printf '[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n' > "$root/etc/systemd/network/80-dhcp.network"
mkdir -p "$root/root/.ssh" "$root/var/lib/systemd/linger"
chroot "$root" useradd -m -u 1000 -s /bin/bash ann
touch "$root/var/lib/systemd/linger/ann"
mkdir -p "$root/home/ann/.ssh"
cp "$dir/key.pub" "$root/root/.ssh/authorized_keys"
cp "$dir/key.pub" "$root/home/ann/.ssh/authorized_keys"
chown -R 1000:1000 "$root/home/ann"
chmod 700 "$root/root/.ssh" "$root/home/ann/.ssh"
chroot "$root" systemctl -q enable systemd-networkd ssh
# What a test machine without a network has no use for, and software emulation makes slow.
chroot "$root" systemctl -q mask systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    man-db.timer e2scrub_all.timer fstrim.timer podman-auto-update.timer systemd-timesyncd.service
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
cp "$root"/boot/vmlinuz-* "$dir/vmlinuz"
cp "$root"/boot/initrd.img-* "$dir/initrd"
rm -f "$dir/disk.ext4"
mke2fs -q -t ext4 -E root_owner=0:0 -d "$root" "$dir/disk.ext4" 32G
touch "$dir/done-4"
