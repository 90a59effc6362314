#!/bin/sh
# oci-archive.sh TAR NAME ARCHIVE: a root file system as an OCI image archive of that name, for engines that import no bare tar.
# https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/layout/blobs/sha256"
cd "$work"

# Moves a file among the blobs; prints its descriptor.
blob() {
    sum=$(sha256sum "$1" | cut -d' ' -f1)
    jq -n --arg type "$2" --arg sum "sha256:$sum" --argjson size "$(stat -c %s "$1")" '{mediaType: $type, digest: $sum, size: $size}'
    mv "$1" "layout/blobs/sha256/$sum"
}
oci=application/vnd.oci.image
cp "$1" layer
layer=$(blob layer "$oci.layer.v1.tar")
jq -n --argjson layer "$layer" '{architecture: "amd64", os: "linux", config: {Env: ["PATH=/usr/bin:/bin:/sbin"], Cmd: ["/bin/sh"]},
    rootfs: {type: "layers", diff_ids: [$layer.digest]}}' > config
jq -n --arg type "$oci.manifest.v1+json" --argjson config "$(blob config "$oci.config.v1+json")" --argjson layer "$layer" \
    '{schemaVersion: 2, mediaType: $type, config: $config, layers: [$layer]}' > manifest
jq -n --arg type "$oci.index.v1+json" --argjson manifest "$(blob manifest "$oci.manifest.v1+json")" --arg name "$2" \
    '{schemaVersion: 2, mediaType: $type, manifests: [$manifest + {annotations: {"io.containerd.image.name": $name, "org.opencontainers.image.ref.name": $name}}]}' > layout/index.json
echo '{"imageLayoutVersion": "1.0.0"}' > layout/oci-layout
tar -C layout -cf "$3" .
