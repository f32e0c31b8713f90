//! The catalogue of models and prices: questions in, JSON out.

use std::path::Path;
use std::sync::Arc;

use liter_llm::catalog::Catalog;
use liter_llm::{ErrorKind, LlmError};
use liter_llm_border::catalog_cost;
use neon::prelude::*;

use crate::environment::{Environment, Thing, known};
use crate::{given, optional, refused, text, words, written};

/// Opens a catalogue: the file of the rows, and the file of one's own. Returns its number.
pub fn open<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let base = words(&mut cx, 0)?;
    let own = optional::<JsString>(&mut cx, 1)?.map(|path| path.value(&mut cx));
    let Some(environment) = Environment::of(&mut cx) else {
        return Ok(refused(
            &mut cx,
            &LlmError::new(ErrorKind::Config, "`connect` was not called in this thread"),
        ));
    };
    let catalog = Catalog::from_path(base);
    let catalog = match own {
        Some(own) => catalog.with_own_file(Path::new(&own)),
        None => Ok(catalog),
    };
    let catalog = catalog.and_then(|catalog| match catalog.problem() {
        Some(problem) => Err(LlmError::config("catalog", problem.to_owned())),
        None => Ok(catalog),
    });
    given(&mut cx, catalog, |cx, catalog| environment.keep(cx, Thing::Catalog(Arc::new(catalog))))
}

/// Asks a catalogue, JSON in and out: `get` with `[provider, model]`, `all`, `cost` with a question about a price;
/// `undefined` when it does not know.
pub fn ask<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (catalog, _) = known!(cx, 0, Catalog);
    let (what, question) = (words(&mut cx, 1)?, optional::<JsString>(&mut cx, 2)?);
    let question = question.map(|question| question.value(&mut cx)).unwrap_or_default();
    let found = match what.as_str() {
        "all" => catalog.all().and_then(|rows| written(&rows)).map(Some),
        "get" => serde_json::from_str::<(String, String)>(&question)
            .map_err(|error| LlmError::new(ErrorKind::InvalidRequest, error.to_string()))
            .and_then(|(provider, model)| {
                catalog.get(&provider, &model).map(|row| written(&*row)).transpose()
            }),
        _ => catalog_cost(&catalog, question.as_bytes())
            .and_then(|cost| cost.map(|cost| written(&cost)).transpose()),
    };
    given(&mut cx, found, |cx, found| match found {
        Some(found) => text(cx, &found).upcast(),
        None => cx.undefined().upcast(),
    })
}
