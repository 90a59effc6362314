//! Protocol-true stand-ins on loopback: each answers what the real service would, byte by byte.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use super::*;
use crate::doctor::check::Seen;
use crate::files::Files;
use net::Url;

/// Answers each connection by what comes in; ends with the test.
fn serve(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static, hello: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(hello);
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                match answer(&bytes[..count]) {
                    Some(text) => drop(stream.write_all(&text)),
                    None => break,
                }
                // An HTTP page ends with the connection.
                if bytes.starts_with(b"GET ") {
                    break;
                }
            }
        }
    });
    port
}

/// A site of pages: status and body.
fn pages(pages: &'static [(&'static str, &'static str, &'static str)]) -> u16 {
    serve(
        move |request| {
            let request = String::from_utf8_lossy(request);
            let path = request.split(' ').nth(1)?;
            let (_, status, body) = pages.iter().find(|(page, ..)| *page == path)?;
            let length = body.len();
            Some(format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").into_bytes())
        },
        b"",
    )
}

fn service(kind: &str, scheme: &str, port: u16) -> Service {
    Service {
        kind: kind.to_owned(),
        url: Url::parse(&format!("{scheme}://127.0.0.1:{port}"), 1).unwrap(),
        password: None,
        guessed: false,
    }
}

#[track_caller]
fn fine(service: &Service, words: &str) {
    match ask(service).unwrap() {
        Ok(Seen::Fine(text)) => assert!(text.contains(words), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn fails(service: &Service, words: &str) {
    let findings = ask(service).unwrap().unwrap_err();
    assert!(findings[0].text.contains(words), "{findings:#?}");
    assert!(!findings[0].hint.is_empty());
}

const MODELS: &str = r#"{"object":"list","data":[{"id":"Qwen/Qwen3-8B","object":"model"},{"id":"lora","object":"model"}]}"#;

#[test]
fn vllm() {
    let ask = |site| service("vllm", "http", pages(site));
    fine(
        &ask(&[("/health", "200 OK", ""), ("/v1/models", "200 OK", MODELS)]),
        "healthy, serves Qwen/Qwen3-8B, lora",
    );
    fine(
        &ask(&[
            ("/health", "200 OK", ""),
            (
                "/v1/models",
                "401 Unauthorized",
                "{\"error\":\"Unauthorized\"}",
            ),
        ]),
        "behind an API key",
    );
    fails(
        &ask(&[("/health", "503 Service Unavailable", "")]),
        "says 503",
    );
    fails(
        &ask(&[("/health", "500 Internal Server Error", "")]),
        "says 500",
    );
    fails(
        &ask(&[
            ("/health", "200 OK", ""),
            ("/v1/models", "404 Not Found", ""),
        ]),
        "names no model",
    );
    fails(
        &service("vllm", "http", serve(|_| Some(b"+PONG\r\n".to_vec()), b"")),
        "does not speak HTTP",
    );
}

#[test]
fn neo4j() {
    let page = r#"{"bolt_routing":"neo4j://localhost:7687","neo4j_version":"5.26.0","neo4j_edition":"community"}"#;
    let ask = |body| service("neo4j", "http", pages(body));
    let leaked: &'static [_] = Box::leak(Box::new([("/", "200 OK", page)]));
    fine(&ask(leaked), "version 5.26.0");
    fails(&ask(&[("/", "200 OK", "<html>")]), "names no version");

    let bolt = |answer: [u8; 4]| {
        let port = serve(
            move |request| {
                // Magic, then four proposals of four bytes.
                (request.len() == 20 && request[..4] == [0x60, 0x60, 0xb0, 0x17])
                    .then(|| answer.to_vec())
            },
            b"",
        );
        service("bolt", "bolt", port)
    };
    fine(&bolt([0, 0, 4, 5]), "Bolt 5.4");
    fails(&bolt([0, 0, 0, 0]), "knows none of the Bolt versions");
    fails(&bolt(*b"HTTP"), "something else");
}

#[test]
fn redis_and_nats_that_are_not_themselves() {
    fails(
        &service(
            "redis",
            "redis",
            serve(|_| Some(b"HTTP/1.1 400\r\n".to_vec()), b""),
        ),
        "answers PING with",
    );
    fails(
        &service(
            "redis",
            "redis",
            serve(|_| Some(b"-LOADING Redis is loading\r\n".to_vec()), b""),
        ),
        "LOADING",
    );
    fails(
        &service("nats", "nats", serve(|_| None, b"+OK\r\n")),
        "does not greet with INFO",
    );
    fine(
        &service(
            "nats",
            "nats",
            serve(
                |_| None,
                b"INFO {\"version\":\"2.9\",\"tls_required\":true}\r\n",
            ),
        ),
        "asks for TLS",
    );
    // It closes before it has answered.
    fails(
        &service("redis", "redis", serve(|_| None, b"")),
        "does not answer",
    );
}

#[test]
fn nobody_listens_and_tls_are_said() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    fails(
        &service("redis", "redis", port),
        "cannot be reached: connection refused",
    );
    let guessed = Service {
        guessed: true,
        ..service("redis", "redis", port)
    };
    let nobody = ask(&guessed).unwrap();
    assert!(matches!(nobody, Ok(Seen::Absent(text)) if text.contains("nothing listens")));
    let other = Service {
        guessed: true,
        ..service("redis", "redis", serve(|_| Some(b"?\r\n".to_vec()), b""))
    };
    fails(&other, "answers PING with");
    let behind = ask(&service("redis", "rediss", port)).unwrap();
    assert!(matches!(behind, Ok(Seen::Absent(text)) if text.contains("TLS")));
}

#[test]
fn an_answer_without_end_is_cut() {
    let port = serve(|_| Some(vec![b'x'; 4096]), &[b'x'; 2 * 1024 * 1024]);
    fails(&service("nats", "nats", port), "the answer does not end");
}

#[test]
fn addresses_are_read_and_logins_are_not_printed() {
    let url = Url::parse("redis://me:s3cret@db:1/0", 6379).unwrap();
    assert_eq!(
        (url.user.as_deref(), url.password.as_deref()),
        (Some("me"), Some("s3cret"))
    );
    assert_eq!(url.to_string(), "redis://db:1");
    assert_eq!(
        Url::parse("nats://[::1]", 4222).unwrap().to_string(),
        "nats://[::1]:4222"
    );
    assert_eq!(
        Url::parse("redis://:pw@h", 6379)
            .unwrap()
            .password
            .as_deref(),
        Some("pw")
    );
    for bad in ["redis", "redis://", "redis://h:x", "redis://a b"] {
        assert!(Url::parse(bad, 1).is_err(), "{bad}");
    }
}

#[test]
fn services_come_from_flags_file_or_habit() {
    let dir = tempfile::tempdir().unwrap();
    let files = Files::new(Some(dir.path()));
    let all = |given: &[&str], file: Option<&str>| {
        let given: Vec<_> = given.iter().map(|text| (*text).to_owned()).collect();
        all(&files, &given, file.map(Path::new), Some("env".to_owned()))
    };
    let usual = all(&[], None).unwrap();
    assert_eq!(usual.len(), 5);
    assert!(usual.iter().all(|service| service.guessed));
    assert_eq!(usual[1].password.as_deref(), Some("env"));
    files.replace(Path::new("/pw"), "from-file\n").unwrap();
    files
        .replace(
            Path::new("/etc/fleet-nvidia/services.toml"),
            "[redis]\nurl = \"redis://h\"\npassword-file = \"/pw\"\n[nats]\nurl = \"nats://n:9\"\n",
        )
        .unwrap();
    let listed = all(&[], None).unwrap();
    assert_eq!(listed.len(), 2);
    assert!(!listed[0].guessed);
    assert_eq!(listed[0].password.as_deref(), Some("from-file"));
    assert_eq!(listed[1].url.port, 9);
    let flags = all(&["vllm=http://gpu:8001"], None).unwrap();
    assert_eq!((flags.len(), flags[0].url.port), (1, 8001));
    assert_eq!(
        all(
            &["vllm=http://gpu:8001"],
            Some("/etc/fleet-nvidia/services.toml")
        )
        .unwrap()
        .len(),
        3
    );
    for bad in [
        all(&["x"], None),
        all(&["mysql=a://b"], None),
        all(&[], Some("/missing")),
    ] {
        assert_eq!(bad.unwrap_err().lines().count(), 1);
    }
    files.replace(Path::new("/bad.toml"), "[redis]\n").unwrap();
    assert_eq!(
        all(&[], Some("/bad.toml")).unwrap_err(),
        "/bad.toml:1: [redis] has no `url`"
    );
}
