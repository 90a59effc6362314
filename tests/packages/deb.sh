#!/bin/bash
# deb.sh ROOT STATE SIMULATE: in a copy-on-write view of ROOT/tree: installs the deb, checks it, runs a GPU container by name on
# a simulated node, upgrades under a running container, and purges. Runs inside tests/isolate.
set -eu
base=$1 state=$2 simulate=$3
view=/run/view
mkdir -p $view/rw $view/root
# Writes go to memory and are gone afterwards.
mount -t tmpfs tmpfs $view/rw
mkdir $view/rw/upper $view/rw/work
mount -t overlay -o "lowerdir=$base/tree,upperdir=$view/rw/upper,workdir=$view/rw/work" overlay $view/root
root=$view/root
for dir in dev sys; do mount --rbind /$dir "$root/$dir"; done
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root/mnt/in"
cp "$state"/packages/*.deb "$root/mnt/in/this.deb"
cp "$state"/packages-next/*.deb "$root/mnt/in/next.deb"
cp "$state/images/glibc.tar" "$simulate/fleet-simulate" "$simulate/nvidia-smi" "$simulate/libnvidia_ml.so" "$root/mnt/in/"
cp "$(dirname "$0")/inside.sh" "$root/mnt/in/"
# What the test machine's kernel and limits need; the package does not know of it.
mkdir -p "$root/etc/containers"
cat > "$root/etc/containers/containers.conf" <<'C'
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
log_driver = "k8s-file"
netns = "host"
default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]
C
printf '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/run/storage"\n' > "$root/etc/containers/storage.conf"
printf '{"default":[{"type":"insecureAcceptAnything"}]}\n' > "$root/etc/containers/policy.json"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 FLEET_TEST_CGROUP="$FLEET_TEST_CGROUP" \
    unshare --mount sh -c "cd $root && mkdir -p mnt/old && pivot_root . mnt/old && umount -l /mnt/old && rmdir /mnt/old && exec bash /mnt/in/inside.sh"
