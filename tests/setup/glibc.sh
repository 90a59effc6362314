#!/bin/sh
# Makes trees of several glibc versions below DIR, from Debian's packages, through an apt configuration of its own:
#   bullseye.tar (glibc 2.31, directories not merged)  bookworm.tar (2.36)  trixie.tar (2.41, /usr merged)
#   i386.tar     bookworm with the 32-bit loader beside
#   probe        a program that dlopens its arguments and prints the files, for every version above
set -eu
. "$(dirname "$0")/apt.sh"
dir=$1
[ -f "$dir/done-1" ] && exit 0
mkdir -p "$dir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"

# SUITE ARCHITECTURES PACKAGE…: downloads into SUITE/
fetch() {
    suite=$1 architectures=$2
    shift 2
    apt_for "$work/$suite" "$suite" main "$architectures"
    (cd "$suite"; APT_CONFIG="$work/$suite/apt.conf"; export APT_CONFIG; apt-get update -qq; apt-get download -qq "$@") >/dev/null
}

# NAME SUITE PACKAGE…: a tree of the packages, without what no loader needs
tree() {
    name=$1 suite=$2
    shift 2
    mkdir -p "tree-$name/dev" "tree-$name/proc" "tree-$name/sys" "tree-$name/tmp" "tree-$name/run" "tree-$name/etc"
    if [ "$suite" = trixie ]; then
        # As base-files makes them.
        mkdir -p "tree-$name/usr/bin" "tree-$name/usr/sbin" "tree-$name/usr/lib" "tree-$name/usr/lib64"
        for link in bin sbin lib lib64; do ln -s "usr/$link" "tree-$name/$link"; done
    fi
    for package in "$@"; do
        for deb in "$suite/$package"_*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -C "tree-$name" --keep-directory-symlink -xf -; done
    done
    find "tree-$name" \( -name gconv -o -name locale -o -name doc -o -name 'charmaps' \) -prune -exec rm -rf {} +
    touch "tree-$name/etc/debian_version"
    cp probe "tree-$name/probe"
    tar -C "tree-$name" -cf "$dir/$name.tar" .
}

cat > probe.c <<'C'
/* Symbols by the versions that glibc has had since its first 64-bit release; no start files, which ask for newer ones. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <unistd.h>
__asm__(".symver dlopen,dlopen@GLIBC_2.2.5");
__asm__(".symver dlinfo,dlinfo@GLIBC_2.3.3");
__asm__(".symver dlerror,dlerror@GLIBC_2.2.5");
__asm__(".globl _start\n_start: mov %rsp,%rdi\nand $-16,%rsp\ncall go\n");
void go(long *stack) {
    char **argv = (char **)(stack + 1);
    for (long i = 1; i < stack[0]; i++) {
        void *handle = dlopen(argv[i], RTLD_NOW);
        struct link_map *map = 0;
        if (!handle || dlinfo(handle, RTLD_DI_LINKMAP, &map)) dprintf(1, "%s: %s\n", argv[i], dlerror());
        else dprintf(1, "%s: %s\n", argv[i], map->l_name);
    }
    _exit(0);
}
C
gcc -O1 -fno-stack-protector -nostartfiles -o probe probe.c -Wl,--no-as-needed -l:libdl.so.2 -Wl,--hash-style=both

fetch bullseye '"amd64";' libc6 libc-bin
fetch bookworm '"amd64"; "i386";' libc6:amd64 libc-bin:amd64 libc6:i386
fetch trixie '"amd64";' libc6 libc-bin
rename() { for deb in "$1"/libc6_*_"$2".deb; do mv "$deb" "$(dirname "$deb")/$3_$2.deb"; done; }
rename bookworm i386 libc6-i386
tree bullseye bullseye libc6 libc-bin
tree bookworm bookworm libc6 libc-bin
tree i386 bookworm libc6 libc-bin libc6-i386
tree trixie trixie libc6 libc-bin
cp probe "$dir/probe"
touch "$dir/done-1"
