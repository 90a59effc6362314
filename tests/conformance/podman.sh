# shellcheck shell=bash
# Sourced by case.sh: a Podman of its own with $RUNTIME, and the image that the suite expects, made of this machine's
# busybox. Storage is kept in $dir, since making the image for each case would cost more than the case.
mkdir -p /run/podman-conf
# Podman warns about networks of an older backend, and the suite reads all that it says.
rm -rf /etc/cni/net.d
name=${RUNTIME##*/}
cat > /run/podman-conf/storage.conf <<C
[storage]
driver = "vfs"
runroot = "/run/podman-run"
graphroot = "$dir/podman-storage"
C
cat > /run/podman-conf/containers.conf <<C
[containers]
log_driver = "k8s-file"
netns = "host"
default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]
[network]
network_backend = "netavark"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "$name"
runtime_supports_json = ["crun", "runc", "$name"]
[engine.runtimes]
$name = ["$RUNTIME"]
C
export CONTAINERS_CONF=/run/podman-conf/containers.conf CONTAINERS_STORAGE_CONF=/run/podman-conf/storage.conf PODMAN=podman
image=$(cd "$dir/podman/test/system" && bash -c '. ./helpers.bash; echo "$PODMAN_TEST_IMAGE_FQN"')
if ! podman image exists "$image"; then
    root=$(mktemp -d)
    tar -C "$root" -xJf "$dir"/runc/tests/integration/testdata/busybox-*.tar.xz
    mkdir -p "$root/home/podman"
    echo "${image##*:}" > "$root/home/podman/testimage-id"
    touch --date=@1600000000 "$root/home/podman/testimage-id"
    printf '#!/bin/sh\necho Confirmed: testimage pause invoked as $0\nwhile :; do sleep 0.1; done\n' > "$root/home/podman/pause"
    chmod 755 "$root/home/podman/pause"
    tar -C "$root" -c . | podman import -q --change 'WORKDIR /home/podman' \
        --change 'CMD ["/bin/echo", "This container is intended for podman CI testing"]' - "$image" > /dev/null
    rm -rf "$root"
fi
