#!/bin/sh
# enter COMMAND…: runs a command, as root, where this tree's entries of /proc, /sys and /dev, its programs and NVML stand
# in for the machine's. All is in a mount namespace of its own and gone with the command.
set -eu
tree=$(dirname "$(readlink -f "$0")")
if [ "${FLEET_SIM_ENTERED:-}" != "$tree" ]; then
    export FLEET_SIM_ENTERED="$tree"
    exec unshare --mount --propagation private -- "$tree/enter" "$@"
fi
[ -d /proc/driver ] || { echo "enter: this kernel has no /proc/driver to stand in for; hint: fleet-nvidia-ctl --root-dir $tree" >&2; exit 1; }
mount -t tmpfs -o mode=555 simulated /proc/driver
for name in nvidia nvidia-caps; do
    [ -d "$tree/proc/driver/$name" ] || continue
    mkdir "/proc/driver/$name"
    mount --bind "$tree/proc/driver/$name" "/proc/driver/$name"
done
for name in proc/devices proc/modules proc/sys/kernel/random/boot_id sys/bus/pci/devices; do
    if [ -e "$tree/$name" ] && [ -e "/$name" ]; then mount --bind "$tree/$name" "/$name"; fi
done
# The tree's nodes above the machine's; what is mounted in /dev stays.
below=$(mktemp -d)
mount --rbind /dev "$below"
mount -t overlay -o "lowerdir=$tree/dev:$below" simulated /dev
for name in pts shm mqueue hugepages; do
    if mountpoint -q "$below/$name"; then mount --rbind "$below/$name" "/dev/$name"; fi
done
umount -l "$below"
rmdir "$below"
PATH="$tree/usr/bin:$PATH" LD_LIBRARY_PATH="$tree/usr/lib/x86_64-linux-gnu" exec "$@"
