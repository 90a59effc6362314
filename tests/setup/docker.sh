#!/bin/sh
# docker.sh DIR: dockerd and its client from Debian's packages, unpacked below DIR and not installed: an installed one would
# be started by its package, and change the machine's network. Without apt nothing is made, and the tests are skipped by name.
set -eu
dir=$1
[ -x "$dir/usr/sbin/dockerd" ] && exit 0
command -v apt-get >/dev/null || exit 0
new=$dir.new
rm -rf "$new"
mkdir -p "$new/packages"
# From Debian 13 on the client is a package of its own.
for package in docker.io docker-cli; do
    (cd "$new/packages" && apt-get download -qq "$package" >/dev/null 2>&1) || [ "$package" = docker-cli ] || echo "package $package cannot be downloaded" >&2
done
for file in "$new"/packages/*.deb; do
    [ -e "$file" ] || exit 0
    dpkg -x "$file" "$new"
done
rm -rf "$dir"
mv "$new" "$dir"
