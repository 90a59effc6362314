//! vLLM: `/health` of its engine, `/v1/models` of its OpenAI interface.

use serde_json::Value;

use super::Answer;
use super::net::{Url, get};
use crate::doctor::check::Finding;

pub(super) fn ask(url: &Url) -> Answer {
    match get(url, "/health")?.0 {
        200 => {}
        503 => {
            return Err(Finding::warning(
                format!("{url}/health says 503: the model is being loaded, or its engine is dead"),
                "podman logs tells which",
            ));
        }
        code => {
            return Err(Finding::error(
                format!("{url}/health says {code}"),
                "podman logs of the container; a dead engine does not come back by itself",
            ));
        }
    }
    let (code, body) = get(url, "/v1/models")?;
    if matches!(code, 401 | 403) {
        return Ok("healthy; its models are behind an API key".to_owned());
    }
    let list: Value = serde_json::from_str(&body).unwrap_or_default();
    let models = list.get("data").and_then(Value::as_array);
    let names: Vec<_> = models
        .into_iter()
        .flatten()
        .filter_map(|model| model.get("id")?.as_str())
        .collect();
    match names.is_empty() {
        true => Err(Finding::error(
            format!("{url}/v1/models says {code} and names no model"),
            "is it vLLM that listens there?",
        )),
        false => Ok(format!("healthy, serves {}", names.join(", "))),
    }
}
