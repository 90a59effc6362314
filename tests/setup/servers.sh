#!/bin/sh
# servers.sh DIR: Redis and NATS from Debian's packages, unpacked below DIR and not installed: an installed one would be
# started by its package. Without apt nothing is made, and the tests that want them are skipped by name.
set -eu
dir=$1
[ -x "$dir/usr/sbin/nats-server" ] && [ -e "$dir/usr/bin/redis-server" ] && exit 0
command -v apt-get >/dev/null || exit 0
new=$dir.new
rm -rf "$new"
mkdir -p "$new/packages"
for package in redis-tools redis-server nats-server libjemalloc2 liblzf1 libatomic1; do
    (cd "$new/packages" && apt-get download -qq "$package" >/dev/null 2>&1) || echo "package $package cannot be downloaded" >&2
done
for file in "$new"/packages/*.deb; do
    [ -e "$file" ] || exit 0
    dpkg -x "$file" "$new"
done
rm -rf "$dir"
mv "$new" "$dir"
