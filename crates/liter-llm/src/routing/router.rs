//! The router: rules out what cannot take a call, lets the policy put the rest in order, and keeps the sick at the end.

use std::sync::Arc;
use std::time::Duration;

use super::budget::{Budgets, Spend};
use super::calendar::SystemCalendar;
use super::course::{Alone, Way};
use super::custom::{self, CustomPolicy, Own};
use super::experiments::Experiments;
use super::guard::Arm;
use super::measured::Measured;
use super::member::Member;
use super::needs;
use super::options::RouterOptions;
use super::paid::Paid;
use super::policy::{self, CallView, Policy, Priority};
use super::stats::Stats;
use super::trial;
use crate::core::clock::Clock;
use crate::core::error::LlmError;
use crate::core::estimate;
use crate::core::notices::{NoticeKind, Notices};
use crate::core::provider::LlmProvider;
use crate::core::request::LlmRequest;
use crate::core::route::{Candidates, Circuit, Course, Planned, Route, RouteOptions};

/// The [`sickness`](Router::sickness) of a deployment that takes no calls now.
pub(super) const CLOSED: u8 = 3;

/// Why a deployment cannot take a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The router or the call allows other regions only.
    Region,
    /// A required tag is missing, or it has a forbidden one.
    Tags,
    /// The call names another model.
    Model,
    /// It is known not to have these needs.
    Lacks(u32),
    /// The prompt is longer than the context.
    Context(u64),
    /// It is a canary that was worse than the others.
    RolledBack,
    /// This budget is used up.
    Budget(usize),
}

/// The deployments and how to pick among them.
pub struct Router {
    pub(super) name: String,
    pub(super) members: Vec<Member>,
    pub(super) options: RouterOptions,
    pub(super) policy: Box<dyn Policy>,
    /// The caller's own policy, asked before the call; `policy` stands in for it.
    pub(super) own: Option<Own>,
    pub(super) clock: Arc<dyn Clock>,
    /// The doors as they were, for trials: their times and outcomes do not count as those of calls.
    pub(super) bare: Vec<Arc<dyn LlmProvider>>,
    pub(super) experiments: Experiments,
    pub(super) budgets: Arc<Budgets>,
    /// What the router's own rules say of each member.
    barred: Vec<Option<Why>>,
    /// Whether anything is known of what any member can do.
    discerning: bool,
}

/// One call's candidates.
#[derive(Default)]
pub(super) struct Choice {
    /// Who may answer, best first; those that failed lately and then those that take no calls at the end.
    pub open: Vec<usize>,
    /// Those of them that failed lately and would take a call.
    pub suspects: Vec<usize>,
    /// Who may not, and why.
    pub out: Vec<(usize, Why)>,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Remarks for the call's route.
    pub notes: Vec<String>,
    /// Who may answer, but is not in `open` because experiments have a place for it.
    pub held: Vec<usize>,
    /// How many at the end of `open` are for when all others failed.
    pub reserve: usize,
    /// Whether a budget has its say in who is first.
    pub degraded: bool,
    /// Whose call it is where a canary is compared with the others, and a number for the call's sticky word.
    pub compared: Option<(Arm, Option<u64>)>,
}

fn has(tags: &[String], tag: &String) -> bool {
    tags.contains(tag)
}

