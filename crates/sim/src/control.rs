//! The simulator's own endpoints under `/_sim/`: log, rules, counters.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::config::explain;
use crate::http::Request;
use crate::reply::Reply;
use crate::rules::Rule;
use crate::server::{Shared, control_error};

/// Answers a control request.
pub(crate) fn reply(shared: &Arc<Shared>, request: &Request, command: &str) -> Reply {
    match (request.method(), command) {
        ("GET", "requests") => Reply::json(200, &shared.log.records()),
        ("DELETE", "requests") => {
            shared.log.clear();
            Reply::json(200, &json!({"cleared": true}))
        }
        ("GET", "rules") => rules(shared),
        ("DELETE", "rules") => {
            shared.set_rules(Vec::new());
            rules(shared)
        }
        ("PUT", "rules") => match parse(&request.body) {
            Ok(list) => {
                shared.set_rules(list);
                rules(shared)
            }
            Err(message) => control_error(400, &message),
        },
        ("POST", "rules") => match parse(&request.body) {
            Ok(list) => {
                list.into_iter().for_each(|rule| shared.add_rule(rule));
                rules(shared)
            }
            Err(message) => control_error(400, &message),
        },
        ("GET", "stats") => Reply::json(
            200,
            &json!({
                "connections_opened": shared.opened.load(Ordering::Relaxed),
                "open_connections": shared.open.load(Ordering::Relaxed),
                "requests_served": shared.served.load(Ordering::Relaxed),
                "tokens_issued": shared.identity.issued(),
            }),
        ),
        (_, "requests" | "rules" | "stats") => control_error(405, "method not allowed"),
        _ => control_error(404, "no such control path; there are requests, rules and stats"),
    }
}

/// One rule or a list of rules.
fn parse(body: &[u8]) -> Result<Vec<Rule>, String> {
    let value: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let parsed: Result<Vec<Rule>, _> = match value {
        Value::Array(list) => list.into_iter().map(serde_json::from_value).collect(),
        one => serde_json::from_value(one).map(|rule| vec![rule]),
    };
    let rules = parsed.map_err(|e| explain(&e.to_string()).to_string())?;
    rules.iter().try_for_each(Rule::check).map_err(|e| e.to_string())?;
    Ok(rules)
}

fn rules(shared: &Shared) -> Reply {
    let list: Vec<Value> = shared
        .rules()
        .iter()
        .map(|armed| {
            let mut value = serde_json::to_value(&armed.rule).unwrap_or_default();
            if let Value::Object(fields) = &mut value {
                fields.insert("id".to_owned(), json!(armed.id));
                fields.insert("fired".to_owned(), json!(armed.fired()));
            }
            value
        })
        .collect();
    Reply::json(200, &list)
}
