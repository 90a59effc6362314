#!/bin/bash
# licences.sh WORK DIR: called by sbom.sh. DIR/copyright and DIR/third-party.txt.gz from WORK's metadata.json and linked.
set -euo pipefail
work=$1 dir=$2
jq -r --rawfile linked "$work/linked" '
    ($linked | split("\n") | map(select(. != "") | {key: ., value: true}) | from_entries) as $used
    | .packages | sort_by(.name, .version)[] | select(.source != null and $used["\(.name) \(.version)"])
    | "\(.name)\t\(.version)\t\(.license // "see its text" | gsub(" */ *"; " OR "))\t\(.manifest_path | rtrimstr("/Cargo.toml"))"
' "$work/metadata.json" > "$work/crates"

mkdir "$work/texts"
while IFS=$'\t' read -r name version licence path; do
    for file in "$path"/LICEN[CS]E* "$path"/COPYING* "$path"/NOTICE* "$path"/COPYRIGHT*; do
        [ -f "$file" ] || continue
        sum=$(sha256sum < "$file" | cut -c1-64)
        [ -e "$work/texts/$sum" ] || cp "$file" "$work/texts/$sum"
        echo "$name $version" >> "$work/texts/$sum.who"
    done
done < "$work/crates"

{
    echo "Licence texts of the Rust crates that are linked into fleet-nvidia and fleet-nvidia-ctl, each text once."
    # In the order of the first crate that has the text.
    for who in "$work"/texts/*.who; do echo "$(head -n 1 "$who") ${who%.who}"; done | sort | while read -r _ _ text; do
        printf '\n%s\n' "------------------------------------------------------------------------"
        sed 's/^/  /' "$text.who"
        echo
        cat "$text"
    done
} | gzip -9nc > "$dir/third-party.txt.gz"

{
    cat <<'C'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: fleet-nvidia
Source: https://github.com/fleet-nvidia/fleet-nvidia
Comment: The programs contain the Rust crates and C libraries listed below; the crates' licence texts are in
 third-party.txt.gz, and all of them with versions and checksums in sbom.cdx.json.

Files: *
Copyright: 2026 The fleet-nvidia developers
License: Apache-2.0

C
    while IFS=$'\t' read -r name version licence _; do
        printf 'Files: crates/%s-%s/*\nCopyright: the authors of %s, as named in third-party.txt.gz\nLicense: %s\n\n' "$name" "$version" "$name" "$licence"
    done < "$work/crates" | sed 's/^License: \(.*\)/License: crate-licence\nComment: \1/'
    cat <<'C'
Files: libseccomp/*
Copyright: the libseccomp authors
License: LGPL-2.1

Files: glibc/*
Copyright: the Free Software Foundation and others
License: LGPL-2.1

License: Apache-2.0
 On Debian systems, the full text of the Apache License, Version 2.0, is in /usr/share/common-licenses/Apache-2.0.

License: crate-licence
 The comment of the paragraph is the crate's own statement (SPDX); its text is in third-party.txt.gz. The text of the
 Apache License, Version 2.0, is in /usr/share/common-licenses/Apache-2.0 on Debian systems.

License: LGPL-2.1
 Linked statically into fleet-nvidia. On Debian systems, the full text of the GNU Lesser General Public License,
 version 2.1, is in /usr/share/common-licenses/LGPL-2.1. The complete source of fleet-nvidia, with which it can be linked
 to another version of these libraries, is at the address above.
C
} > "$dir/copyright"
