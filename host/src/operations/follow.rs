//! What follows from what a provider said. Pure: the journal's whole judgement of outcomes is here.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::change::{Change, Power, due_moment};
use super::problems::{problem, state_word};
use crate::plugin::contract::{Effect, Outcome, Problem, ProblemKind, Retry, Service, State};
use crate::store::{Managed, Operation, OperationState};

/// What the journal goes by.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long a change that had no effect is tried again by itself.
    pub retry_for: SignedDuration,
    /// How long a lost answer is settled before a person is asked. Providers keep idempotency keys for 24 hours.
    pub settle_for: SignedDuration,
    /// The first pause between attempts; each further one is up to twice as long.
    pub first_pause: Duration,
    /// The shortest pause before a provider without idempotency is asked what became of a lost answer: the request may still be
    /// at work there.
    pub quiet: Duration,
}

/// How long the provider may take over a change it took on, and how long one is tried again of which it says that it is a matter of time.
const FOLLOW_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long an order that the provider took on may be unknown to the machine of it that is asked.
const UNSEEN_FOR: SignedDuration = SignedDuration::from_hours(1);
/// How often an order is paid for anew that waits for its payment, since each try may be one at a card.
const PAY_AGAIN_MS: u64 = 1_800_000;
/// No pause between attempts is longer.
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// What an attempt brought.
#[derive(Debug)]
pub(super) enum Heard {
    /// The answer to the change.
    Outcome(Outcome),
    /// How the service stands, asked because the provider had taken the change on, or to settle it.
    Status(Service),
    /// A failure.
    Problem(Problem),
    /// What there is to be seen does not tell whether the change was made whose answer was lost.
    Unsettled(Problem),
}

/// What follows.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) state: OperationState,
    /// How long until the next attempt, where there is one.
    pub(super) pause: Option<Duration>,
    pub(super) problem: Option<Problem>,
    /// The provider's view of the service, where it gave one.
    pub(super) service: Option<Service>,
    /// The provider has taken the change on.
    pub(super) is_accepted: bool,
    /// Whether this attempt may have had an effect that nobody saw.
    pub(super) in_doubt: bool,
    /// For an end: whether something may stand at the provider, where that is known.
    pub(super) is_live: Option<bool>,
}

/// What is judged.
pub(super) struct Case<'a> {
    pub(super) operation: &'a Operation,
    pub(super) change: &'a Change,
    pub(super) service: &'a Managed,
    pub(super) rules: &'a Rules,
    /// Whether the provider knows idempotency keys.
    pub(super) is_idempotent: bool,
    /// Whether the time for settling lost answers was over when this attempt began.
    pub(super) is_last: bool,
    /// Earlier attempts that may have had an effect.
    pub(super) earlier_doubts: u32,
    pub(super) now: Timestamp,
    /// 0 to 65535: spreads the pauses.
    pub(super) jitter: u16,
}

