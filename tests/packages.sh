#!/bin/bash
# packages.sh [all] DIR: builds the packages in $PROGRAMS (the programs) and DIR (made by packaging/generate), twice, and installs,
# uses, upgrades and removes the deb in a fresh Debian 12; brings up services by podman-compose; checks the Kubernetes manifests and runs
# the image of the node installer. "all" adds Debian 13, the rpm, lintian and rpmlint.
#   STATE     where root file systems are kept between runs
#   SIMULATE  directory of fleet-simulate
set -euo pipefail
TOP=$(cd "$(dirname "$0")/.." && pwd)
all=
if [ "${1:-}" = all ]; then all=1; shift; fi
export GEN=$1
say() { echo "packages: $*"; }

need() {
    local missing=""
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# A root file system of SUITE with Podman, made once.
root() {
    local suite=$1 dir=$STATE/roots/$1 packages=podman,catatonit,netavark,uidmap
    # Checkers that Debian 12 has not, or too old.
    [ "$suite" != trixie ] || packages+=,apparmor,udev
    [ "$(cat "$dir/made" 2>/dev/null)" != "$packages" ] || return 0
    say "a fresh $suite with Podman, from Debian's packages"
    rm -rf "$dir"
    mkdir -p "$dir"
    mmdebstrap --quiet --variant=minbase --include="$packages" "$suite" "$dir/tree"
    echo "$packages" > "$dir/made"
}

build() {
    local out=$STATE/$1
    rm -rf "$out"
    "$TOP/packaging/deb/build" "$out" >/dev/null
    [ -z "$all" ] || "$TOP/packaging/rpm/build" "$out" >/dev/null
    # An archive has the time at which it was made; the digest is the image's.
    "$TOP/packaging/image/build" "$STATE/image" | sed 's/.* //' > "$out/image.digest"
}

need mmdebstrap dpkg-dev xz-utils podman-compose iptables buildah jq python3-venv secilc selinux-utils ${all:+rpm rpmlint lintian systemd}
mkdir -p "$STATE"
build packages
sleep 1
build packages-again
for package in "$STATE"/packages/*; do
    cmp "$package" "$STATE/packages-again/${package##*/}"
done
say "two builds are equal, byte by byte"
# The same files under the next version, to upgrade to.
FLEET_DEB_REVISION=2 "$TOP/packaging/deb/build" "$STATE/packages-next" >/dev/null

for suite in bookworm ${all:+trixie}; do
    root "$suite"
    rm -rf "$STATE/roots/$suite/work"
    "$TOP/tests/isolate" "$TOP/tests/packages/deb.sh" "$STATE/roots/$suite" "$STATE" "$SIMULATE"
    say "$suite: installed, used, upgraded under a running container, purged"
done
# A network of its own: Podman makes a bridge.
"$TOP/tests/isolate" unshare --net "$TOP/tests/packages/compose.sh" "$STATE" "$PROGRAMS/fleet-nvidia" "$SIMULATE"
say "podman-compose: a GPU service and one without"
"$TOP/tests/packages/selinux.sh"
say "the SELinux module compiles and gives the runtime its type"
"$TOP/tests/packages/kubernetes.sh" "$STATE"
say "the Kubernetes manifests follow the schemas, and the chart says the same"
"$TOP/tests/isolate" "$TOP/tests/packages/image.sh" "$STATE" "$STATE"/image/*.tar "$PROGRAMS/fleet-nvidia"
say "the image installs on a node, and leaves it as it was"
[ -n "$all" ] || exit 0

# The units among those of the machine's own systemd.
units=$STATE/units
rm -rf "$units"
dpkg-deb -x "$STATE"/packages/*.deb "$units"
cp -rn /lib/systemd/system/. "$units/usr/lib/systemd/system/"
systemd-analyze --root="$units" --man=no verify fleet-nvidia-cdi-refresh.service fleet-nvidia-cdi-refresh.path
say "systemd finds no fault with the units"

# By the newer programs of Debian 13, from the installed package's files.
checked=$STATE/roots/trixie/tree
rm -rf "$checked/tmp/check"
cp -r "$units/usr" "$checked/tmp/check"
chroot "$checked" udevadm verify --no-summary --resolve-names=never /tmp/check/lib/udev/rules.d/71-fleet-nvidia.rules
chroot "$checked" apparmor_parser --skip-kernel-load --skip-cache --debug /tmp/check/share/fleet-nvidia/apparmor/fleet-nvidia > "$checked/tmp/check/said"
grep -q 'Name:.*fleet-nvidia' "$checked/tmp/check/said"
rm -rf "$checked/tmp/check"
say "udev and AppArmor read their files"

"$TOP/tests/packages/rpm.sh" "$STATE/packages"/*.rpm
say "rpm: installed and removed"
lintian --allow-root --fail-on error,warning "$STATE"/packages/*.deb
rpmlint --config "$TOP/packaging/rpm/rpmlint.toml" "$STATE"/packages/*.rpm
say "lintian and rpmlint have nothing to say"
