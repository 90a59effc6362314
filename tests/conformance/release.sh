#!/bin/bash
# release.sh DIR RELEASE: crun and runc of another release of Debian below DIR/RELEASE: the programs, which run beside this
# machine's C library on those of their own, and the test suites from their sources. Nothing is installed.
# A source archive that lies in DIR/RELEASE/apt already is not fetched: a mirror may not have all of them.
set -eu
dir=$(cd "$1" && pwd) release=$2
into=$dir/$release apt=$dir/$release/apt
here=$(cd "$(dirname "$0")" && pwd)
[ "$(cat "$into/ready" 2>/dev/null)" != "$into" ] || exit 0
"$here/../setup/packages.sh" patchelf

. "$here/../setup/apt.sh"
APT_SOURCES=yes apt_for "$apt" "$release" main
export APT_CONFIG=$apt/apt.conf
ls "$apt/lists"/*Sources* >/dev/null 2>&1 || apt-get -q update >/dev/null

echo "fetching crun and runc of $release"
apt-get -qq install --yes --download-only crun runc >/dev/null
rm -rf "$into/root" && mkdir -p "$into/root" "$into/bin" "$into/lib"
for deb in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$deb" "$into/root"; done
find "$into/root" -path "*/$(uname -m)-linux-gnu/*.so*" ! -path '*/gconv/*' -exec cp -P {} "$into/lib/" \;
cp -L "$into"/root/lib*/ld-linux-*.so.* "$into/lib/" 2>/dev/null || cp -L "$into"/root/usr/lib*/ld-linux-*.so.* "$into/lib/"
loader=$(find "$into/lib" -name 'ld-linux-*.so.*' | head -1)
for program in crun runc; do
    cp "$(find "$into/root" -type f -path "*bin/$program")" "$into/bin/$program"
    patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$into/lib" "$into/bin/$program"
    "$into/bin/$program" --version >/dev/null
done

for name in crun runc; do
    version=$(apt-cache show "$name" | awk '/^Version:/ { version = $2 } /^Source:.*\(/ { version = $3; gsub(/[()]/, "", version) } END { print version }')
    upstream=${version#*:} upstream=${upstream%-*}
    archive=$(find "$apt" -maxdepth 1 -name "${name}_$upstream.orig.tar.*" ! -name '*.asc' | head -1)
    if [ -z "$archive" ]; then
        (cd "$apt" && apt-get source --download-only --tar-only "$name=$version" >/dev/null)
        archive=$(find "$apt" -maxdepth 1 -name "${name}_$upstream.orig.tar.*" ! -name '*.asc' | head -1)
    fi
    rm -rf "${into:?}/$name" && mkdir "$into/$name"
    tar -C "$into/$name" --strip-components 1 -xf "$archive"
    echo "$version" > "$into/$name.version"
done
ln -sfn "$dir/include" "$into/include"
gcc -static -I "$dir/include" -o "$into/crun-init" "$into/crun/tests/init.c"

# runc's helper programs want the Go and the libraries of their time.
go=$(apt-cache depends golang-go | awk '/Depends: golang-[0-9.]+-go$/ { print $2; exit }')
libraries=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
    golang-github-opencontainers-runc-dev | grep -E '^golang-.*-dev$' | sort -u)
rm -rf "$into/go" && mkdir -p "$into/go/debs"
# shellcheck disable=SC2086
(cd "$into/go/debs" && apt-get download "$go" "${go%-go}-src" $libraries >/dev/null 2>&1)
for deb in "$into"/go/debs/*.deb; do dpkg-deb -x "$deb" "$into/go"; done
# The toolchain's directory is made of links.
number=${go#golang-} number=${number%-go}
export GOROOT=$into/go/usr/lib/go-$number GO111MODULE=off GOPATH=$into/go/usr/share/gocode GOCACHE=$into/go/cache GOTOOLCHAIN=local
helpers=$into/runc/contrib/cmd
[ ! -d "$into/runc/tests/cmd" ] || helpers=$into/runc/tests/cmd
mkdir -p "$helpers/_bin"
for program in recvtty sd-helper seccompagent fs-idmap pidfd-kill remap-rootfs; do
    [ -d "$helpers/$program" ] || continue
    (cd "$helpers/$program" && "$GOROOT/bin/go" build -tags seccomp -o "$helpers/_bin/$program" .)
    # Up to runc 1.1 they are looked for where their sources are.
    [ "$helpers" = "$into/runc/tests/cmd" ] || cp "$helpers/_bin/$program" "$helpers/$program/$program"
done
rm -rf "$into/go" "$into/root"
cp "$dir"/runc/tests/integration/testdata/*.tar.xz "$into/runc/tests/integration/testdata/"
# The programs name their loader by its place.
echo "$into" > "$into/ready"