impl Case<'_> {
    pub(super) fn judge(&self, heard: Heard) -> Verdict {
        match heard {
            Heard::Outcome(Outcome::Done(service)) => self.done(service),
            Heard::Outcome(Outcome::Pending(service)) => self.pending(Some(service), None),
            Heard::Status(service) => self.followed(service),
            Heard::Problem(problem) if self.operation.is_accepted => self.unread(problem),
            Heard::Problem(problem) | Heard::Unsettled(problem) => self.failed(problem),
        }
    }

    fn done(&self, service: Service) -> Verdict {
        let is_live = match self.change {
            Change::Terminate => Some(false),
            change if change.begins() => Some(true),
            _ => None,
        };
        Verdict { service: Some(service), is_live, ..self.verdict(OperationState::Done, None) }
    }

    /// The provider took the change on: from here on its status is asked.
    fn pending(&self, service: Option<Service>, problem: Option<Problem>) -> Verdict {
        let since = self.operation.accepted_at.unwrap_or(self.now);
        if self.now.duration_since(since) >= FOLLOW_FOR {
            let message = "the provider took this on and never brought it to an end";
            return Verdict { service, is_accepted: true, ..self.dead(problem.unwrap_or_else(|| unknown(message))) };
        }
        let pause = self.spread(poll_pause(self.now.duration_since(since)));
        Verdict { service, problem, is_accepted: true, ..self.verdict(OperationState::Waiting, Some(pause)) }
    }

    /// How a change stands that the provider took on.
    fn followed(&self, service: Service) -> Verdict {
        let gave_up = matches!(service.state, State::Failed | State::Terminated);
        let is_gone = gave_up || service.state == State::Missing;
        match self.change {
            Change::Terminate if is_gone => self.done(Service { state: State::Terminated, ..service }),
            // It took the order: what it does not show it may show yet.
            change if change.begins() && service.state == State::Missing && self.is_young() => {
                self.pending(None, self.last_problem())
            }
            change if change.begins() && is_gone => {
                let why = format!("the provider gave the order up: it is {}", state_word(service.state));
                // What was wrong with it meanwhile says why.
                let refused = self.last_problem().unwrap_or_else(|| problem(ProblemKind::Refused, why));
                let refused = Problem { effect: Effect::None, retry: Retry::Never, ..refused };
                // What has failed still stands there; what has ended does not.
                let is_live = Some(service.state == State::Failed);
                Verdict { service: Some(service), is_live, ..self.end(refused) }
            }
            _ if is_gone => {
                let gone =
                    problem(ProblemKind::NotFound, format!("the service is {} at the provider", state_word(service.state)));
                Verdict { service: Some(service), ..self.end(gone) }
            }
            _ if self.is_reached(&service) => self.done(service),
            _ => {
                let problem = self.last_problem();
                self.pending(Some(service), problem)
            }
        }
    }

    /// Whether what is being adopted is what this key's failed creation left behind: what begins anew is pending.
    fn is_left_behind(&self) -> bool {
        matches!(self.change, Change::Adopt { .. }) && self.service.state != "pending"
    }

    fn is_young(&self) -> bool {
        self.operation.accepted_at.is_none_or(|accepted| self.now.duration_since(accepted) < UNSEEN_FOR)
    }

    /// Whether the service proves by itself that the change was made. Of some changes nothing shows on it.
    pub(super) fn is_shown(&self, service: &Service) -> bool {
        match self.change {
            Change::Terminate => matches!(service.state, State::Terminated | State::Missing),
            Change::Suspend { .. } | Change::Unsuspend | Change::Renew { .. } => self.is_reached(service),
            Change::Power { action: Power::Start | Power::Stop } => {
                service.properties.iter().any(|property| property.name == "power") && self.is_reached(service)
            }
            _ => false,
        }
    }

    /// Whether the service shows what the change asks for, which the provider has taken on.
    fn is_reached(&self, service: &Service) -> bool {
        let is_settled = matches!(service.state, State::Active | State::Suspended);
        let property = |name: &str| service.properties.iter().find(|property| property.name == name);
        match self.change {
            Change::Suspend { .. } => service.state == State::Suspended,
            Change::Unsuspend => service.state == State::Active,
            Change::Terminate => false,
            Change::Renew { due_at } => {
                let renewed = due_moment(due_at, self.service.due_at.as_deref());
                let time = |text: &str| text.parse::<Timestamp>().ok();
                service.due_at.as_deref().and_then(time).zip(time(&renewed)).is_some_and(|(now, before)| now > before)
            }
            Change::Power { action: Power::Start } => property("power").map_or(is_settled, |power| power.value == "running"),
            Change::Power { action: Power::Stop } => property("power").map_or(is_settled, |power| power.value == "stopped"),
            _ => is_settled,
        }
    }

    /// The status of what the provider took on could not be asked: nothing is lost by asking later.
    fn unread(&self, told: Problem) -> Verdict {
        let since = self.operation.accepted_at.unwrap_or(self.now);
        if self.now.duration_since(since) >= FOLLOW_FOR {
            return Verdict { is_accepted: true, ..self.dead(Problem { effect: Effect::Unknown, ..told }) };
        }
        let pause = self.pause(told.retry).max(self.spread(poll_pause(self.now.duration_since(since))));
        let problem = self.last_problem().or(Some(told));
        Verdict { problem, is_accepted: true, ..self.verdict(OperationState::Waiting, Some(pause)) }
    }

    fn failed(&self, told: Problem) -> Verdict {
        let refusal = is_refusal(told.kind);
        match told.effect {
            Effect::Unknown => self.unsettled(told, true),
            // A payment is missing, and the provider keeps the order, or the due date, until it comes.
            _ if told.kind == ProblemKind::PaymentRequired && told.remote_id.is_some() => {
                let pending = told.remote_id.clone().map(|remote_id| self.named(remote_id));
                self.pending(pending, Some(told))
            }
            // It kept the order and does not say under which id: the same call tries to pay for the same one.
            Effect::Partial if told.kind == ProblemKind::PaymentRequired => {
                if self.is_last {
                    return Verdict { in_doubt: true, ..self.dead(told) };
                }
                let pause = self.pause(Retry::AfterMs(PAY_AGAIN_MS));
                Verdict { problem: Some(told), in_doubt: true, ..self.verdict(OperationState::Waiting, Some(pause)) }
            }
            Effect::Partial => {
                let left = told.remote_id.clone().map(|remote_id| Service { state: State::Failed, ..self.named(remote_id) });
                if is_transient(&told) && self.may_retry(&told) {
                    let pause = self.pause(told.retry);
                    let waiting = self.verdict(OperationState::Waiting, Some(pause));
                    return Verdict { service: left, problem: Some(told), in_doubt: true, ..waiting };
                }
                Verdict { service: left, is_live: Some(true), ..self.end(told) }
            }
            // This attempt had none, but an earlier one may have.
            Effect::None if self.earlier_doubts > 0 && !refusal => {
                self.unsettled(Problem { effect: Effect::Unknown, ..told }, false)
            }
            Effect::None if is_transient(&told) && self.may_retry(&told) => {
                let pause = self.pause(told.retry);
                Verdict { problem: Some(told), ..self.verdict(OperationState::Waiting, Some(pause)) }
            }
            Effect::None => {
                // What was refused to be adopted, and was this key's before, still is: unless it is gone.
                let is_left = self.is_left_behind() && told.kind != ProblemKind::NotFound;
                let is_live = self.change.begins().then_some(is_left);
                // Already gone is what was asked for.
                if *self.change == Change::Terminate && told.kind == ProblemKind::NotFound {
                    let gone = self.named(self.service.remote_id.clone().unwrap_or_default());
                    return self.done(Service { state: State::Terminated, ..gone });
                }
                Verdict { is_live, ..self.end(told) }
            }
        }
    }

    /// An answer was lost: the same call, under the same key and known to be doubtful, finds out.
    fn unsettled(&self, told: Problem, in_doubt: bool) -> Verdict {
        // Without idempotency and without evidence, asking again could not tell.
        let is_undecidable = !self.is_idempotent && told.kind == ProblemKind::Unreachable && told.retry == Retry::AfterFix;
        if is_undecidable || self.is_last {
            return Verdict { in_doubt, ..self.dead(told) };
        }
        let pause = self.pause(told.retry);
        let pause = if self.is_idempotent { pause } else { pause.max(self.rules.quiet) };
        Verdict { problem: Some(told), in_doubt, ..self.verdict(OperationState::Unknown, Some(pause)) }
    }

    fn may_retry(&self, told: &Problem) -> bool {
        let age = self.now.duration_since(self.operation.created_at);
        // The provider itself says that it is a matter of time.
        let is_patient = matches!(told.kind, ProblemKind::WrongState | ProblemKind::Refused | ProblemKind::PaymentRequired);
        age < if is_patient { FOLLOW_FOR } else { self.rules.retry_for }
    }

    fn pause(&self, retry: Retry) -> Duration {
        let doublings = self.operation.attempts.saturating_sub(1).min(10);
        let grown = self.spread((self.rules.first_pause * 2_u32.pow(doublings)).min(PAUSE_MAX));
        match retry {
            Retry::AfterMs(milliseconds) => grown.max(Duration::from_millis(milliseconds.min(6 * 3_600_000))),
            _ => grown,
        }
    }

    /// Half of it to all of it.
    fn spread(&self, pause: Duration) -> Duration {
        pause / 2 + pause.mul_f64(f64::from(self.jitter) / f64::from(u16::MAX) / 2.0)
    }

    fn last_problem(&self) -> Option<Problem> {
        self.operation.problem.as_deref().and_then(|text| serde_json::from_str(text).ok())
    }

    /// The service as it is known, under the id that the provider gave.
    fn named(&self, remote_id: String) -> Service {
        let service = self.service;
        Service {
            remote_id,
            state: if self.change.begins() { State::Pending } else { State::Unknown },
            plan: service.plan.clone(),
            domain: service.domain.clone(),
            addresses: Vec::new(),
            due_at: service.due_at.clone(),
            properties: Vec::new(),
        }
    }

    fn end(&self, told: Problem) -> Verdict {
        Verdict { problem: Some(told), ..self.verdict(OperationState::Failed, None) }
    }

    fn dead(&self, told: Problem) -> Verdict {
        Verdict { problem: Some(told), ..self.verdict(OperationState::Dead, None) }
    }

    fn verdict(&self, state: OperationState, pause: Option<Duration>) -> Verdict {
        let is_accepted = self.operation.is_accepted;
        Verdict { state, pause, problem: None, service: None, is_accepted, in_doubt: false, is_live: None }
    }
}

/// Often at first, when a person may be waiting, then seldom.
fn poll_pause(age: SignedDuration) -> Duration {
    match age.as_secs() {
        ..10 => Duration::from_millis(500),
        10..60 => Duration::from_secs(2),
        60..600 => Duration::from_secs(10),
        600..3600 => Duration::from_mins(1),
        _ => PAUSE_MAX,
    }
}

/// The provider understood and said no: with the same key, an earlier attempt that it had executed would have been answered so.
fn is_refusal(kind: ProblemKind) -> bool {
    matches!(
        kind,
        ProblemKind::Invalid
            | ProblemKind::Unsupported
            | ProblemKind::NotFound
            | ProblemKind::AlreadyExists
            | ProblemKind::WrongState
            | ProblemKind::PaymentRequired
            | ProblemKind::Refused
    )
}

fn is_transient(told: &Problem) -> bool {
    matches!(told.retry, Retry::Now | Retry::AfterMs(_))
}

fn unknown(message: &str) -> Problem {
    Problem { effect: Effect::Unknown, retry: Retry::AfterFix, ..problem(ProblemKind::Protocol, message) }
}
