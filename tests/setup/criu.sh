#!/bin/sh
# Unpacks CRIU with its libraries below DIR/root, and makes DIR/bin/criu, which runs it by its own loader: the machine's
# release may have one too old for its kernel. Debian sid's, which knows the newest, where it works here, trixie's otherwise; without either
# nothing is made, and the tests that want it are skipped by name. Nothing of it is installed.
set -eu
. "$(dirname "$0")/apt.sh"
dir=$1
[ -x "$dir/bin/criu" ] && exit 0
command -v apt-get >/dev/null || exit 0
apt_mirror >/dev/null || exit 0
mkdir -p "$dir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# SUITE: downloads CRIU and all that it is linked with into the suite's directory, and unpacks it into root
fetch() {
    apt_for "$work/$1" "$1" main || return 1
    mkdir "$work/$1/root"
    cd "$work/$1"
    APT_CONFIG=$work/$1/apt.conf apt-get update -qq >/dev/null 2>&1 || return 1
    APT_CONFIG=$work/$1/apt.conf apt-get install -qq --download-only criu >/dev/null 2>&1 || return 1
    for deb in cache/archives/*.deb; do
        # Python, Perl and what configures packages is not what the program is linked with.
        case ${deb##*/} in python3*|libpython3*|perl*|libperl*|debconf*|media-types*|openssl*|tzdata*|sgml*) continue ;; esac
        dpkg-deb -x "$deb" root
    done
}

for suite in sid trixie; do
    (fetch "$suite") || continue
    [ -x "$work/$suite/root/usr/sbin/criu" ] || continue
    rm -rf "$dir/root" "$dir/bin.new"
    mkdir -p "$dir/bin.new"
    mv "$work/$suite/root" "$dir/root"
    cat > "$dir/bin.new/criu" <<W
#!/bin/sh
exec $dir/root/usr/lib64/ld-linux-x86-64.so.2 --library-path $dir/root/usr/lib/x86_64-linux-gnu $dir/root/usr/sbin/criu "\$@"
W
    chmod 755 "$dir/bin.new/criu"
    if "$dir/bin.new/criu" check >/dev/null 2>&1; then
        rm -rf "$dir/bin"
        mv "$dir/bin.new" "$dir/bin"
        exit 0
    fi
    echo "CRIU of $suite does not work here: $("$dir/bin.new/criu" check 2>&1 | tail -n 1)" >&2
done
