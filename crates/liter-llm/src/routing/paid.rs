//! The layer around a deployment that reserves what a call may cost before it is sent, and settles when it has ended.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use rust_decimal::prelude::ToPrimitive as _;
use serde_json::Value;

use super::budget::Budgets;
use super::ledger::{Amount, Bill, Charge, Ticket};
use super::member::Member;
use super::money::Money;
use crate::core::call::time_left;
use crate::core::chunk::LlmChunk;
use crate::core::cost::Cost;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::estimate;
use crate::core::json::RawJson;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::{Attempt, LlmResponse, Usage};
use crate::core::route::Pricing;

/// The longest wait for running calls to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer thought possible where neither the call nor the deployment bounds it, and none longer was seen.
const LONGEST: u64 = 16_384;
/// Output tokens thought usual before the first answer.
const USUAL: f64 = 1_000.0;
/// How much a new answer counts in what is usual.
const NEW: f64 = 0.1;
/// The most tokens for a byte of text; the estimate takes four bytes for a token.
const PER_BYTE: u64 = 4;
/// The most that a priority tier costs, as a multiple of the ordinary price.
const PRIORITY: u64 = 3;
/// Tokens that vendors add for a message.
const MESSAGE: u64 = 16;
/// Tokens that vendors add for a call, tools included.
const CALL: u64 = 512;

/// What is known of a deployment's answers.
#[derive(Debug, Clone, Copy)]
struct Answers {
    usual: f64,
    longest: u64,
}

/// A deployment whose calls are paid for.
pub struct Paid {
    inner: Arc<dyn LlmProvider>,
    budgets: Arc<Budgets>,
    name: Arc<str>,
    provider: String,
    model: String,
    tags: Vec<String>,
    notes_sending: bool,
    pricing: Option<Arc<dyn Pricing>>,
    /// The most tokens of input and output, and of output.
    context: Option<u64>,
    output: Option<u64>,
    answers: Arc<Mutex<Answers>>,
}

fn learn(answers: &Mutex<Answers>, output: u64) {
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    answers.usual += NEW * (output as f64 - answers.usual);
    answers.longest = answers.longest.max(output);
}

/// Whether a failed call is charged. A provider charges nothing for what it refuses.
fn is_free(error: &LlmError) -> bool {
    error.was_never_sent() || error.detail().status_code.is_some_and(|status| status >= 400)
}

/// Hedged requests that were given up: they were sent, and nobody knows what came of them.
fn given_up(attempts: &[Attempt]) -> u64 {
    attempts.iter().filter(|attempt| attempt.error.as_deref() == Some("cancelled")).count() as u64
}

/// The catalogue's word for what an answer cost: it knows the service tier, and the model that answered. Prices of the
/// operator's own go before it.
fn stated(pricing: Option<&dyn Pricing>, cost: Option<&Cost>) -> Option<Money> {
    if pricing.is_some_and(Pricing::is_own) {
        return None;
    }
    cost?.total.to_f64().and_then(Money::from_usd)
}

/// How many answers the request asks for.
fn choices(request: &LlmRequest) -> u64 {
    let asked = request.extra.get("n").and_then(|count| count.get().parse().ok());
    asked.unwrap_or(1).max(1)
}

impl Paid {
    /// Wraps `member`'s door.
    #[must_use]
    pub fn new(member: &Member, budgets: Arc<Budgets>) -> Self {
        Self {
            inner: Arc::clone(&member.door),
            budgets,
            name: Arc::clone(&member.name),
            provider: member.provider.clone(),
            model: member.model.clone(),
            tags: member.tags.clone(),
            notes_sending: member.notes_sending,
            pricing: member.pricing.clone(),
            context: member.capabilities.context,
            output: member.capabilities.output,
            answers: Arc::new(Mutex::new(Answers { usual: USUAL, longest: LONGEST / 2 })),
        }
    }

    /// The price list, unless the call names another model than the one whose prices are known.
    fn pricing(&self, model: Option<&str>) -> Option<&dyn Pricing> {
        let same = |model: &str| {
            let full = model.split_once('/');
            model == self.model || model == &*self.name || full == Some((&self.provider, &self.model))
        };
        self.pricing.as_deref().filter(|_| model.is_none_or(same))
    }

    fn answers(&self) -> Answers {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, usage: &Usage) {
        learn(&self.answers, usage.output_tokens);
    }

