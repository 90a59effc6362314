#!/bin/sh
# Makes the local images below DIR, from Debian's packages, without a registry:
#   glibc.tar          glibc, its loader's cache made by its own ldconfig, busybox
#   glibc-bare.tar     the same without cache and ld.so.conf
#   musl.tar           musl's loader, busybox, and a program that dlopens the driver's libraries
#   busybox.tar        one static program
set -eu
dir=$1
[ -f "$dir/done-1" ] && exit 0
mkdir -p "$dir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
apt-get download -qq libc6 libc-bin libgcc-s1 musl >/dev/null 2>&1 || { apt-get update -qq; apt-get download -qq libc6 libc-bin libgcc-s1 musl >/dev/null; }

skeleton() {
    mkdir -p "$1/bin" "$1/etc" "$1/dev" "$1/proc" "$1/sys" "$1/tmp" "$1/run" "$1/root" "$1/var" "$1/usr/bin" "$1/home/ann"
    chmod 1777 "$1/tmp"
    cp /bin/busybox "$1/bin/busybox"
    for applet in $(/bin/busybox --list); do [ -e "$1/bin/$applet" ] || ln -s busybox "$1/bin/$applet"; done
    printf 'root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n' > "$1/etc/passwd"
    printf 'root:x:0:\nann:x:1000:\n' > "$1/etc/group"
}

skeleton busybox
tar -C busybox -cf "$dir/busybox.tar" .

skeleton glibc
for deb in libc6_*.deb libc-bin_*.deb libgcc-s1_*.deb; do dpkg-deb -x "$deb" glibc; done
touch glibc/etc/debian_version
/sbin/ldconfig -r glibc
tar -C glibc -cf "$dir/glibc.tar" .
rm -rf glibc/etc/ld.so.cache glibc/etc/ld.so.conf glibc/etc/ld.so.conf.d
tar -C glibc -cf "$dir/glibc-bare.tar" .

skeleton musl
dpkg-deb -x musl_*.deb musl
cat > open.c <<'C'
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (!dlopen(argv[i], RTLD_NOW)) { printf("%s: %s\n", argv[i], dlerror()); return 1; }
        printf("%s: ok\n", argv[i]);
    }
    return 0;
}
C
musl-gcc -o musl/bin/open open.c
tar -C musl -cf "$dir/musl.tar" .
touch "$dir/done-1"