impl Router {
    /// A router over these deployments. Their doors are wrapped so that their statistics are kept.
    ///
    /// # Errors
    /// `config`: no deployments, two of the same name, an unknown policy or region, or rules that leave none.
    pub fn new(
        name: impl Into<String>,
        mut members: Vec<Member>,
        options: RouterOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LlmError> {
        options.validate()?;
        check(&members, &options)?;
        let budgets = Budgets::new(&options.budget, &members, Arc::new(SystemCalendar))?;
        let several = members.len() > 1;
        let bare = members.iter_mut().map(|member| wrap(member, &budgets, &clock, several)).collect();
        let Some(policy) = policy::by_name(&options.policy) else {
            return Err(LlmError::config("policy", format!("`policy`: `{}` is unknown", options.policy)));
        };
        let rules = RouteOptions {
            regions: options.regions.clone(),
            require_tags: options.require_tags.clone(),
            forbid_tags: options.forbid_tags.clone(),
            ..RouteOptions::default()
        };
        let barred: Vec<_> = members.iter().map(|member| against(member, &rules)).collect();
        if barred.iter().all(Option::is_some) {
            return Err(LlmError::config(
                "deployments",
                "`deployments`: the router's own `regions` and tags rule out every one of them",
            ));
        }
        let discerning = members
            .iter()
            .any(|member| member.capabilities.known != 0 || member.capabilities.context.is_some());
        let experiments = Experiments::new(&options, &members, clock.now())?;
        experiments.check_degrading(&budgets, &members)?;
        Ok(Self {
            name: name.into(),
            members,
            options,
            policy,
            own: None,
            clock,
            bare,
            experiments,
            budgets,
            barred,
            discerning,
        })
    }

    /// A router of one: always that deployment.
    #[must_use]
    pub fn of_one(mut member: Member, clock: Arc<dyn Clock>) -> Self {
        let budgets = Budgets::none();
        let bare = vec![wrap(&mut member, &budgets, &clock, false)];
        Self {
            name: member.door.name().to_owned(),
            members: vec![member],
            options: RouterOptions::default(),
            policy: Box::new(Priority),
            own: None,
            clock,
            budgets,
            barred: vec![None],
            bare,
            experiments: Experiments::default(),
            discerning: false,
        }
    }

    /// Lets a policy of the caller's own put the candidates in order; the configured one holds when it fails.
    #[must_use]
    pub fn with_policy(mut self, policy: Arc<dyn CustomPolicy>) -> Self {
        self.own = Some(Own::new(policy));
        self
    }

    /// The name of the policy: the configured one or the caller's own.
    #[must_use]
    pub fn policy_name(&self) -> &str {
        self.own.as_ref().map_or_else(|| self.policy.name(), Own::name)
    }

    /// The deployments, in the order of the configuration.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The rules.
    #[must_use]
    pub const fn options(&self) -> &RouterOptions {
        &self.options
    }

    /// The clock the statistics go by.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(super) fn lacks(&self, position: usize, needs: u32, input: u64) -> Option<Why> {
        let able = &self.members[position].capabilities;
        let lacking = needs & able.known & !able.can & !needs::FINE_TUNED;
        if lacking != 0 {
            return Some(Why::Lacks(lacking));
        }
        // The estimate is rough: only what is clearly too long is ruled out.
        able.context.filter(|context| input > context.saturating_add(context / 10)).map(Why::Context)
    }

    /// What calls have cost, by budget, deployment and caller. With a file it reads that, which may take a few
    /// milliseconds.
    ///
    /// # Errors
    /// `budget_exceeded`: the file cannot be read.
    pub fn spend(&self) -> Result<Spend, LlmError> {
        self.budgets.spend()
    }

    /// Has it told here when a budget is used up or degrades, or a canary is rolled back.
    pub(crate) fn notify(&self, notices: &Arc<Notices>) {
        let _ = self.budgets.notices.set(Arc::clone(notices));
    }

    pub(super) fn notices(&self) -> Option<&Arc<Notices>> {
        self.budgets.notices.get()
    }

    /// Whether there are budgets.
    pub(crate) fn has_budgets(&self) -> bool {
        self.budgets.any()
    }

    /// Goes on with what calls through `old` have spent and still reserve, for a router that replaces it. Budgets that
    /// are kept in another file than `old`'s go on with that file instead. A canary and a mirror of which nothing has
    /// changed go on with what they know.
    pub fn take_over(&self, old: &Self) {
        self.budgets.take_over(&old.budgets);
        self.experiments.take_over(&old.experiments, self.clock.now());
    }

    /// What the router's and the call's own regions and tags say against a deployment.
    pub(super) fn forbidden(&self, position: usize, request: &LlmRequest) -> Option<Why> {
        let asked = || request.route.as_ref().and_then(|asked| against(&self.members[position], asked));
        self.barred[position].or_else(asked)
    }

