#!/bin/sh
# unpack.sh DIR FILES PACKAGE…: packages of Debian, unpacked below DIR and not installed: what is installed is started by its
# package, and may change the machine's network. FILES (in one word) says what must be there in the end; PACKAGE? is one that
# not every release has. Without apt nothing is made, and the tests that want it are skipped by name.
set -eu
dir=$1 files=$2
shift 2
is_whole() { for file in $files; do [ -e "$dir/$file" ] || return 1; done; }
is_whole && exit 0
command -v apt-get >/dev/null || exit 0
new=$dir.new
rm -rf "$new"
mkdir -p "$new/packages"
for package in "$@"; do
    (cd "$new/packages" && apt-get download -qq "${package%\?}" >/dev/null 2>&1) || [ "$package" != "${package%\?}" ] ||
        echo "package $package cannot be downloaded" >&2
done
for file in "$new"/packages/*.deb; do
    [ -e "$file" ] || exit 0
    dpkg -x "$file" "$new"
done
rm -rf "$dir"
mv "$new" "$dir"
