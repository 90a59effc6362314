#!/bin/bash
# kubernetes.sh STATE: the manifests against Kubernetes' published schemas (from the Python package kubernetes-validate), as
# they are and as kustomize puts them together.
set -euo pipefail
TOP=$(cd "$(dirname "$0")/../.." && pwd)
state=$1
manifests=$TOP/packaging/kubernetes
command -v kubectl >/dev/null || { echo "SKIP kubernetes manifests: kubectl is not installed" | tee -a "$state/skipped"; exit 0; }
if [ ! -x "$state/kubernetes/bin/kubernetes-validate" ]; then
    python3 -m venv "$state/kubernetes"
    "$state/kubernetes/bin/pip" install --quiet kubernetes-validate==1.37.0
fi
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
kubectl kustomize "$manifests/base" > "$built/base.yaml"
kubectl kustomize "$manifests/with-gpu-operator" > "$built/with-gpu-operator.yaml"
grep -q '^handler: fleet-nvidia$' "$built/with-gpu-operator.yaml"
for version in 1.28.0 1.37.0; do
    "$state/kubernetes/bin/kubernetes-validate" --strict --quiet -k "$version" "$built"/*.yaml "$manifests"/base/runtimeclass.yaml "$manifests"/samples/*.yaml
done
for file in "$TOP"/packaging/crictl/*.json; do jq -e . "$file" >/dev/null; done
# A schema that refuses nothing would prove nothing.
sed 's/^handler:/handlers:/' "$built/base.yaml" > "$built/wrong.yaml"
if "$state/kubernetes/bin/kubernetes-validate" --strict --quiet -k 1.37.0 "$built/wrong.yaml" >/dev/null 2>&1; then
    echo "kubernetes.sh: a wrong manifest was accepted" >&2
    exit 1
fi
