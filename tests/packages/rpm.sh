#!/bin/bash
# rpm.sh RPM: installs it below a directory with rpm itself, checks and removes it.
set -euo pipefail
package=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/var/lib/rpm"
# The machine's own system is Debian: what the package requires is not in rpm's database, and its scripts find no shell here.
options=(--root "$root" --nodeps --noscripts)
rpm "${options[@]}" -i "$package"
rpm "${options[@]}" -V fleet-nvidia
rpm -qp --requires "$package" | grep -q '^libc.so.6' || { echo "rpm: no requirement on the C library" >&2; exit 1; }
"$root/usr/bin/fleet-nvidia" --version >/dev/null
"$root/usr/bin/fleet-nvidia-ctl" config default | cmp - "$root/etc/fleet-nvidia/config.toml"
for script in POSTIN PREUN POSTUN; do
    rpm -qp --qf "%{$script}\n" "$package" | sh -n
done
rpm "${options[@]}" -e fleet-nvidia
left=$(find "$root" ! -type d ! -path "$root/var/lib/rpm/*" ! -path "$root/usr/lib/sysimage/*" ! -path "$root/root/.rpmdb/*")
[ -z "$left" ] || { echo "rpm: left after removal: $left" >&2; exit 1; }