    pub(super) fn why_not(
        &self,
        position: usize,
        request: &LlmRequest,
        needs: u32,
        input: u64,
    ) -> Option<Why> {
        let member = &self.members[position];
        if let Some(why) = self.forbidden(position, request) {
            return Some(why);
        }
        if let Some(why) = request.model.as_deref().and_then(|model| self.not_meant(member, model, needs)) {
            return Some(why);
        }
        self.experiments
            .is_rolled_back(position)
            .then_some(Why::RolledBack)
            .or_else(|| self.lacks(position, needs, input))
    }

    /// Why a call that names this model is not for a deployment. A fine-tuned model that is nobody's own goes where
    /// fine-tuned ones are known to be; to the only deployment also where that is not known.
    fn not_meant(&self, member: &Member, model: &str, needs: u32) -> Option<Why> {
        let (able, one) = (&member.capabilities, self.members.len() == 1);
        if needs & needs::FINE_TUNED == 0 || self.members.iter().any(|member| member.answers_to(model)) {
            return (!one && !member.answers_to(model)).then_some(Why::Model);
        }
        let may = if one { able.can | !able.known } else { able.can & able.known };
        (may & needs::FINE_TUNED == 0).then_some(Why::Lacks(needs::FINE_TUNED))
    }

    /// Whether there is one deployment, and nothing but a call's own `route` can rule it out.
    fn is_plain(&self) -> bool {
        self.members.len() == 1 && !self.discerning && self.barred == [None] && !self.budgets.any()
    }

    /// Who may take this call, best first. Those that experiments have a place for are [`seated`](Self::seated) after.
    pub(super) fn choose(&self, request: &LlmRequest, streamed: bool) -> Choice {
        let alone = self.members.len() == 1;
        let needs = if self.discerning || !alone { needs::of(request) } else { 0 };
        let input = if alone && !self.discerning { 0 } else { estimate::input_tokens(request) };
        let mut choice = Choice {
            open: Vec::with_capacity(self.members.len()),
            input_tokens: input,
            output_tokens: estimate::output_tokens(request),
            ..Choice::default()
        };
        let key = Budgets::key(request);
        let used_up = self.budgets.any().then(|| self.budgets.used_up(key));
        let broke = |position: usize| {
            self.budgets.bars(used_up.as_ref()?, &self.members[position].tags).map(Why::Budget)
        };
        for position in 0..self.members.len() {
            match self.why_not(position, request, needs, input).or_else(|| broke(position)) {
                None if self.experiments.holds(position) => choice.held.push(position),
                None => choice.open.push(position),
                Some(why) => choice.out.push((position, why)),
            }
        }
        if choice.open.len() > 1 {
            let now = self.clock.now();
            let mut open = std::mem::take(&mut choice.open);
            self.policy.order(&self.view(request, streamed, now, &choice), &mut open);
            if needs != 0 {
                open.sort_by_key(|position| self.members[*position].is_doubtful(needs));
            }
            self.sick_last(&mut choice, open);
            if self.budgets.any() {
                self.degrade(&mut choice, key);
            }
        }
        choice
    }

    /// Takes over this order, the sick at its end. Once [`Route::LISTED`] healthy ones are found, the rest is not looked
    /// at: a call does not come that far, and if it does, whoever is next is looked at then.
    fn sick_last(&self, choice: &mut Choice, order: Vec<usize>) {
        choice.suspects.clear();
        let (mut healthy, mut closed) = (0, Vec::new());
        let mut open = order;
        let mut at = 0;
        let mut kept = 0;
        while at < open.len() && healthy < Route::LISTED {
            let position = open[at];
            match self.sickness(position) {
                0 => {
                    open[kept] = position;
                    kept += 1;
                    healthy += 1;
                }
                CLOSED => closed.push(position),
                _ => choice.suspects.push(position),
            }
            at += 1;
        }
        if kept < at {
            // When the last healthy one fails once, it comes before those that are known to hang.
            choice.suspects.sort_by_key(|position| self.sickness(*position));
            open.copy_within(at.., kept);
            open.truncate(kept + open.len() - at);
            open.extend_from_slice(&choice.suspects);
            open.append(&mut closed);
        }
        choice.open = open;
    }

