# Runs as root in a fresh Debian with Podman; /mnt/in holds this.deb, next.deb, an image and the simulated node's programs.
set -euo pipefail
cd /mnt/in
fail() { echo "packages: $*" >&2; exit 1; }
# Without what Podman writes by itself.
files() { find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /mnt -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache -o -path /root -o -path /var/lib/containers -o -path /etc/cni -o -path /etc/containers/networks \) -prune -o -print | sort; }
files > /tmp/before

dpkg -i this.deb > /tmp/log 2>&1 || { cat /tmp/log; fail "the package does not install"; }
[ "$(fleet-nvidia --version | head -n 1)" = "fleet-nvidia version $(dpkg-query -W -f '${source:Upstream-Version}' fleet-nvidia)" ]
fleet-nvidia-ctl config default | cmp - /etc/fleet-nvidia/config.toml || fail "the shipped configuration is not the default one"
fleet-nvidia-ctl cdi list >/dev/null 2>&1
dpkg -V fleet-nvidia || fail "files differ from the package's checksums"
for page in fleet-nvidia.8 fleet-nvidia-ctl.8 fleet-nvidia-config.5; do
    [ -s "/usr/share/man/man${page##*.}/$page.gz" ] || fail "no man page $page"
done
[ -L /etc/systemd/system/multi-user.target.wants/fleet-nvidia-cdi-refresh.path ] || fail "the spec would not be refreshed"
bash -n /usr/share/bash-completion/completions/fleet-nvidia

# One command, then a GPU container by name.
fleet-nvidia-ctl configure podman >/dev/null
./fleet-simulate create --machine h100x2 --root /run/node --cdi /etc/cdi/nvidia.yaml >/dev/null
podman import -q glibc.tar gpu >/dev/null 2>&1
gpus=$(podman --runtime fleet-nvidia run --rm --device nvidia.com/gpu=all gpu nvidia-smi -L | grep -c '^GPU')
[ "$gpus" = 2 ] || fail "$gpus GPUs in the container, not 2"

# A removal waits for containers; an upgrade does not disturb them.
podman --runtime fleet-nvidia run -d --name lives --device nvidia.com/gpu=0 gpu sleep 600 >/dev/null
before=$(podman inspect --format '{{.State.Pid}}' lives)
! dpkg -r fleet-nvidia > /tmp/log 2>&1 || fail "the runtime was removed under a container"
grep -q 'containers still need the runtime' /tmp/log || { cat /tmp/log; fail "the refusal gives no reason"; }
dpkg -i next.deb > /tmp/log 2>&1 || { cat /tmp/log; fail "the package does not upgrade under a container"; }
[ "$(podman inspect --format '{{.State.Pid}}' lives)" = "$before" ] || fail "the upgrade restarted the container"
[ "$(podman exec lives nvidia-smi -L | grep -c '^GPU')" = 1 ] || fail "the upgraded runtime cannot exec in the old container"
dpkg -i this.deb > /tmp/log 2>&1 || { cat /tmp/log; fail "the package does not roll back under a container"; }
podman exec lives true || fail "the older runtime cannot exec in the container"
podman rm -f -t 0 lives >/dev/null

rm -rf /etc/cdi /run/node
dpkg -P fleet-nvidia > /tmp/log 2>&1 || { cat /tmp/log; fail "the package cannot be purged"; }
files > /tmp/after
diff /tmp/before /tmp/after || fail "these files are left, or gone, after the purge"
[ ! -e /run/fleet-nvidia ] || fail "/run/fleet-nvidia is left"
