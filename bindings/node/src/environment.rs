//! From Tokio to an event loop: finished work queues up and is handed over a batch at a time.
//!
//! There is one `Environment` for each thread of JavaScript's (the main one, each worker). It ends with that thread:
//! then its calls are stopped, and what the runtime still brings for it is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use liter_llm::catalog::Catalog;
use liter_llm::telemetry::Recorder;
use liter_llm::{ErrorKind, LlmError};
use liter_llm_border::{Order, Outcome, ProcessMetrics, Question, Waiter, lock};
use neon::event::Channel;
use neon::handle::Root;
use neon::prelude::*;
use neon::thread::LocalKey;
use tokio::task::AbortHandle;

use crate::engine::Engine;
use crate::stream::Stream;
use crate::telemetry::Records;
use crate::{count, text};

/// How many of the arguments that JavaScript gets belong to one event: what it is, whose it is, and two more.
const STRIDE: usize = 4;

/// How many events JavaScript gets in one call: its arguments must fit on the stack.
const MOST_EVENTS: usize = 1024;

static CURRENT: LocalKey<Guard> = LocalKey::new();

/// What happened for JavaScript. The first value of each event is its place in this list.
enum Event {
    /// A call has ended: its answer and the provider's own bytes, or a batch of chunks, or an error.
    Done(u64, Outcome),
    /// A provider written in JavaScript is called.
    Order(u64, Order),
    /// Nobody waits for an order any more.
    Lost(u64),
    /// A policy written in JavaScript is asked.
    Question(u64, Question),
    /// Records of calls have come.
    Records(u64),
}

/// Something that JavaScript knows by a number.
#[derive(Clone)]
pub enum Thing {
    /// A client's engine.
    Engine(Arc<Engine>),
    /// A streamed answer.
    Stream(Arc<Stream>),
    /// A catalogue.
    Catalog(Arc<Catalog>),
    /// A call to a provider written in JavaScript.
    Order(Arc<Order>),
    /// A call that a policy written in JavaScript is to find an order for.
    Question(Arc<Question>),
    /// The record of one call.
    Recorder(Arc<Recorder>),
    /// The records of a client's calls.
    Records(Arc<Records>),
    /// Metrics of clients.
    Metrics(Arc<ProcessMetrics>),
}

/// What JavaScript knows by numbers.
#[derive(Default)]
struct Things {
    kept: HashMap<u64, Thing>,
    last: u64,
}

/// The calls that JavaScript waits for, and the channel that keeps its event loop alive meanwhile.
struct Waiting {
    calls: HashMap<u64, Option<AbortHandle>>,
    channel: Channel,
}

/// An event loop, as the runtime's threads see it.
pub struct Environment {
    queue: Mutex<Vec<Event>>,
    signalled: AtomicBool,
    ended: AtomicBool,
    /// Never keeps the event loop alive.
    channel: Channel,
    /// Used on JavaScript's thread alone, but for the end.
    waiting: Mutex<Waiting>,
    things: Mutex<Things>,
    deliver: Root<JsFunction>,
}

