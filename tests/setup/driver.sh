#!/bin/sh
# Unpacks the user space of NVIDIA's driver from Debian's non-free packages below DIR/root, through an apt configuration of
# its own. Nothing of it is started or installed. DIR/files lists what the packages hold.
set -eu
. "$(dirname "$0")/apt.sh"
dir=$1
[ -f "$dir/done-1" ] && exit 0
packages="libcuda1 libcudadebugger1 libnvidia-ml1 nvidia-smi libnvidia-cfg1 libnvidia-ptxjitcompiler1 libnvidia-nvvm4
libnvidia-pkcs11-openssl3 libnvidia-gpucomp libnvidia-allocator1 nvidia-opencl-icd libnvidia-encode1 libnvcuvid1
libnvidia-opticalflow1 libnvidia-fbc1 libnvidia-ngx1 libnvoptix1 libnvidia-rtcore libnvidia-eglcore libnvidia-glcore
libnvidia-glvkspirv libglx-nvidia0 libegl-nvidia0 libgles-nvidia1 libgles-nvidia2 nvidia-vdpau-driver nvidia-vulkan-icd
nvidia-vulkan-common nvidia-egl-icd nvidia-egl-common nvidia-opencl-common libnvidia-egl-gbm1 libnvidia-egl-wayland1
xserver-xorg-video-nvidia nvidia-persistenced nvidia-cuda-mps firmware-nvidia-gsp"
mkdir -p "$dir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"
apt_for "$work" trixie "non-free non-free-firmware main contrib"
export APT_CONFIG="$work/apt.conf"
apt-get update -qq >/dev/null
# Packages come and go between releases of the driver: those that this one has.
known=$(apt-cache pkgnames)
have=""
for package in $packages; do
    if echo "$known" | grep -qx "$package"; then have="$have $package"; else echo "$package: not in this release"; fi
done
# shellcheck disable=SC2086
apt-get download -qq $have >/dev/null
rm -rf "$dir/root"
mkdir -p "$dir/root"
for deb in *.deb; do dpkg-deb -x "$deb" "$dir/root"; done
(cd "$dir/root" && find . \( -type f -o -type l \) -printf '/%P\n' | sort) > "$dir/files"
touch "$dir/done-1"
