#!/bin/bash
# selinux.sh: the SELinux module compiles against the types it needs, and gives the program its type and nothing else one.
set -euo pipefail
TOP=$(cd "$(dirname "$0")/../.." && pwd)
module=$TOP/packaging/selinux/fleet-nvidia.cil
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "selinux.sh: $*" >&2; exit 1; }
# The least that a policy consists of, with container-selinux's type.
base() {
    cat <<'C'
(handleunknown allow)
(mls true)
(class file (read execute))
(class process (transition))
(classorder (file process))
(sid kernel)
(sidorder (kernel))
(user system_u)
(role object_r)
(role system_r)
(type kernel_t)
(type container_runtime_exec_t)
(typeattribute cil_gen_require)
(roletype object_r container_runtime_exec_t)
(roletype system_r kernel_t)
(userrole system_u object_r)
(userrole system_u system_r)
(sensitivity s0)
(sensitivityorder (s0))
(category c0)
(categoryorder (c0))
(sensitivitycategory s0 (c0))
(level low (s0))
(levelrange all (low low))
(userlevel system_u low)
(userrange system_u all)
(sidcontext kernel (system_u system_r kernel_t all))
(allow kernel_t container_runtime_exec_t (file (read execute)))
C
}
base > "$work/base.cil"
secilc -o "$work/policy" -f "$work/contexts" "$work/base.cil" "$module"
type_of() { selabel_lookup -b file -f "$work/contexts" -k "$1" -t file 2>/dev/null | cut -d: -f4 || true; }
for path in /usr/bin/fleet-nvidia /usr/local/bin/fleet-nvidia /opt/fleet-nvidia/versions/0.1.0/fleet-nvidia /var/lib/fleet-nvidia/versions/0.1.0-2/fleet-nvidia; do
    [ "$(type_of $path)" = container_runtime_exec_t ] || fail "$path is of type '$(type_of $path)'"
done
for path in /usr/bin/fleet-nvidia-ctl /opt/fleet-nvidia/versions/0.1.0/fleet-nvidia-ctl /opt/fleet-nvidia/versions/a/b/fleet-nvidia; do
    [ -z "$(type_of $path)" ] || fail "$path gets a type"
done
# Without container-selinux the module is refused, by the name of what is missing.
base | grep -v container_runtime_exec_t > "$work/bare.cil"
! secilc -o "$work/policy" -f "$work/contexts" "$work/bare.cil" "$module" 2> "$work/error" || fail "it compiles without container-selinux"