/// Ends with the thread of JavaScript's.
struct Guard(Arc<Environment>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Says where events go: a function that takes them as its arguments. Once for each thread of JavaScript's, before anything
/// else.
pub fn connect(mut cx: FunctionContext<'_>) -> JsResult<'_, JsUndefined> {
    let deliver = cx.argument::<JsFunction>(0)?;
    CURRENT.get_or_try_init(&mut cx, |cx| {
        let mut hold = Channel::new(cx);
        hold.unref(cx);
        let environment = Environment {
            queue: Mutex::new(Vec::new()),
            signalled: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            channel: hold.clone(),
            waiting: Mutex::new(Waiting { calls: HashMap::new(), channel: hold }),
            things: Mutex::default(),
            deliver: deliver.root(cx),
        };
        Ok::<_, neon::result::Throw>(Guard(Arc::new(environment)))
    })?;
    Ok(cx.undefined())
}

/// Stops a call: its connection is closed, and nothing is delivered for it.
pub fn cancel(mut cx: FunctionContext<'_>) -> JsResult<'_, JsUndefined> {
    let call = count(&mut cx, 0)?;
    if let Some(environment) = Environment::of(&mut cx)
        && let Some(Some(task)) = environment.forget(&mut cx, call)
    {
        task.abort();
    }
    Ok(cx.undefined())
}

/// Lets go of something: JavaScript does not know it any more.
pub fn free(mut cx: FunctionContext<'_>) -> JsResult<'_, JsUndefined> {
    let number = count(&mut cx, 0)?;
    if let Some(environment) = Environment::of(&mut cx) {
        drop(environment.let_go(number));
    }
    Ok(cx.undefined())
}

/// The error of a number that nothing has.
fn unknown() -> LlmError {
    LlmError::new(ErrorKind::Config, "there is no such thing in this thread")
}

/// Something, and the environment it is in.
pub type Found<T> = Result<(Arc<T>, Arc<Environment>), LlmError>;

/// What the argument at `position` stands for, picked out by `pick`; and the environment it is in.
pub fn thing<'cx, T>(
    cx: &mut FunctionContext<'cx>,
    position: usize,
    pick: impl FnOnce(Thing) -> Option<Arc<T>>,
) -> NeonResult<Found<T>> {
    let number = count(cx, position)?;
    let Some(environment) = Environment::of(cx) else { return Ok(Err(unknown())) };
    let found = lock(&environment.things).kept.get(&number).cloned();
    Ok(match found.and_then(pick) {
        Some(found) => Ok((found, environment)),
        None => Err(unknown()),
    })
}

/// `thing` for each kind of thing; leaves the function with the error when there is none.
macro_rules! known {
    ($cx:ident, $position:expr, $kind:ident) => {
        match $crate::environment::thing(&mut $cx, $position, |thing| match thing {
            $crate::environment::Thing::$kind(found) => Some(found),
            _ => None,
        })? {
            Ok(found) => found,
            Err(error) => return Ok($crate::refused(&mut $cx, &error)),
        }
    };
}
pub(crate) use known;

impl Environment {
    /// That of this thread; `None` before `connect`.
    pub fn of<'cx>(cx: &mut impl Context<'cx>) -> Option<Arc<Self>> {
        CURRENT.get(cx).map(|guard| Arc::clone(&guard.0))
    }

    /// Keeps something, and gives the number that JavaScript knows it by.
    pub fn keep<'cx>(&self, cx: &mut impl Context<'cx>, thing: Thing) -> Handle<'cx, JsValue> {
        let mut things = lock(&self.things);
        things.last += 1;
        let number = things.last;
        things.kept.insert(number, thing);
        drop(things);
        value_of(cx, number)
    }

    /// Lets go of what JavaScript knows by this number.
    pub fn let_go(&self, number: u64) -> Option<Thing> {
        lock(&self.things).kept.remove(&number)
    }

    /// Keeps the event loop alive until the call is done. `task`: how to stop it.
    pub fn expect<'cx>(&self, cx: &mut impl Context<'cx>, call: u64, task: Option<AbortHandle>) {
        let mut waiting = lock(&self.waiting);
        if waiting.calls.is_empty() {
            waiting.channel.reference(cx);
        }
        waiting.calls.insert(call, task);
    }

    /// Ends the waiting for a call; `None` when nobody waits for it.
    fn forget<'cx>(&self, cx: &mut impl Context<'cx>, call: u64) -> Option<Option<AbortHandle>> {
        let mut waiting = lock(&self.waiting);
        let task = waiting.calls.remove(&call)?;
        if waiting.calls.is_empty() {
            waiting.channel.unref(cx);
        }
        Some(task)
    }

    /// Hands over what a call came to.
    pub fn finish(self: &Arc<Self>, call: u64, outcome: Outcome) {
        self.push(Event::Done(call, outcome));
    }

    /// Has a provider written in JavaScript carry out an order; false when its thread has ended.
    pub fn order(self: &Arc<Self>, host: u64, order: Order) -> bool {
        self.push(Event::Order(host, order))
    }

    /// Says that nobody waits for an order any more.
    pub fn lost(self: &Arc<Self>, order: u64) {
        self.push(Event::Lost(order));
    }

    /// Has a policy written in JavaScript answer a question; false when its thread has ended.
    pub fn ask(self: &Arc<Self>, host: u64, question: Question) -> bool {
        self.push(Event::Question(host, question))
    }

    /// Says that records of calls have come.
    pub fn records(self: &Arc<Self>, number: u64) -> bool {
        self.push(Event::Records(number))
    }

    fn push(self: &Arc<Self>, event: Event) -> bool {
        if self.ended.load(Ordering::Acquire) {
            return false;
        }
        lock(&self.queue).push(event);
        if !self.signalled.swap(true, Ordering::AcqRel) {
            let environment = Arc::clone(self);
            // It fails when the thread is about to end; then nobody is there to be told.
            let drained = self.channel.try_send(move |mut cx| {
                environment.drain(&mut cx);
                Ok(())
            });
            return drained.is_ok();
        }
        true
    }

    /// Gives JavaScript everything that has happened, many events in one call.
    fn drain(&self, cx: &mut Cx<'_>) {
        // In this order: what is pushed after the swap sends a batch of its own.
        self.signalled.store(false, Ordering::Release);
        let mut events = std::mem::take(&mut *lock(&self.queue)).into_iter();
        while events.len() > 0 {
            let batch = events.by_ref().take(MOST_EVENTS).filter_map(|event| self.values(cx, event));
            let batch = batch.flatten().collect::<Vec<_>>();
            if batch.is_empty() {
                continue;
            }
            let (deliver, this) = (self.deliver.to_inner(cx), cx.undefined());
            // It throws nothing itself: a failure is the end of this thread, where nothing can be caught either.
            if deliver.call(cx, this, batch).is_err() {
                return forget_exception(cx);
            }
        }
    }

    /// An event as JavaScript gets it; `None` when nobody waits for it.
    fn values<'cx>(&self, cx: &mut Cx<'cx>, event: Event) -> Option<[Handle<'cx, JsValue>; STRIDE]> {
        let (kind, number) = match &event {
            Event::Done(call, outcome) => {
                self.forget(cx, *call)?;
                let kind = match outcome {
                    Outcome::Answer(..) => 0,
                    Outcome::Batch(_) => 1,
                    Outcome::Error(_) => 2,
                };
                (kind, *call)
            }
            Event::Order(host, _) => (3, *host),
            Event::Lost(order) => (4, *order),
            Event::Question(host, _) => (5, *host),
            Event::Records(number) => (6, *number),
        };
        let nothing = cx.undefined().upcast::<JsValue>();
        let (first, second) = match event {
            Event::Done(_, Outcome::Answer(json, raw)) => {
                // Text is cheaper to hand over than bytes, and nearly all answers are.
                let raw = match std::str::from_utf8(&raw) {
                    Ok(raw) => cx.string(raw).upcast(),
                    Err(_) => JsBuffer::from_slice(cx, &raw).map_or(nothing, |raw| raw.upcast()),
                };
                (text(cx, &json).upcast(), raw)
            }
            Event::Done(_, Outcome::Batch(json) | Outcome::Error(json)) => {
                (text(cx, &json).upcast(), nothing)
            }
            Event::Order(_, order) => {
                let request = text(cx, order.request()).upcast();
                (request, self.keep(cx, Thing::Order(Arc::new(order))))
            }
            Event::Lost(_) | Event::Records(_) => (nothing, nothing),
            Event::Question(_, question) => {
                let view = text(cx, question.view()).upcast();
                (view, self.keep(cx, Thing::Question(Arc::new(question))))
            }
        };
        Some([cx.number(kind).upcast(), value_of(cx, number), first, second])
    }

    /// Stops every call of this thread's.
    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let calls = std::mem::take(&mut lock(&self.waiting).calls);
        for task in calls.into_values().flatten() {
            task.abort();
        }
        drop(std::mem::take(&mut *lock(&self.queue)));
        let things = std::mem::take(&mut lock(&self.things).kept);
        drop(things);
    }
}

/// Takes an exception away. Neon would report one that is left, which a thread that is being terminated cannot.
#[expect(unsafe_code, reason = "Neon's own way of catching fails when there is none")]
fn forget_exception(cx: &Cx<'_>) {
    let mut exception = std::ptr::null_mut();
    // SAFETY: this runs on the environment's thread; the result is written to memory that is there, and not used.
    let _ = unsafe { neon::sys::bindings::get_and_clear_last_exception(cx.to_raw(), &raw mut exception) };
}

/// A number as JavaScript's. They count up from 1: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "nobody counts that far")]
fn value_of<'cx>(cx: &mut impl Context<'cx>, number: u64) -> Handle<'cx, JsValue> {
    cx.number(number as f64).upcast()
}

/// A call that waits for the next batch of a stream.
pub struct Call {
    /// Whose event loop.
    pub environment: Arc<Environment>,
    /// The call's number.
    pub number: u64,
}

impl Waiter for Call {
    fn wake(self, outcome: Outcome) {
        self.environment.finish(self.number, outcome);
    }
}
