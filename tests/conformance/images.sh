#!/bin/bash
# Root file systems that stand in for the images which runc's tests download: busybox and Debian, by the names that its
# helper looks for.
#   DIR   working directory
#   INTO  where the archives go
set -eu
dir=$1 into=$2 arch=$(go env GOARCH)
root=$dir/image-root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,etc,home,root,tmp,usr/bin,usr/sbin,var/tmp}
chmod 1777 "$root/tmp" "$root/var/tmp"
chmod 700 "$root/root"
cp /bin/busybox "$root/bin/busybox"
for applet in $(/bin/busybox --list); do [ -e "$root/bin/$applet" ] || ln "$root/bin/busybox" "$root/bin/$applet"; done
printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' > "$root/etc/passwd"
printf 'root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n' > "$root/etc/group"
printf 'root:*:::::::\n' > "$root/etc/shadow"
tar -C "$root" -cJf "$into/busybox-$arch.tar.xz" .

# The Debian one needs a C library, a shell and the usual programs, all of this machine's release.
packages="base-files base-passwd bash coreutils dash grep sed libc6 libc-bin libgcc-s1 libtinfo6 libselinux1 libpcre2-8-0 libacl1 libattr1 libgmp10 libcap2 libcap2-bin mount util-linux util-linux-extra libmount1 libblkid1 libsmartcols1 libudev1 libuuid1 procps libproc2-0 libsystemd0 findutils hostname login libcrypt1 libpam0g libaudit1 libcap-ng0"
rm -rf "$root" && mkdir -p "$root" "$dir/debs"
# shellcheck disable=SC2086
(cd "$dir/debs" && apt-get download -qq $packages >/dev/null)
for deb in "$dir"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
[ -e "$root/bin/sh" ] || ln -s dash "$root/bin/sh"
mkdir -p "$root/dev" "$root/proc" "$root/sys" "$root/tmp" && chmod 1777 "$root/tmp"
/sbin/ldconfig -r "$root"
tar -C "$root" -cJf "$into/debian-$arch.tar.xz" .
rm -rf "$root" "$dir/debs"