    /// [`choose`](Self::choose), in the order that the caller's own policy gives.
    async fn choose_by(&self, own: &Own, request: &LlmRequest, streamed: bool) -> Choice {
        let mut choice = self.choose(request, streamed);
        if choice.open.len() < 2 {
            return choice;
        }
        let now = self.clock.now();
        let (call, candidates) = custom::views(&self.view(request, streamed, now, &choice), &choice.open);
        match own.order(call, candidates).await {
            Ok(places) => {
                let open = places.into_iter().map(|place| choice.open[place]).collect();
                choice.notes.clear();
                choice.degraded = false;
                self.sick_last(&mut choice, open);
                if self.budgets.any() {
                    self.degrade(&mut choice, Budgets::key(request));
                }
            }
            Err(note) => choice.notes.push(note),
        }
        choice
    }

    /// Puts the deployment that a budget degrades to first, if that budget has come so far.
    fn degrade(&self, choice: &mut Choice, key: Option<&str>) {
        let first = &self.members[choice.open[0]];
        let Some((target, why)) = self.budgets.degraded(&first.tags, key) else { return };
        let name = &self.members[target].name;
        choice.degraded = true;
        match choice.open.iter().position(|position| *position == target) {
            Some(0) => {}
            Some(place) if self.sickness(target) < CLOSED => {
                choice.open[..=place].rotate_right(1);
                if let Some(notices) = self.notices() {
                    notices.add(NoticeKind::BudgetDegraded, name, name, || why.clone());
                }
                choice.notes.push(format!("{why}: degraded to `{name}`"));
            }
            _ => choice.notes.push(format!("{why}: `{name}` cannot take this call")),
        }
    }

    fn view<'a>(
        &'a self,
        request: &'a LlmRequest,
        streamed: bool,
        now: Duration,
        choice: &Choice,
    ) -> CallView<'a> {
        CallView {
            request,
            streamed,
            members: &self.members,
            now,
            input_tokens: choice.input_tokens,
            output_tokens: choice.output_tokens,
        }
    }

    /// How little is to be expected: 0, it takes calls; 1, it failed once since it last answered; 2, several times, or it
    /// has fallen silent; [`CLOSED`], it takes none.
    pub(super) fn sickness(&self, position: usize) -> u8 {
        let member = &self.members[position];
        let standing = member.stands.standing();
        if standing.closed_for.is_some() {
            return CLOSED;
        }
        // Calls in line are answered late through no fault of its own.
        let silent = || standing.waiting == 0 && member.stats.is_silent(|| self.clock.now());
        match member.stats.doubts() {
            _ if standing.circuit == Circuit::HalfOpen || silent() => 2,
            doubts => u8::try_from(doubts.min(2)).unwrap_or(2),
        }
    }

    /// Where a call would go and why, with every deployment listed. Nothing is sent.
    pub async fn explain(self: &Arc<Self>, request: &LlmRequest, streamed: bool) -> Route {
        let choice = match &self.own {
            Some(own) => self.choose_by(own, request, streamed).await,
            None => self.choose(request, streamed),
        };
        let choice = self.seated(choice, request);
        Way::new(Arc::clone(self), request, streamed, choice).explain(usize::MAX)
    }

    /// The position of the deployment a call would go to first.
    ///
    /// # Errors
    /// `no_candidate`.
    pub async fn select(&self, request: &LlmRequest) -> Result<usize, LlmError> {
        let choice = match &self.own {
            Some(own) => self.choose_by(own, request, false).await,
            None => self.choose(request, false),
        };
        let choice = self.seated(choice, request);
        choice.open.first().copied().ok_or_else(|| self.nobody(request, &choice.out))
    }
}

/// Puts a member's door behind its statistics and, outside of these (a wait for money is no slowness of the
/// deployment's), its price. Gives the door for trials: paid for, but not counted as calls are.
fn wrap(
    member: &mut Member,
    budgets: &Arc<Budgets>,
    clock: &Arc<dyn Clock>,
    beside_others: bool,
) -> Arc<dyn LlmProvider> {
    let raw = Arc::clone(&member.door);
    let paid = budgets.any() || member.pricing.is_some();
    let bare: Arc<dyn LlmProvider> = match paid {
        true => Arc::new(Paid::new(member, Arc::clone(budgets))),
        false => Arc::clone(&raw),
    };
    let (name, stats) = (Arc::clone(&member.name), Arc::clone(&member.stats));
    member.door = Arc::new(Measured::new(raw, name, stats, Arc::clone(clock), beside_others));
    if paid {
        member.door = Arc::new(Paid::new(member, Arc::clone(budgets)));
    }
    bare
}

