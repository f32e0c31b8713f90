//! Budgets: how much calls may cost in an hour, a day or a month, for all of a router, for a tag or for a caller.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use serde::de::{MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, Deserializer, Serialize};

use super::calendar::{Calendar, Per, SystemCalendar, shown};
use super::ledger::{Ledger, Level, Line, Look, Refusal, Total, Window};
use super::member::Member;
use super::money::Money;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::notices::{NoticeKind, Notices};
use crate::core::request::LlmRequest;

/// The largest limit, in US dollars.
const MOST: f64 = 9_000_000.0;

const fn yes() -> bool {
    true
}

/// A budget, as it stands in the configuration document.
///
/// ```
/// use liter_llm::{BudgetOptions, Per, ProviderConfig, ProviderRouter, RouterOptions};
///
/// let budget = BudgetOptions {
///     usd: 50.0,
///     per: Per::Day,
///     scope: None,
///     degrade_to: None,
///     degrade_at: None,
///     hard: true,
///     path: None,
/// };
/// budget.validate()?;
/// let options = RouterOptions { budget: vec![budget], ..RouterOptions::default() };
/// let router = ProviderRouter::with_options([ProviderConfig::new("ollama").with_model("llama3")], options)?;
/// assert_eq!(router.spend()?.budgets[0].limit.usd(), 50.0);
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetOptions {
    /// How much may be spent in a window, in US dollars.
    pub usd: f64,
    /// The window.
    pub per: Per,
    /// Which calls count: `router` (all; the default), `tag:<tag>` (calls to deployments that have the tag), `key`
    /// (each caller's label has a budget of this size), `key:<label>` (that caller's, in place of one for each).
    #[serde(default)]
    pub scope: Option<String>,
    /// The deployment that calls go to first from `degrade_at` on: its name, or `provider/model`; neither the canary
    /// nor the mirror's.
    #[serde(default)]
    pub degrade_to: Option<String>,
    /// The share of the limit, from 0 to 1, from which calls go to `degrade_to`.
    #[serde(default)]
    pub degrade_at: Option<f64>,
    /// Whether calls are refused at the limit; true. One that is not hard counts and degrades.
    #[serde(default = "yes")]
    pub hard: bool,
    /// The SQLite file that keeps what was spent; default: in memory. A router has one for all its budgets.
    #[serde(default)]
    pub path: Option<PathBuf>,
}

/// Reads one budget, or a list of them.
pub(super) fn one_or_more<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<BudgetOptions>, D::Error> {
    struct Budgets;
    impl<'de> Visitor<'de> for Budgets {
        type Value = Vec<BudgetOptions>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a budget or a list of budgets")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            BudgetOptions::deserialize(value::MapAccessDeserializer::new(map)).map(|budget| vec![budget])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(value::SeqAccessDeserializer::new(list))
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Err(E::invalid_type(serde::de::Unexpected::Unit, &self))
        }
    }
    deserializer.deserialize_any(Budgets)
}

/// Which calls a budget counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Scope {
    Router,
    Tag(String),
    EachKey,
    Key(String),
}

impl Scope {
    fn read(text: Option<&str>) -> Option<Self> {
        Some(match text {
            None | Some("router") => Self::Router,
            Some("key") => Self::EachKey,
            Some(other) => match other.split_once(':') {
                Some(("tag", tag)) if !tag.is_empty() => Self::Tag(tag.to_owned()),
                Some(("key", label)) if !label.is_empty() => Self::Key(label.to_owned()),
                _ => return None,
            },
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router => formatter.write_str("router"),
            Self::EachKey => formatter.write_str("key"),
            Self::Tag(tag) => write!(formatter, "tag:{tag}"),
            Self::Key(label) => write!(formatter, "key:{label}"),
        }
    }
}

fn account(scope: &str, per: Per) -> Arc<str> {
    format!("{scope}/{}", per.as_str()).into()
}

impl BudgetOptions {
    /// Checks what can be checked without the deployments.
    ///
    /// # Errors
    /// `config` naming the option and the remedy.
    pub fn validate(&self) -> Result<(), LlmError> {
        let bad = |option: &str, what: &str| {
            Err(LlmError::config(format!("budget.{option}"), format!("`budget.{option}`: {what}")))
        };
        if !(self.usd > 0.0 && self.usd <= MOST) || Money::from_usd(self.usd) == Some(Money::ZERO) {
            return bad("usd", &format!("{} is no limit: give US dollars above 0, up to {MOST}", self.usd));
        }
        if Scope::read(self.scope.as_deref()).is_none() {
            let given = self.scope.as_deref().unwrap_or_default();
            return bad(
                "scope",
                &format!("`{given}` is none of `router`, `tag:<tag>`, `key`, `key:<label>`"),
            );
        }
        match (self.degrade_at, &self.degrade_to) {
            (Some(share), _) if !(0.0..=1.0).contains(&share) => {
                bad("degrade_at", &format!("{share} is no share of the limit: give a number from 0 to 1"))
            }
            (Some(_), None) => {
                bad("degrade_at", "says when, but not where calls are to go: give `degrade_to`")
            }
            (None, Some(_)) => {
                bad("degrade_to", "says where calls are to go, but not when: give `degrade_at`")
            }
            _ if self.path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) => {
                bad("path", "is empty: name a file, or leave it out")
            }
            _ => Ok(()),
        }
    }
}

