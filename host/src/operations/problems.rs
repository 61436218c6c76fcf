//! Problems that the journal itself tells, in the contract's words.

use crate::plugin::contract::{Effect, Problem, ProblemKind, Retry, State};

/// Why nothing is done to a service that is not there.
pub(crate) const NOT_THERE: &str = "this service has ended, or never came to be";

/// A problem of which nothing was sent.
pub(crate) fn problem(kind: ProblemKind, message: impl Into<String>) -> Problem {
    Problem {
        kind,
        effect: Effect::None,
        retry: Retry::Never,
        message: message.into(),
        public_message: None,
        field: None,
        provider_code: None,
        remote_id: None,
    }
}

/// For a problem that goes away by itself.
pub(super) fn later(kind: ProblemKind, message: impl Into<String>, milliseconds: u64) -> Problem {
    Problem { retry: Retry::AfterMs(milliseconds), ..problem(kind, message) }
}

/// The state that a word of the contract means.
pub fn state_of_word(word: &str) -> Option<State> {
    use State::{Active, Failed, Missing, Pending, Suspended, Terminated, Unknown};

    [Pending, Active, Suspended, Terminated, Failed, Missing, Unknown].into_iter().find(|state| state_word(*state) == word)
}

/// A state in the contract's word.
pub fn state_word(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Active => "active",
        State::Suspended => "suspended",
        State::Terminated => "terminated",
        State::Failed => "failed",
        State::Missing => "missing",
        State::Unknown => "unknown",
    }
}