    /// What a call may cost; `None` when its price is not known.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of token counts")]
    fn amount(&self, request: &LlmRequest) -> Option<Amount> {
        let pricing = self.pricing(request.model.as_deref())?;
        let answers = self.answers();
        let count = choices(request);
        let estimated = estimate::input_tokens(request);
        let within = |tokens: u64| self.context.map_or(tokens, |context| tokens.min(context));
        let most_input = match request.previous_response_id {
            // The provider adds a conversation that nobody here has seen.
            Some(_) => self.context.unwrap_or(LONGEST.saturating_mul(8)),
            None => within(PER_BYTE * estimated + MESSAGE * request.messages.len() as u64 + CALL),
        };
        let bound = match (request.max_tokens, self.output.or(self.context)) {
            (Some(asked), Some(able)) => Some(asked.min(able)),
            (asked, able) => asked.or(able),
        };
        let most_output = bound.unwrap_or_else(|| answers.longest.saturating_mul(2)).saturating_mul(count);
        let usual = (answers.usual as u64).saturating_mul(count).min(most_output);
        let money = |input, output| pricing.estimate(input, output).and_then(Money::from_usd);
        // Faster tiers cost more; which this is, and how much, only the answer says.
        let tier = if request.service_tier.as_deref() == Some("priority") { PRIORITY } else { 1 };
        let ceiling = money(most_input, most_output)?.times(tier, 1);
        Some(Amount { ceiling, expected: money(estimated.min(most_input), usual)?.min(ceiling) })
    }

    fn unpriced(&self, model: Option<&str>) -> LlmError {
        let of = model.map(|model| format!(" of `{model}`")).unwrap_or_default();
        let remedy = match self.pricing {
            Some(_) => "make it a deployment of its own",
            None => "give the deployment a `price`",
        };
        let message = format!(
            "the price{of} at `{}` is not known, so a call under a budget may not go: {remedy}; nothing was sent",
            self.name
        );
        LlmError::new(ErrorKind::BudgetExceeded, message).with(|detail| {
            detail.before_send = true;
            detail.param = Some("price".to_owned());
        })
    }

    async fn reserve(
        &self,
        amount: Option<Amount>,
        key: Option<&str>,
        model: Option<&str>,
    ) -> Result<Ticket, LlmError> {
        if amount.is_none() && self.budgets.binds(&self.tags, key) {
            return Err(self.named(self.unpriced(model)));
        }
        let lines = || self.budgets.lines(&self.tags, key).into_iter().map(|(_, line)| line).collect();
        let bill = Bill { deployment: Arc::clone(&self.name), key: key.map(str::to_owned) };
        // What is left of the call's time is not all waited away.
        let patience = time_left().map_or(PATIENCE, |left| PATIENCE.min(left.mul_f64(0.9)));
        let reserved = self.budgets.ledger().reserve(lines, amount.unwrap_or_default(), bill, patience).await;
        reserved.map_err(|refusal| {
            self.named(self.budgets.refusal(refusal, &self.budgets.lines(&self.tags, key), key))
        })
    }

    fn named(&self, error: LlmError) -> LlmError {
        error.with(|detail| detail.provider = Some(self.inner.name().to_owned()))
    }

    fn cost(&self, usage: &Usage, model: Option<&str>) -> Option<Money> {
        self.pricing(model)?.cost(usage).and_then(Money::from_usd)
    }

    /// What an answered call is charged: its price by what it used, or what is usual when the provider does not say.
    fn charge(&self, answer: &LlmResponse, model: Option<&str>, amount: Amount) -> Charge {
        let usage = answer.usage.as_ref();
        if let Some(usage) = usage {
            self.learn(usage);
        }
        let stated = stated(self.pricing.as_deref(), answer.cost.as_deref());
        if stated.is_none() && self.pricing(model).is_none() {
            return Charge::Unpriced;
        }
        let lost = given_up(&answer.attempts);
        let cost = stated.or_else(|| self.cost(usage?, model)).unwrap_or(amount.expected);
        Charge::Cost(cost.plus(amount.expected.times(lost, 1)))
    }

    /// What a failed call is charged: nothing if it was refused or never sent; else what is usual, or what it is known
    /// to have used if that is more.
    fn charge_failed(
        &self,
        error: &LlmError,
        noted: Option<Money>,
        model: Option<&str>,
        amount: Amount,
    ) -> Charge {
        if is_free(error) && noted.is_none() {
            return Charge::Nothing;
        }
        if self.pricing(model).is_none() {
            return Charge::Unpriced;
        }
        let partial = error.detail().partial.as_ref().and_then(|answer| answer.usage.as_ref());
        let known = partial.and_then(|usage| self.cost(usage, model)).max(noted).unwrap_or_default();
        Charge::Cost(known.max(amount.expected))
    }
}

