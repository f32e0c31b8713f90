//! Providers and policies written in JavaScript: their orders and questions, as its thread sees them.

use neon::prelude::*;

use crate::environment::known;
use crate::{count, given, optional, told, words};

/// Whether chunks are wanted for an order; `undefined` when nobody waits for it. From now on an event with this number
/// tells when nobody does any more.
pub fn watch<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (order, environment) = known!(cx, 0, Order);
    let number = count(&mut cx, 1)?;
    let watched = order.when_lost(|| ((), Box::new(move || environment.lost(number))));
    Ok(match watched {
        Some(()) => cx.boolean(order.streaming()).upcast(),
        None => cx.undefined().upcast(),
    })
}

/// Says how an order goes on: `complete`, `chunk` or `fail` with JSON, or `end`. Returns whether somebody still waits.
pub fn report<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (order, _) = known!(cx, 0, Order);
    let (how, json) = (words(&mut cx, 1)?, optional::<JsString>(&mut cx, 2)?);
    let json = json.map(|json| json.value(&mut cx)).unwrap_or_default();
    let reported = match how.as_str() {
        "complete" => order.complete(json.as_bytes()),
        "chunk" => order.chunk(json.as_bytes()),
        "fail" => order.fail(json.as_bytes()),
        _ => {
            order.end();
            Ok(())
        }
    };
    given(&mut cx, reported, |cx, ()| cx.boolean(order.is_awaited()).upcast())
}

/// The whole request that a question is about, as JSON.
pub fn asked<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (question, _) = known!(cx, 0, Question);
    told(&mut cx, question.request())
}

/// Answers a question: with a JSON list of the candidates' names, best first; or, when the second argument is false,
/// with a text that says why there is no answer.
pub fn answer<'cx>(mut cx: FunctionContext<'cx>) -> JsResult<'cx, JsValue> {
    let (question, _) = known!(cx, 0, Question);
    let ordered = cx.argument::<JsBoolean>(1)?.value(&mut cx);
    let told = words(&mut cx, 2)?;
    match serde_json::from_str::<Vec<String>>(&told) {
        Ok(names) if ordered => question.answer(names),
        _ => question.fail(told),
    }
    Ok(cx.undefined().upcast())
}