/// The option at fault where a budget refuses whichever deployment a call goes to.
const ALL: &str = "budget";
/// The option at fault where nothing can be written.
const STORE: &str = "budget.path";

/// Whether this refusal would be the same at every deployment.
pub(super) fn bars_all(error: &LlmError) -> bool {
    error.detail().param.as_deref().is_some_and(|param| param == ALL || param == STORE)
}

struct Rule {
    scope: Scope,
    per: Per,
    limit: Money,
    hard: bool,
    /// From which share on calls go to which member.
    degrade: Option<(f64, usize)>,
    /// The account; for a budget of each key made from its label.
    account: Arc<str>,
}

impl Rule {
    fn title(&self, key: Option<&str>) -> String {
        let whose = match (&self.scope, key) {
            (Scope::EachKey, Some(key)) => format!("key:{key}"),
            (scope, _) => scope.to_string(),
        };
        let article = if self.per == Per::Hour { "an" } else { "a" };
        format!("the budget of {} USD {article} {} ({whose})", self.limit, self.per.as_str())
    }
}

/// A budget's window so far.
///
/// ```
/// use liter_llm::{BudgetSpend, Spend};
///
/// fn nearly_gone(spend: &Spend) -> Vec<&BudgetSpend> {
///     spend.budgets.iter().filter(|budget| budget.spent.usd() > 0.9 * budget.limit.usd()).collect()
/// }
///
/// assert!(nearly_gone(&Spend::default()).is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BudgetSpend {
    /// `router`, `tag:<tag>` or `key:<label>`; for budgets of each key one entry for each label with calls.
    pub scope: String,
    /// The kind of window.
    pub per: Per,
    /// The window, in seconds since 1970.
    pub window: Window,
    /// How much may be spent.
    pub limit: Money,
    /// Spent by calls that have ended.
    pub spent: Money,
    /// The most that the running calls can cost.
    pub reserved: Money,
    /// Calls that have ended and were charged.
    pub calls: u64,
    /// Calls that run.
    pub running: u64,
    /// Whether calls are refused at the limit.
    pub hard: bool,
}

/// A deployment's or a caller's share.
///
/// ```
/// use liter_llm::{Money, SpendOf, Total};
///
/// let spent = SpendOf { name: "ana".to_owned(), total: Total { spent: Money::ZERO, calls: 2, unpriced: 2 } };
/// assert_eq!(spent.total.calls, spent.total.unpriced);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpendOf {
    /// The deployment, or the caller's label.
    pub name: String,
    /// What it has cost.
    #[serde(flatten)]
    pub total: Total,
}

/// What calls have cost: since the router was made, or since its file was.
///
/// ```
/// use liter_llm::{ProviderConfig, ProviderRouter, Spend};
///
/// let router = ProviderRouter::new([ProviderConfig::new("ollama").with_model("llama3")])?;
/// let Spend { budgets, deployments, keys } = router.spend()?;
/// assert!(budgets.is_empty() && deployments.is_empty() && keys.is_empty(), "nothing was called yet");
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Spend {
    /// The budgets' present windows.
    pub budgets: Vec<BudgetSpend>,
    /// By deployment, in order of name.
    pub deployments: Vec<SpendOf>,
    /// By caller, in order of label.
    pub keys: Vec<SpendOf>,
}

