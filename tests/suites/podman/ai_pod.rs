//! The guide's pod: a model server on two GPUs, Redis and Neo4j, asked by `doctor`.
//! Redis is itself. In place of vLLM and Neo4j stand servers that speak their protocols; the first of them starts only
//! if its driver shows both GPUs.

use super::*;

const VLLM: &str = r#"test "$(nvidia-smi -L | wc -l)" = 2 || exit 1
mkdir -p /www/v1
echo '{"object":"list","data":[{"id":"stand-in"}]}' > /www/v1/models
: > /www/health
exec busybox httpd -f -p 8000 -h /www"#;

const NEO4J: &str = r#"mkdir -p /www
echo '{"neo4j_version":"5.26.0","bolt_routing":"neo4j://localhost:7687"}' > /www/index.html
httpd -p 7474 -h /www
exec nc -ll -p 7687 -e printf '\0\0\4\5'"#;

const GPUS: [&str; 4] = [
    "--device",
    "nvidia.com/gpu=0",
    "--device",
    "nvidia.com/gpu=1",
];

/// A pod in a network of its own, where the services stand at their usual ports.
fn create(pod: &str) -> Pod<'_> {
    let mut args = vec!["pod", "create", "--name", pod, "--network", "none"];
    args.extend(["--shm-size", "256m", "--infra-image", "fleet-busybox"]);
    args.extend(["--infra-command", "sleep 1000"]);
    drop(podman(&args).ok());
    Pod(pod)
}

impl Pod<'_> {
    /// Starts a service in it: the container's name.
    fn member(&self, name: &str, options: &[&str], image: &str, program: &[&str]) -> String {
        let name = format!("{}-{name}", self.0);
        let head = ["run", "-d", "--pod", self.0, "--name", name.as_str()];
        drop(podman(&[&head, options, &[image], program].concat()).ok());
        name
    }
}

fn redis(pod: &Pod<'_>, servers: &std::path::Path) -> String {
    let servers = format!("{}:/srv:ro", servers.display());
    let mut options = vec!["-v", &servers, "-v", "/usr/lib/x86_64-linux-gnu:/host:ro"];
    options.extend(["-e", "LD_LIBRARY_PATH=/srv/usr/lib/x86_64-linux-gnu:/host"]);
    let mut program = vec!["/srv/usr/bin/redis-server", "--requirepass", "s3cret"];
    program.extend(["--save", ""]);
    pod.member("redis", &options, "fleet-glibc", &program)
}

/// `doctor --check-services` in the network of a container.
fn ask(container: &str) -> Output {
    let pid = podman(&["inspect", "-f", "{{.State.Pid}}", container]).ok();
    run(Command::new("nsenter")
        .arg(format!("--net=/proc/{}/ns/net", pid.trim()))
        .arg(path("FLEET_CTL"))
        .args(["doctor", "--check-services"])
        .env("REDIS_PASSWORD", "s3cret"))
}

#[test]
fn vllm_on_two_gpus_redis_and_neo4j() {
    let test = "vllm_on_two_gpus_redis_and_neo4j";
    let servers = path("FLEET_STATE").join("servers");
    if !servers.join("usr/bin/redis-server").exists() {
        return skip(test, "no redis-server: apt could not give it");
    }
    if !node(test) {
        return;
    }
    let name = unique("ai");
    let pod = create(&name);
    let options = [&GPUS[..], &["-v", "/bin/busybox:/bin/busybox:ro"]].concat();
    let vllm = pod.member("vllm", &options, "fleet-glibc", &["sh", "-c", VLLM]);
    let redis = redis(&pod, &servers);
    let neo4j = pod.member("neo4j", &[], "fleet-busybox", &["sh", "-c", NEO4J]);

    let wanted = [
        "http://127.0.0.1:8000: healthy, serves stand-in",
        "redis://127.0.0.1:6379: PONG",
        "http://127.0.0.1:7474: version 5.26.0",
        "bolt://127.0.0.1:7687: Bolt 5.4",
        "nothing listens at nats://127.0.0.1:4222",
    ];
    fleet_tests::until("the services", || {
        let said = ask(&redis).stdout;
        wanted.iter().all(|words| said.contains(words))
    });
    assert_eq!(ask(&redis).code, 0, "{:#?}", ask(&redis));

    for member in [&redis, &neo4j] {
        let inside = podman(&["exec", member, "sh", "-c", "ls /dev | grep -c nvidia"]);
        assert_eq!(inside.stdout, "0\n", "{member} has a GPU: {inside:#?}");
    }
    let shared = podman(&["exec", &vllm, "df", "-m", "/dev/shm"]).ok();
    assert!(shared.contains(" 256 "), "{shared}");
    drop(podman(&["kill", &vllm]).ok());
    drop(podman(&["wait", &vllm]).ok());
    let gone = ask(&redis).stdout;
    assert!(
        gone.contains("nothing listens at http://127.0.0.1:8000"),
        "{gone}"
    );
}
