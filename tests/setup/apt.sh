# Sourced: packages of any release of Debian, by apt but without a trace in the machine's own.
#   apt_mirror                             prints the mirror of the machine's own sources; fails without one
#   apt_for DIR RELEASE COMPONENTS [ARCHITECTURES]
#                                          makes DIR/apt.conf for APT_CONFIG, by which nothing is installed, so that all
#                                          that a package needs is fetched; binary and source packages of RELEASE
apt_mirror() {
    mirror=$(sed -n 's|^URIs: *\(.*/debian\)/*$|\1|p; s|^deb \(\[[^]]*\] \)*\([^ ]*/debian\)/* .*|\2|p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1)
    [ -n "$mirror" ] || { echo "no Debian mirror in the machine's apt sources" >&2; return 1; }
    echo "$mirror"
}
apt_for() {
    mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
    : > "$1/status"
    from="[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(apt_mirror) $2 $3" || return 1
    echo "deb $from" > "$1/sources.list"
    [ -z "${APT_SOURCES:-}" ] || echo "deb-src $from" >> "$1/sources.list"
    cat > "$1/apt.conf" <<C
Dir::Etc::SourceList "$1/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$1/lists";
Dir::State::status "$1/status";
Dir::Cache "$1/cache";
APT::Architectures { ${4:-"\"amd64\";"} };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "2";
Acquire::http::Timeout "20";
C
}
