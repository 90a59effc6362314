# Sourced: a Podman of its own below STATE, with the runtime registered by the packaged drop-in.
#   STATE     directory for storage and configuration
#   RUNTIME   absolute path of the runtime
mkdir -p "$STATE"
cat > "$STATE/storage.conf" <<C
[storage]
driver = "vfs"
runroot = "/run/fleet-podman"
graphroot = "$STATE/storage"
C
# The drop-in as it is shipped, with the path of the binary under test, and what this machine's limits need.
{
    sed "s|/usr/bin/fleet-nvidia|$RUNTIME|" "$TOP/packaging/containers.conf.d/50-fleet-nvidia.conf"
} > "$STATE/drop-in.conf"
cat > "$STATE/containers.conf" <<C
$(sed -n '/^\[engine\]/,/^$/p' "$STATE/drop-in.conf")
cgroup_manager = "cgroupfs"
events_logger = "file"
$(sed -n '/^\[engine.runtimes\]/,$p' "$STATE/drop-in.conf")
[containers]
log_driver = "k8s-file"
netns = "host"
default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]
C
export CONTAINERS_CONF="$STATE/containers.conf" CONTAINERS_STORAGE_CONF="$STATE/storage.conf"
