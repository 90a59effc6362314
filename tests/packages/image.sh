#!/bin/bash
# image.sh STATE IMAGE RUNTIME: Podman runs the image by this runtime with what the DaemonSet asks for, on a volume that stands for
# a node: it installs, is ready, is healthy, is upgraded to, and takes everything away. Runs inside tests/isolate.
set -euo pipefail
TOP=$(cd "$(dirname "$0")/../.." && pwd)
state=$1 archive=$2 RUNTIME=$3 STATE=/run/image
fail() { echo "image.sh: $*" >&2; exit 1; }
. "$TOP/tests/setup/podman.sh"
podman() { command podman --runtime fleet-nvidia "$@"; }
container='.spec.template.spec.containers[0]'
image=$(podman load --quiet --input "$archive" | sed -n 's/^Loaded image: *//p')
[ "$image" = "$(jq -r "$container.image" "$state/daemonset.json")" ] || fail "the archive holds $image, the DaemonSet wants another"
mapfile -t args < <(jq -r "$container.args[]" "$state/daemonset.json")
mapfile -t ready < <(jq -r "$container.readinessProbe.exec.command[]" "$state/daemonset.json")
mapfile -t rights < <(jq -r "$container.securityContext | (.capabilities.drop[] | \"--cap-drop=\" + .), (.capabilities.add[] | \"--cap-add=\" + .), (select(.readOnlyRootFilesystem) | \"--read-only\"), (select(.allowPrivilegeEscalation | not) | \"--security-opt=no-new-privileges\")" "$state/daemonset.json")
[ ${#rights[@]} -ge 5 ] || fail "the DaemonSet's rights were not read: ${rights[*]}"
memory=$(jq -r "$container.resources.limits.memory" "$state/daemonset.json" | sed 's/Mi$/m/')

podman volume create node >/dev/null
node=$(podman volume inspect --format '{{.Mountpoint}}' node)
mkdir -p "$node/etc/crio" "$node/etc/containerd" "$node/usr/bin"
printf 'version = 2\n' > "$node/etc/containerd/config.toml"
tree() { find "$node" -printf '%P %y %m %l\n' | sort; (cd "$node" && find . -type f -exec sha256sum {} + | sort -k 2); }
before=$(tree)
run() { podman run --rm --volume node:/host "${rights[@]}" --memory "$memory" "$@"; }
run --detach --name installer "$image" "${args[@]}" >/dev/null
for _ in $(seq 100); do [ -e "$node/run/fleet-nvidia-node/ready" ] && break; sleep 0.1; done
podman exec installer "${ready[@]}" > /run/image/status || { cat /run/image/status; podman logs installer; fail "the pod is not ready"; }
grep -q 'crio `nvidia`: fine' /run/image/status && grep -q 'containerd `nvidia`: fine' /run/image/status || { cat /run/image/status; fail "not both engines"; }
program=$(sed -n 's/^runtime_path = "\(.*\)"/\1/p' "$node/etc/crio/crio.conf.d/50-fleet-nvidia.conf")
# The node can run both, by the path that the engine got.
chroot "$node" "$program" --version | grep -q '^fleet-nvidia version'
cmp "$node$program" "$RUNTIME" || fail "the node has another runtime than the image was made of"
podman stop --time 20 installer >/dev/null
[ ! -e "$node/run/fleet-nvidia-node" ] || fail "the health file outlives the pod"
[ -x "$node$program" ] || fail "the pod took the runtime along, though nobody asked"
run "$image" node status --root /host >/dev/null
# Without --daemon, as a job would; and the default command needs nothing but the mount.
run "$image" node install --root /host | grep -q 'is in force already'
run --detach --name default "$image" >/dev/null
for _ in $(seq 100); do podman logs default 2>&1 | grep -q ': fine' && break; sleep 0.1; done
podman stop --time 20 default >/dev/null
run "$image" node uninstall --root /host >/dev/null
[ "$(tree)" = "$before" ] || { diff <(echo "$before") <(tree); fail "something is left of the installation"; }
