#!/bin/bash
# sbom.sh DIR: what is linked into the two programs, from cargo's own resolution: DIR/sbom.cdx.json (CycloneDX 1.5),
# DIR/copyright (Debian's machine-readable form) and DIR/third-party.txt.gz (licence texts, each once).
set -euo pipefail
. "$(dirname "$0")/common.sh"
dir=$1
target=$(uname -m)-unknown-linux-gnu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$TOP"
cargo metadata --locked --offline --format-version 1 --filter-platform "$target" > "$work/metadata.json"
# Crates of the host only, such as macros, are not in the programs.
cargo tree --locked --offline -e normal,no-proc-macro --target "$target" -p fleet-nvidia -p fleet-nvidia-ctl --prefix none --format '{p}' |
    sed -n 's/^\([^ ]*\) v\([^ ]*\).*/\1 \2/p' | sort -u > "$work/linked"
awk -F'"' '/^name = /{n=$2} /^version = /{v=$2} /^checksum = /{print n, v, $2}' Cargo.lock > "$work/checksums"
# What comes from the system and is linked statically.
system() {
    local package=$1 name=$2 licence=$3 version
    version=$(dpkg-query -W -f '${Version}' "$package" 2>/dev/null || rpm -q --qf '%{VERSION}-%{RELEASE}' "$package" 2>/dev/null || echo unknown)
    echo "$name|$version|$licence"
}
{
    system libseccomp-dev libseccomp LGPL-2.1-only
    system libc6-dev glibc LGPL-2.1-or-later
    system libgcc-12-dev libgcc "GPL-3.0-or-later WITH GCC-exception-3.1"
    echo "rust-std|$(rustc --version | cut -d' ' -f2)|MIT OR Apache-2.0"
} > "$work/system"
jq -n --slurpfile metadata "$work/metadata.json" --rawfile linked "$work/linked" --rawfile checksums "$work/checksums" \
    --rawfile system "$work/system" --arg version "$VERSION" --arg time "$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)" \
    -f "$TOP/packaging/lib/sbom.jq" > "$dir/sbom.cdx.json"
"$TOP/packaging/lib/licences.sh" "$work" "$dir"
