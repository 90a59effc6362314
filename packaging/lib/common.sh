# Sourced by the builders.
#   PROGRAMS  directory with fleet-nvidia and fleet-nvidia-ctl, built
#   GEN       directory made by packaging/generate
export LC_ALL=C TZ=UTC0
umask 022
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VERSION=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$TOP/Cargo.toml")
# Of the last commit, so that one source gives one package.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$TOP" log -1 --format=%ct 2>/dev/null || stat -c %Y "$TOP/CHANGELOG.md")}
MAINTAINER=${FLEET_MAINTAINER:-The fleet-nvidia developers <fleet-nvidia@users.noreply.github.com>}
HOMEPAGE=$(sed -n 's/^repository = "\(.*\)"/\1/p' "$TOP/Cargo.toml")
SUMMARY="OCI runtime that injects CDI devices into GPU containers"

# Paragraphs of plain text.
description() {
    fold -s -w 78 <<'D' | sed 's/ *$//'
Low-level OCI runtime for Podman, Buildah, CRI-O, containerd and Docker that takes the place of crun or runc. It reads Container Device Interface specs, injects NVIDIA or any other vendor's devices, libraries, environment and hooks, and runs the container.

fleet-nvidia-ctl shows what would be injected and why, and looks after specs and configuration.
D
}

# stage FOR DIR: copies what the list names for one kind of package below DIR; prints "KIND MODE PATH" for each file.
stage() {
    local for=$1 dir=$2 who kind mode source destination path file target
    grep -vE '^(#|$)' "$TOP/packaging/files.list" | while read -r who kind mode source destination; do
        [ "$who" = both ] || [ "$who" = "$for" ] || continue
        case $source in
            @bin/*) path=$PROGRAMS/${source#@bin/} ;;
            @gen/*) path=$GEN/${source#@gen/} ;;
            *) path=$TOP/$source ;;
        esac
        # Unquoted: a pattern becomes its files.
        for file in $path; do
            [ -f "$file" ] || { echo "$file is missing, but packaging/files.list names it" >&2; return 1; }
            target=$destination
            [ "${destination%/}" = "$destination" ] || target=$destination$(basename "$file")
            install -D -m "$mode" "$file" "$dir$target"
            if [ "$kind" = man ]; then gzip -9n "$dir$target"; target=$target.gz; fi
            echo "$kind $mode $target"
        done
    done
}

# settle DIR: every time is that of the source.
settle() {
    find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}