/// What these rules say against a deployment.
fn against(member: &Member, rules: &RouteOptions) -> Option<Why> {
    let region = || member.region.as_ref().is_some_and(|region| rules.regions.contains(region));
    if !rules.regions.is_empty() && !region() {
        return Some(Why::Region);
    }
    let fits = rules.require_tags.iter().all(|tag| has(&member.tags, tag))
        && !rules.forbid_tags.iter().any(|tag| has(&member.tags, tag));
    (!fits).then_some(Why::Tags)
}

fn check(members: &[Member], options: &RouterOptions) -> Result<(), LlmError> {
    let bad = |option: &str, what: String| Err(LlmError::config(option, format!("`{option}`: {what}")));
    if members.is_empty() {
        return bad("deployments", "is empty: a router needs at least one deployment".to_owned());
    }
    for (position, member) in members.iter().enumerate() {
        if members[..position].iter().any(|other| other.name == member.name) {
            return bad("deployments", format!("two are named `{0}`: give one another `name`", member.name));
        }
        if !(member.weight >= 0.0 && member.weight.is_finite()) {
            return bad(
                "weight",
                format!("{} of `{}` is not a number from 0 up", member.weight, member.name),
            );
        }
    }
    if options.policy == "weighted" && members.iter().all(|member| member.weight == 0.0) {
        return bad("weight", "the weights do not add up: all are 0 under the policy `weighted`".to_owned());
    }
    let known = |region: &String| members.iter().any(|member| member.region.as_ref() == Some(region));
    match options.regions.iter().find(|region| !known(region)) {
        Some(region) => bad("regions", format!("no deployment is in `{region}`")),
        None => Ok(()),
    }
}

/// A router as the attempts loop sees it.
pub struct Deployments(pub Arc<Router>);

impl Candidates for Deployments {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn course<'a>(&'a self, request: &'a LlmRequest, streamed: bool) -> Planned<'a> {
        let router = &self.0;
        if router.is_plain() && request.route.is_none() {
            return Planned::Now(Ok(Box::new(Alone::new(Arc::clone(router), request))));
        }
        let way = move |mut choice: Choice| -> Result<Box<dyn Course>, LlmError> {
            trial::beside(router, &mut choice, request);
            let choice = router.seated(choice, request);
            match choice.open.is_empty() {
                true => Err(router.nobody(request, &choice.out)),
                false => {
                    if let Some(mirror) = &router.experiments.mirror {
                        mirror.beside(router, &choice, request, streamed);
                    }
                    Ok(Box::new(Way::new(Arc::clone(router), request, streamed, choice)))
                }
            }
        };
        match &router.own {
            None => Planned::Now(way(router.choose(request, streamed))),
            Some(own) => {
                Planned::Later(Box::pin(async move { way(router.choose_by(own, request, streamed).await) }))
            }
        }
    }

    fn any(&self) -> Result<Arc<dyn LlmProvider>, LlmError> {
        let request = LlmRequest::new();
        let choice = self.0.choose(&request, false);
        let first = choice
            .open
            .first()
            .or(choice.held.first())
            .ok_or_else(|| self.0.nobody(&request, &choice.out))?;
        Ok(Arc::clone(&self.0.members[*first].door))
    }
}

/// A member over a provider of one's own: nothing is known of it.
#[must_use]
pub fn member(name: &str, door: Arc<dyn LlmProvider>, stands: Arc<dyn crate::core::route::Stands>) -> Member {
    Member {
        name: Arc::from(name),
        provider: door.name().to_owned(),
        model: String::new(),
        region: None,
        tags: Vec::new(),
        weight: 1.0,
        priority: 0,
        capabilities: crate::core::route::Capabilities::default(),
        keeps_state: false,
        resends: true,
        notes_sending: false,
        pricing: None,
        stands,
        stats: Arc::new(Stats::default()),
        door,
    }
}
