#!/bin/sh
# Installs what the demo and the tests need and this machine lacks, and the packages named. Debian 12 or later, root.
set -eu
need="podman conmon crun runc containerd buildah criu busybox-static uidmap fuse-overlayfs catatonit netavark procps libseccomp-dev gcc libc6-dev pkg-config musl-tools musl iproute2 util-linux jq strace $*"
missing=""
for package in $need; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "these Debian packages are missing:$missing; hint: install them, or run this as root" >&2
        exit 1
    fi
    echo "installing:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
command -v cargo >/dev/null || { echo "cargo is missing; hint: install a Rust toolchain, 1.90 or later" >&2; exit 1; }
