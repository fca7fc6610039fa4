//! Requests that are asked again: rounds after `input_required`, and retries after a failure.

use super::call::Pending;
use super::reply::Wanted;
use crate::protocol::digest::Digest;
use crate::protocol::event::Timestamp;
use crate::protocol::observation::Outcome;
use crate::protocol::recent::Recent;

/// Questions remembered that may be asked again, of either kind; a few dozen bytes each.
const MAX_REMEMBERED: usize = 16_384;

/// How long after a failure the same request is its retry.
const RETRY_WITHIN: u64 = 60_000_000_000;

/// What a server wants before it goes on; the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InputKind {
    /// The user is asked.
    Elicitation,
    /// The client's model is asked.
    Sampling,
    /// The client's roots are asked for.
    Roots,
    /// Only to be asked again with its `requestState`: load shedding, or long work cut in pieces.
    StateOnly,
    /// Anything else.
    Other,
}

impl InputKind {
    /// The value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Elicitation => "elicitation",
            Self::Sampling => "sampling",
            Self::Roots => "roots",
            Self::StateOnly => "state_only",
            Self::Other => "other",
        }
    }

    pub(crate) fn of(wanted: Option<&Wanted>) -> Self {
        match wanted.map(|wanted| (wanted.method.as_deref(), wanted.state)) {
            Some((Some("elicitation/create"), _)) => Self::Elicitation,
            Some((Some("sampling/createMessage"), _)) => Self::Sampling,
            Some((Some("roots/list"), _)) => Self::Roots,
            Some((None, Some(_))) => Self::StateOnly,
            Some(_) | None => Self::Other,
        }
    }
}

/// Which time a request is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// 1, or the number of the round.
    pub(crate) round: u32,
    /// The number of the call of the first round.
    pub(crate) first: u64,
    /// 1, or one more than that of the failed call that it repeats.
    pub(crate) attempt: u32,
}

impl Turn {
    /// A request that is asked for the first time.
    pub(crate) const fn first(number: u64) -> Self {
        Self {
            round: 1,
            first: number,
            attempt: 1,
        }
    }
}

/// Requests that may be asked again.
#[derive(Debug)]
pub(crate) struct Again {
    /// By the state that the server gave, else by the question.
    rounds: Recent<Digest, Turn>,
    /// By the question.
    failures: Recent<Digest, (Timestamp, u32)>,
}

impl Default for Again {
    fn default() -> Self {
        Self {
            rounds: Recent::new(MAX_REMEMBERED),
            failures: Recent::new(MAX_REMEMBERED),
        }
    }
}

impl Again {
    /// Which time this request is asked; `state` and `answers` are its `requestState` and `inputResponses`.
    pub(crate) fn turn(&mut self, pending: &Pending, state: Option<Digest>, answers: Answers, now: Timestamp) -> Turn {
        let new = Turn::first(pending.number);
        if state.is_some() || answers == Answers::Given {
            let key = state.map_or_else(|| question(pending), by_state);
            return self.rounds.remove(&key).map_or(new, |before| Turn {
                round: before.round.saturating_add(1),
                ..before
            });
        }
        if self.failures.is_empty() {
            return new;
        }
        match self.failures.remove(&question(pending)) {
            Some((failed, attempt)) if now.since(failed) <= RETRY_WITHIN => Turn {
                attempt: attempt.saturating_add(1),
                ..new
            },
            _ => new,
        }
    }

    /// A call is over: it may be asked again.
    pub(crate) fn over(
        &mut self,
        pending: &Pending,
        outcome: Outcome,
        status: u16,
        wanted: Option<&Wanted>,
        now: Timestamp,
    ) {
        if outcome == Outcome::InputRequired {
            let key = wanted.and_then(|wanted| wanted.state);
            let key = key.map_or_else(|| question(pending), by_state);
            *self.rounds.entry(key, || pending.turn) = pending.turn;
        } else if is_failure(outcome) && status >= 400 {
            let failure = (now, pending.turn.attempt);
            *self.failures.entry(question(pending), || failure) = failure;
        }
    }

    /// Questions forgotten so far because there were too many.
    pub(crate) fn evictions(&self) -> u64 {
        self.rounds.evictions + self.failures.evictions
    }
}

/// Whether a request answers what its server wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    Given,
    None,
}

/// What makes two requests the same: client, method, name, arguments.
fn question(pending: &Pending) -> Digest {
    let client = &pending.parties.client;
    let place = client
        .address
        .filter(|_| client.pid.is_none())
        .map(|address| address.ip());
    Digest::of((
        client.pid,
        place,
        pending.method.name(),
        pending.target.as_deref(),
        pending.fingerprint,
    ))
}

fn by_state(state: Digest) -> Digest {
    Digest::of(("requestState", state))
}

/// Whether a client that asks the same again after this retries. Steps of negotiation and rounds are none, nor is what the
/// client itself gave up.
const fn is_failure(outcome: Outcome) -> bool {
    match outcome {
        Outcome::ToolError
        | Outcome::RpcError
        | Outcome::HttpError
        | Outcome::Timeout
        | Outcome::ServerGone
        | Outcome::Malformed
        | Outcome::Unanswered => true,
        Outcome::Ok
        | Outcome::Negotiation
        | Outcome::AuthChallenge
        | Outcome::Cancelled
        | Outcome::ClientGone
        | Outcome::InputRequired
        | Outcome::TaskAccepted => false,
    }
}
