//! `--check-services`: the services that people run beside their GPU containers, asked in their own protocols.
//!
//! No TLS is spoken: an address that needs it is said to be unchecked.

mod nats;
mod neo4j;
mod net;
mod redis;
mod settings;
mod vllm;

use super::check::{Finding, Outcome, absent, outcome};

pub(super) use settings::{Service, all};

/// What a service answers.
type Answer = Result<String, Finding>;

/// Asks one service.
pub(super) fn ask(service: &Service) -> Outcome {
    if service.url.tls() {
        return absent(format!(
            "{} is behind TLS, which is not spoken here",
            service.url
        ));
    }
    if service.guessed && !net::listens(&service.url) {
        return absent(format!(
            "nothing listens at {}, the usual place; if something must, name it by --service or in services.toml",
            service.url
        ));
    }
    let answer = match service.kind.as_str() {
        "vllm" => vllm::ask(&service.url),
        "redis" => redis::ask(&service.url, service.password.as_deref()),
        "neo4j" => neo4j::ask_http(&service.url),
        "bolt" => neo4j::ask_bolt(&service.url),
        _ => nats::ask(&service.url, service.password.as_deref()),
    };
    match answer {
        Ok(text) => outcome(Vec::new(), format!("{}: {text}", service.url)),
        Err(finding) => outcome(vec![finding], ""),
    }
}

#[cfg(test)]
mod tests;
