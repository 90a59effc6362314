# Sourced: the number after the hyphen grows when only the packaging changes.
DEB_VERSION=$VERSION-${FLEET_DEB_REVISION:-1}