/// The budgets of a router and the ledger they are kept in.
pub struct Budgets {
    rules: Vec<Rule>,
    /// Callers with a budget of their own, which replaces that of each key.
    own: HashSet<(String, Per)>,
    ledger: RwLock<Arc<Ledger>>,
    calendar: Arc<dyn Calendar>,
    /// Where it is told that a budget is used up, once there is such a place.
    pub(super) notices: OnceLock<Arc<Notices>>,
}

/// Budgets that are used up, for one call.
pub(super) struct UsedUp(Vec<(usize, Level)>);

impl Budgets {
    /// No budgets; what calls cost is added up all the same.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Arc::new(Self {
            rules: Vec::new(),
            own: HashSet::new(),
            ledger: RwLock::new(Ledger::in_memory()),
            calendar: Arc::new(SystemCalendar),
            notices: OnceLock::new(),
        })
    }

    /// The budgets of a router with these deployments.
    ///
    /// # Errors
    /// `config`: an unknown tag or deployment, two budgets of the same calls and window, two files, or a file that
    /// cannot be used.
    pub fn new(
        options: &[BudgetOptions],
        members: &[Member],
        calendar: Arc<dyn Calendar>,
    ) -> Result<Arc<Self>, LlmError> {
        let bad = |option: &str, what: String| {
            Err(LlmError::config(format!("budget.{option}"), format!("`budget.{option}`: {what}")))
        };
        let mut rules: Vec<Rule> = Vec::with_capacity(options.len());
        let mut path: Option<&PathBuf> = None;
        for budget in options {
            budget.validate()?;
            let scope = Scope::read(budget.scope.as_deref()).unwrap_or(Scope::Router);
            if let Scope::Tag(tag) = &scope
                && !members.iter().any(|member| member.tags.contains(tag))
            {
                return bad("scope", format!("no deployment has the tag `{tag}`"));
            }
            let degrade = match (&budget.degrade_to, budget.degrade_at) {
                (Some(name), Some(share)) => {
                    match members.iter().position(|member| member.answers_to(name)) {
                        Some(position) => Some((share, position)),
                        None => {
                            let known: Vec<&str> = members.iter().map(|member| &*member.name).collect();
                            return bad(
                                "degrade_to",
                                format!("no deployment is `{name}`; there are {}", known.join(", ")),
                            );
                        }
                    }
                }
                _ => None,
            };
            if rules.iter().any(|rule| rule.scope == scope && rule.per == budget.per) {
                return bad("scope", format!("two budgets are for `{scope}` per {}", budget.per.as_str()));
            }
            if let (Some(one), Some(other)) = (path, &budget.path)
                && one != other
            {
                return bad(
                    "path",
                    "a router keeps all its budgets in one file: give the same to all".to_owned(),
                );
            }
            path = path.or(budget.path.as_ref());
            rules.push(Rule {
                account: account(&scope.to_string(), budget.per),
                scope,
                per: budget.per,
                limit: Money::from_usd(budget.usd).unwrap_or_default(),
                hard: budget.hard,
                degrade,
            });
        }
        let own = rules.iter().filter_map(|rule| match &rule.scope {
            Scope::Key(label) => Some((label.clone(), rule.per)),
            _ => None,
        });
        let own = own.collect();
        let ledger = match path {
            Some(path) => Ledger::at(path)?,
            None => Ledger::in_memory(),
        };
        Ok(Arc::new(Self { rules, own, ledger: RwLock::new(ledger), calendar, notices: OnceLock::new() }))
    }

    /// Whether there are any.
    #[must_use]
    pub const fn any(&self) -> bool {
        !self.rules.is_empty()
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes on with the ledger of `old`, so that what was spent and is reserved stays; unless these budgets name another
    /// file, whose own contents count then.
    pub fn take_over(&self, old: &Self) {
        let theirs = old.ledger();
        let mut ours = self.ledger.write().unwrap_or_else(PoisonError::into_inner);
        if ours.path() == theirs.path() {
            *ours = theirs;
        }
    }

    /// Seconds since 1970, and the rest.
    fn now(&self) -> Duration {
        self.calendar.now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn second(&self) -> i64 {
        i64::try_from(self.now().as_secs()).unwrap_or(i64::MAX)
    }

    /// The account of a rule for a caller, if the rule counts that caller's calls.
    fn account(&self, rule: &Rule, key: Option<&str>) -> Option<Arc<str>> {
        match (&rule.scope, key) {
            (Scope::Router | Scope::Tag(_), _) => Some(Arc::clone(&rule.account)),
            (Scope::Key(label), Some(key)) if label == key => Some(Arc::clone(&rule.account)),
            (Scope::EachKey, Some(key))
                if self.own.is_empty() || !self.own.contains(&(key.to_owned(), rule.per)) =>
            {
                Some(account(&format!("key:{key}"), rule.per))
            }
            _ => None,
        }
    }

    fn counts(rule: &Rule, tags: &[String]) -> bool {
        match &rule.scope {
            Scope::Tag(tag) => tags.contains(tag),
            _ => true,
        }
    }

    /// The rules that count a call to a deployment with these tags, and what it is booked to.
    pub(super) fn lines(&self, tags: &[String], key: Option<&str>) -> Vec<(usize, Line)> {
        let second = self.second();
        let line = |(position, rule): (usize, &Rule)| {
            let account = Self::counts(rule, tags).then(|| self.account(rule, key)).flatten()?;
            let line = Line { account, window: rule.per.window(second), limit: rule.limit, hard: rule.hard };
            Some((position, line))
        };
        self.rules.iter().enumerate().filter_map(line).collect()
    }

    /// Whether a call to a deployment with these tags is refused at a limit.
    pub(super) fn binds(&self, tags: &[String], key: Option<&str>) -> bool {
        let binds = |rule: &Rule| rule.hard && Self::counts(rule, tags) && self.account(rule, key).is_some();
        self.rules.iter().any(binds)
    }

    fn level(&self, rule: &Rule, key: Option<&str>, second: i64) -> Option<Level> {
        let account = self.account(rule, key)?;
        Some(self.ledger().level(&account, rule.per.window(second)))
    }

    /// The hard budgets of this caller that are used up, as far as this process knows.
    pub(super) fn used_up(&self, key: Option<&str>) -> UsedUp {
        let second = self.second();
        let used = |(position, rule): (usize, &Rule)| {
            let level = rule.hard.then(|| self.level(rule, key, second)).flatten()?;
            (level.look(rule.limit) == Look::Stop).then_some((position, level))
        };
        let mut used: Vec<_> = self.rules.iter().enumerate().filter_map(used).collect();
        // What bars every deployment is named before what bars some.
        used.sort_by_key(|(position, _)| matches!(self.rules[*position].scope, Scope::Tag(_)));
        UsedUp(used)
    }

    /// The first of these that counts calls to a deployment with these tags.
    pub(super) fn bars(&self, used_up: &UsedUp, tags: &[String]) -> Option<usize> {
        let counts = |(position, _): &&(usize, Level)| Self::counts(&self.rules[*position], tags);
        used_up.0.iter().find(counts).map(|(position, _)| *position)
    }

    /// The deployments that budgets degrade to.
    pub(super) fn degrades_to(&self) -> impl Iterator<Item = usize> {
        self.rules.iter().filter_map(|rule| rule.degrade.map(|(_, position)| position))
    }

    /// Where a call that would go to a deployment with these tags is to go instead, and why.
    pub(super) fn degraded(&self, tags: &[String], key: Option<&str>) -> Option<(usize, String)> {
        let second = self.second();
        self.rules.iter().filter(|rule| Self::counts(rule, tags)).find_map(|rule| {
            let (share, position) = rule.degrade?;
            let level = self.level(rule, key, second)?;
            let used = level.spent.plus(level.expected).usd() / rule.limit.usd();
            (used >= share).then(|| (position, format!("{} at {:.0} %", rule.title(key), 100.0 * used)))
        })
    }

    pub(super) fn title(&self, rule: usize, key: Option<&str>) -> String {
        self.rules.get(rule).map(|rule| rule.title(key)).unwrap_or_default()
    }

    /// The error for a call that a budget, as it now stands, refuses.
    pub(super) fn used_up_error(&self, rule: usize, key: Option<&str>) -> LlmError {
        let level = self.rules.get(rule).and_then(|rule| self.level(rule, key, self.second()));
        self.refused(rule, key, level.unwrap_or_default(), "is used up")
    }

    fn refused(&self, rule: usize, key: Option<&str>, level: Level, what: &str) -> LlmError {
        let Some(rule) = self.rules.get(rule) else {
            return LlmError::new(ErrorKind::BudgetExceeded, what).with(|detail| detail.before_send = true);
        };
        let now = self.now();
        let end = rule.per.window(self.second()).end;
        if let Some(notices) = self.notices.get() {
            let title = rule.title(key);
            notices.add(NoticeKind::BudgetReached, &title, "", || format!("{title} {what}"));
        }
        let message = format!(
            "{} {what}: {} USD spent, {} USD reserved by {} running calls; it begins anew at {}; nothing was sent",
            rule.title(key),
            level.spent,
            level.reserved,
            level.running,
            shown(end)
        );
        LlmError::new(ErrorKind::BudgetExceeded, message).with(|detail| {
            detail.before_send = true;
            detail.param = (!matches!(rule.scope, Scope::Tag(_))).then(|| ALL.to_owned());
            detail.retry_after = Some((end as f64 - now.as_secs_f64()).max(0.0));
        })
    }

    /// The error for a call without a reservation. `lines`: as asked last.
    pub(super) fn refusal(&self, refusal: Refusal, lines: &[(usize, Line)], key: Option<&str>) -> LlmError {
        let rule = |line: usize| lines.get(line).map_or(usize::MAX, |(rule, _)| *rule);
        match refusal {
            Refusal::Full((line, level)) => self.refused(rule(line), key, level, "is used up"),
            Refusal::Held((line, level)) => self.refused(
                rule(line),
                key,
                level,
                "is held by running calls, for as long as this one could wait",
            ),
            Refusal::Failed(why) => {
                let path = self.ledger().path().map(|path| path.display().to_string()).unwrap_or_default();
                let message = format!(
                    "what was spent cannot be written to `{path}`, so the call may not go: {why}; nothing was sent"
                );
                LlmError::new(ErrorKind::BudgetExceeded, message).with(|detail| {
                    detail.before_send = true;
                    detail.param = Some(STORE.to_owned());
                })
            }
        }
    }

    /// What calls have cost. From a file it reads that file, which may take a few milliseconds.
    ///
    /// # Errors
    /// `budget_exceeded`, as for a call: the file cannot be read.
    pub fn spend(&self) -> Result<Spend, LlmError> {
        let second = self.second();
        let snapshot =
            self.ledger().snapshot().map_err(|why| self.refusal(Refusal::Failed(why), &[], None))?;
        let mut budgets = Vec::new();
        for rule in &self.rules {
            let window = rule.per.window(second);
            let mut entry = |scope: String, level: Level| {
                budgets.push(BudgetSpend {
                    scope,
                    per: rule.per,
                    window,
                    limit: rule.limit,
                    spent: level.spent,
                    reserved: level.reserved,
                    calls: level.calls,
                    running: level.running,
                    hard: rule.hard,
                });
            };
            let present = || snapshot.accounts.iter().filter(|(_, start, _)| *start >= window.start);
            if rule.scope == Scope::EachKey {
                let suffix = format!("/{}", rule.per.as_str());
                let mut found: Vec<_> = present()
                    .filter_map(|(name, _, level)| Some((name.strip_suffix(&suffix)?, *level)))
                    .filter(|(scope, _)| {
                        let label = scope.strip_prefix("key:");
                        label.is_some_and(|label| !self.own.contains(&(label.to_owned(), rule.per)))
                    })
                    .collect();
                found.sort_by_key(|(scope, _)| *scope);
                found.into_iter().for_each(|(scope, level)| entry(scope.to_owned(), level));
            } else {
                let level = present().find(|(name, ..)| *name == rule.account).map(|(_, _, level)| *level);
                entry(rule.scope.to_string(), level.unwrap_or_default());
            }
        }
        let sorted = |totals: Vec<(String, Total)>| {
            let mut all: Vec<_> = totals.into_iter().map(|(name, total)| SpendOf { name, total }).collect();
            all.sort_by(|one, other| one.name.cmp(&other.name));
            all
        };
        Ok(Spend { budgets, deployments: sorted(snapshot.deployments), keys: sorted(snapshot.keys) })
    }

    /// A caller's label.
    pub(super) fn key(request: &LlmRequest) -> Option<&str> {
        request.route.as_ref().and_then(|route| route.key.as_deref())
    }
}
