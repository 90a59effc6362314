#!/bin/bash
# Unpacks the test suites of crun, runc and Podman below DIR, from Debian's source packages of the installed versions,
# and makes what they need: their helper programs, and root file systems in place of the images they download.
# Nothing of it is edited and nothing of it is kept in this repository.
set -eu
dir=$1
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
need="apt dpkg-dev bats gawk jq python3 socat bsdutils xz-utils golang-go golang-github-opencontainers-runc-dev criu"
missing=""
for package in $need; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "installing:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# An apt configuration of its own: the machine's sources, read as source packages.
apt=$dir/apt
if [ ! -d "$apt/lists" ]; then
    mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial"
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -f "$file" ] && sed 's/^Types:.*/Types: deb-src/' "$file" > "$apt/parts/${file##*/}"
    done
    : > "$apt/sources.list"
    [ -f /etc/apt/sources.list ] && sed -n 's/^deb /deb-src /p' /etc/apt/sources.list > "$apt/sources.list"
fi
get() {
    apt-get -q -o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Etc::sourceparts=$apt/parts" \
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root "$@"
}

# unpack NAME PACKAGE: the upstream sources of the installed PACKAGE as DIR/NAME, without Debian's patches.
unpack() {
    local source version
    source=$(dpkg-query -W -f '${source:Package}' "$2")
    version=$(dpkg-query -W -f '${source:Version}' "$2")
    [ "$(cat "$dir/$1.version" 2>/dev/null)" = "$version" ] && [ -d "$dir/$1" ] && return
    echo "fetching the sources of $source $version"
    ls "$apt/lists"/*Sources* >/dev/null 2>&1 || get update >/dev/null
    (cd "$apt" && get source --download-only "$source=$version" >/dev/null)
    rm -rf "${dir:?}/$1"
    dpkg-source --no-check --skip-patches -x "$apt/${source}_${version#*:}.dsc" "$dir/$1" >/dev/null
    rm -f "$dir/$1.ready"
    echo "$version" > "$dir/$1.version"
}
unpack crun crun
unpack runc runc
unpack podman podman

if [ ! -f "$dir/crun.ready" ]; then
    mkdir -p "$dir/include"
    printf '#define HAVE_SECCOMP 1\n' > "$dir/include/config.h"
    gcc -static -I "$dir/include" -o "$dir/crun-init" "$dir/crun/tests/init.c"
    touch "$dir/crun.ready"
fi

if [ ! -f "$dir/runc.ready" ]; then
    for program in recvtty sd-helper seccompagent; do
        (cd "$dir/runc/contrib/cmd/$program" &&
            GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE="$dir/go-cache" go build -tags seccomp -o "$program" .)
    done
    rm -rf "$dir/go-cache"
    "${0%/*}/images.sh" "$dir" "$dir/runc/tests/integration/testdata"
    touch "$dir/runc.ready"
fi

# The Open Container Initiative's validation programs. Debian's package of runtime-tools does not have them, so a checkout
# with its vendor directory is named by RUNTIME_TOOLS; it wants Go 1.21 or later, as GO.
if [ -n "${RUNTIME_TOOLS:-}" ] && [ ! -f "$dir/tools.ready" ]; then
    rm -rf "${dir:?}/tools"
    mkdir "$dir/tools"
    (cd "$RUNTIME_TOOLS" && export GOFLAGS=-mod=vendor GOTOOLCHAIN=local CGO_ENABLED=0 GOCACHE="$dir/go-cache" &&
        "${GO:-go}" build -o "$dir/tools/" ./validation/... && "${GO:-go}" build -tags netgo,osusergo -o "$dir/tools/runtimetest" ./cmd/runtimetest)
    rm -rf "$dir/go-cache"
    cp "$RUNTIME_TOOLS"/rootfs-*.tar.gz "$dir/tools/"
    git -C "$RUNTIME_TOOLS" log -1 --format='%h of %cs' > "$dir/tools.version" 2>/dev/null || cat "$RUNTIME_TOOLS/VERSION" > "$dir/tools.version"
    touch "$dir/tools.ready"
fi
