//! Tasks (2025-11-25 and the extension of 2026-07-28): work that goes on after its call was acknowledged.
//!
//! ```text
//! tools/call ──► task acknowledged            the call's own duration
//!     └──── … tasks/get, tasks/result, notifications … ──► completed, failed, cancelled      the task's duration
//! ```
//!
//! What ends a task may come on any connection to the same server.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use super::call::Pending;
use super::peer::PeerKey;
use super::reply::Task;
use crate::protocol::digest::Digest;
use crate::protocol::event::Timestamp;
use crate::protocol::observation::Parties;
use crate::protocol::recent::Recent;

/// Tasks remembered that are not over; each is about a kilobyte.
const MAX_OPEN: usize = 4096;

/// How long a task that is said to be completed waits for its result, which may say that the tool failed.
const RESULT_WAIT: u64 = 10_000_000_000;

/// How a task ended; the label `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskStatus {
    /// It has a result.
    Completed,
    /// Its result has `isError`.
    ToolError,
    /// The request failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl TaskStatus {
    /// The value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ToolError => "tool_error",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A task that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskEnd {
    /// The number of the call that began it.
    pub call: u64,
    /// Who talked with whom in that call.
    pub parties: Parties,
    /// Method of that call, as sent.
    pub method: Cow<'static, str>,
    /// Tool or prompt name of that call.
    pub target: Option<Arc<str>>,
    /// How it ended.
    pub status: TaskStatus,
    /// When its end was first seen.
    pub ended: Timestamp,
    /// Nanoseconds from its request to then; where its client polls, up to one interval too long.
    pub duration: u64,
}

/// What a message says of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Over(TaskStatus),
    /// Completed, but the result is still to be fetched.
    Done,
}

impl News {
    /// What a task object says; `None` where the task goes on.
    pub(crate) fn of(task: &Task) -> Option<Self> {
        match task.status.as_deref()? {
            "completed" if task.is_error => Some(Self::Over(TaskStatus::ToolError)),
            "completed" if task.has_result => Some(Self::Over(TaskStatus::Completed)),
            "completed" => Some(Self::Done),
            "failed" => Some(Self::Over(TaskStatus::Failed)),
            "cancelled" => Some(Self::Over(TaskStatus::Cancelled)),
            _ => None,
        }
    }
}

/// The tasks that are not over.
#[derive(Debug)]
pub(crate) struct Tasks {
    open: Recent<Digest, Open>,
    /// Tasks that wait for their result, and until when.
    done: VecDeque<(Timestamp, Digest)>,
}

#[derive(Debug)]
struct Open {
    call: u64,
    parties: Parties,
    method: Cow<'static, str>,
    target: Option<Arc<str>>,
    began: Timestamp,
    done: Option<Timestamp>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            open: Recent::new(MAX_OPEN),
            done: VecDeque::new(),
        }
    }
}

impl Tasks {
    /// A call was acknowledged as a task.
    pub(crate) fn begin(&mut self, server: &PeerKey, id: &str, pending: &Pending, now: Timestamp) {
        self.open.entry(key(server, id), || Open {
            call: pending.number,
            parties: pending.parties.clone(),
            method: pending.method.shown(),
            target: pending.target.clone(),
            began: pending.seen.first.or(pending.seen.any()).unwrap_or(now),
            done: None,
        });
    }

    /// A message tells of a task.
    pub(crate) fn tell(&mut self, server: &PeerKey, id: &str, news: News, now: Timestamp) -> Option<TaskEnd> {
        let key = key(server, id);
        match news {
            News::Over(status) => self.end(&key, status, now),
            News::Done => {
                let open = self.open.get_mut(&key).filter(|open| open.done.is_none())?;
                open.done = Some(now);
                self.done.push_back((now.plus(RESULT_WAIT), key));
                None
            }
        }
    }

    /// A task that was completed and whose result nobody fetched in time, or before there were too many of them.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<TaskEnd> {
        loop {
            let full = self.done.len() > MAX_OPEN;
            let (_, key) = self.done.pop_front_if(|(due, _)| full || *due <= now)?;
            if let Some(end) = self.end(&key, TaskStatus::Completed, now) {
                return Some(end);
            }
        }
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.done.front().map(|(due, _)| *due)
    }

    fn end(&mut self, key: &Digest, status: TaskStatus, now: Timestamp) -> Option<TaskEnd> {
        let open = self.open.remove(key)?;
        let ended = open.done.unwrap_or(now);
        Some(TaskEnd {
            call: open.call,
            parties: open.parties,
            method: open.method,
            target: open.target,
            status,
            ended,
            duration: ended.since(open.began),
        })
    }

    /// Tasks forgotten so far because there were too many.
    pub(crate) const fn evictions(&self) -> u64 {
        self.open.evictions
    }
}

fn key(server: &PeerKey, id: &str) -> Digest {
    Digest::of((server, id))
}