#[async_trait]
impl LlmProvider for Paid {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let model = request.model.clone();
        let model = model.as_deref();
        let mut ticket = self.reserve(self.amount(&request), Budgets::key(&request), model).await?;
        ticket.send();
        ticket.noted(self.notes_sending);
        let outcome = self.inner.generate(request).await;
        let amount = ticket.amount();
        let charge = match &outcome {
            Ok(answer) => self.charge(answer, model, amount),
            Err(error) => self.charge_failed(error, None, model, amount),
        };
        ticket.settle(charge).await;
        outcome
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let model = request.model.clone();
        let mut ticket =
            self.reserve(self.amount(&request), Budgets::key(&request), model.as_deref()).await?;
        ticket.send();
        ticket.noted(self.notes_sending);
        match self.inner.stream(request).await {
            Ok(chunks) => {
                let meter = Meter {
                    pricing: self.pricing(model.as_deref()).and(self.pricing.clone()),
                    noted: None,
                    output: None,
                    answers: Arc::clone(&self.answers),
                    lost: 0,
                    ticket: Some(ticket),
                };
                Ok(Box::pin(Metered { chunks, meter }))
            }
            Err(error) => {
                let charge = self.charge_failed(&error, None, model.as_deref(), ticket.amount());
                ticket.settle(charge).await;
                Err(error)
            }
        }
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        let body: Value = serde_json::from_str(operation.body.get()).unwrap_or_default();
        let model = body.get("model").and_then(Value::as_str).map(str::to_owned);
        let model = model.as_deref();
        let bytes = operation.body.get().len() as u64;
        let pricing = self.pricing(model);
        let price =
            |tokens| pricing.and_then(|pricing| pricing.estimate(tokens, 0)).and_then(Money::from_usd);
        let amount = price(bytes)
            .zip(price(estimate::of_text(operation.body.get().len())))
            .map(|(ceiling, expected)| Amount { ceiling, expected });
        let mut ticket = self.reserve(amount, None, model).await?;
        ticket.send();
        ticket.noted(self.notes_sending);
        let outcome = self.inner.operate(operation).await;
        let amount = ticket.amount();
        let charge = match &outcome {
            Ok(answer) => match (pricing, usage_of(answer).and_then(|usage| self.cost(&usage, model))) {
                (None, _) => Charge::Unpriced,
                (_, cost) => Charge::Cost(cost.unwrap_or(amount.expected)),
            },
            Err(error) => self.charge_failed(error, None, model, amount),
        };
        ticket.settle(charge).await;
        outcome
    }
}

/// The usage that the answer of an operation states, in the words of the vendors.
fn usage_of(answer: &RawJson) -> Option<Usage> {
    let answer: Value = serde_json::from_str(answer.get()).ok()?;
    let usage = answer.get("usage")?;
    let count = |names: [&str; 2]| names.iter().find_map(|name| usage.get(name)?.as_u64());
    let input_tokens = count(["prompt_tokens", "input_tokens"])?;
    let output_tokens = count(["completion_tokens", "output_tokens"]).unwrap_or_default();
    Some(Usage { input_tokens, output_tokens, ..Usage::default() })
}

/// What a stream has used so far.
struct Meter {
    pricing: Option<Arc<dyn Pricing>>,
    noted: Option<Money>,
    /// Output tokens, as last told.
    output: Option<u64>,
    answers: Arc<Mutex<Answers>>,
    /// Hedged requests that were given up.
    lost: u64,
    ticket: Option<Ticket>,
}

impl Meter {
    fn note(&mut self, usage: &Usage) {
        let cost = self.pricing.as_ref().and_then(|pricing| pricing.cost(usage)).and_then(Money::from_usd);
        self.noted = cost.max(self.noted);
        self.output = Some(usage.output_tokens);
    }

    /// `whole`: it came to its end, so that what it used is known.
    fn end(&mut self, whole: bool) {
        let Some(ticket) = self.ticket.take() else { return };
        if let Some(output) = self.output.filter(|_| whole) {
            learn(&self.answers, output);
        }
        let expected = ticket.amount().expected;
        let charge = match (&self.pricing, self.noted) {
            (None, None) => Charge::Unpriced,
            (_, Some(noted)) if whole => Charge::Cost(noted),
            (_, noted) => Charge::Cost(noted.unwrap_or_default().max(expected)),
        };
        let charge = match charge {
            Charge::Cost(cost) => Charge::Cost(cost.plus(expected.times(self.lost, 1))),
            other => other,
        };
        ticket.settle_soon(charge);
    }
}

/// A stream that is settled when it ends, breaks or is dropped.
struct Metered {
    chunks: ChunkStream,
    meter: Meter,
}

impl Stream for Metered {
    type Item = Result<LlmChunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(self.chunks.as_mut().poll_next(context));
        match &item {
            Some(Ok(chunk)) => {
                if let Some(usage) = &chunk.usage {
                    self.meter.note(usage);
                }
                let lost = chunk.facts.as_ref().map_or(0, |facts| given_up(&facts.attempts));
                self.meter.lost = self.meter.lost.max(lost);
                let cost = chunk.facts.as_ref().and_then(|facts| facts.cost.as_deref());
                if let Some(cost) = stated(self.meter.pricing.as_deref(), cost) {
                    self.meter.noted = Some(cost);
                }
            }
            Some(Err(_)) => self.meter.end(false),
            None => self.meter.end(true),
        }
        Poll::Ready(item)
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.meter.end(false);
    }
}
