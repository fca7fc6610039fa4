//! What messages tell beside calls: notifications, tasks, sessions.

use crate::protocol::Pipeline;
use crate::protocol::conversation::Ended;
use crate::protocol::conversation::ending::Body;
use crate::protocol::matcher::{Scope, Slot};
use crate::protocol::mcp::method::Method;
use crate::protocol::mcp::outcome::{End, speaks_of_time};
use crate::protocol::mcp::params::Params;
use crate::protocol::mcp::peer::{PeerKey, server_keys, server_of};
use crate::protocol::mcp::session::Told;
use crate::protocol::mcp::task::{News, TaskEnd, TaskStatus};
use crate::protocol::observation::{Observation, Parties, SessionEnd, Side};

/// The code by which servers say that they do not know a task (2025-11-25, tasks).
const UNKNOWN_TASK: i64 = -32602;

/// A method that is not there (HTTP 404 since 2026-07-28): no word about the session.
const NO_METHOD: i64 = -32601;

impl Pipeline {
    /// A notification from `from` within these scopes.
    pub(crate) fn notify(&mut self, scopes: &[Scope], method: &Method, params: &Params, from: Side, parties: Parties) {
        match method.name() {
            "notifications/cancelled" => self.cancelled(scopes, params),
            "notifications/progress" => self.progressed(scopes, params),
            "notifications/tasks" | "notifications/tasks/status" => self.task_notified(scopes, params, &parties),
            _ => {}
        }
        self.observe(Observation::Notification {
            parties,
            method: method.shown(),
            from,
        });
    }

    fn cancelled(&mut self, scopes: &[Scope], params: &Params) {
        let Some(id) = &params.request_id else {
            return;
        };
        let find = |scope: &Scope| self.matcher.find(scope.clone(), id);
        if let Some(slot) = scopes.iter().find_map(find) {
            let timeout = params.reason.as_deref().is_some_and(speaks_of_time);
            self.end(slot, &Ended::without_answer(End::Cancelled { timeout }, None), None);
        }
    }

    fn progressed(&mut self, scopes: &[Scope], params: &Params) {
        let Some(token) = &params.progress_token else {
            return;
        };
        let find = |scope: &Scope| self.matcher.find_progress(scope.clone(), token);
        let (slot, now) = (scopes.iter().find_map(find), self.now);
        if let Some(pending) = slot.and_then(|slot| self.matcher.get_mut(slot)) {
            pending.first_progress.get_or_insert(now);
        }
    }

    fn task_notified(&mut self, scopes: &[Scope], params: &Params, parties: &Parties) {
        let conversation = scopes.iter().find_map(|scope| match scope {
            Scope::Line(flow) => Some(PeerKey::Flow(*flow)),
            Scope::Http(..) | Scope::Session(_) => None,
        });
        let server = server_keys(parties).next().or(conversation);
        let task = params.task.as_ref();
        let id = task.and_then(|task| task.id.as_deref());
        if let (Some(server), Some(id), Some(news)) = (server, id, task.and_then(|task| News::of(task))) {
            let end = self.tasks.tell(&server, id, news, self.now);
            self.task_over(end);
        }
    }

    /// What an answer tells of a task: its begin, its state, or its end.
    pub(crate) fn follow_task(&mut self, slot: Slot, body: &Body) {
        let Some(pending) = self.matcher.get(slot) else {
            return;
        };
        let task = body.as_ref().ok().and_then(|reply| reply.task.as_deref());
        if !pending.method.name().starts_with("tasks/") {
            let begins = task.is_some_and(|task| task.acknowledged)
                || body
                    .as_ref()
                    .is_ok_and(|reply| reply.result_type.as_deref() == Some("task"));
            if let Some(id) = task.and_then(|task| task.id.as_deref()).filter(|_| begins) {
                self.tasks.begin(&server_of(pending), id, pending, self.now);
            }
            return;
        }
        let Some(id) = &pending.task else {
            return;
        };
        let news = match body {
            Ok(reply) if pending.method.is("tasks/result") && reply.is_error => Some(News::Over(TaskStatus::ToolError)),
            Ok(_) if pending.method.is("tasks/result") => Some(News::Over(TaskStatus::Completed)),
            Err(failure) if pending.method.is("tasks/result") && failure.code != UNKNOWN_TASK => {
                Some(News::Over(TaskStatus::Failed))
            }
            Ok(_) => task.and_then(News::of),
            Err(_) => None,
        };
        if let Some(news) = news {
            let end = self.tasks.tell(&server_of(pending), id, news, self.now);
            self.task_over(end);
        }
    }

    /// Tells of tasks that were completed and whose result nobody fetched.
    pub(crate) fn settle_tasks(&mut self) {
        while let Some(end) = self.tasks.pop_due(self.now) {
            self.task_over(Some(end));
        }
    }

    fn task_over(&mut self, end: Option<TaskEnd>) {
        if let Some(end) = end {
            self.observe(Observation::Task(Box::new(end)));
        }
    }

    /// A session was heard of in a request.
    pub(crate) fn session_heard(&mut self, id: &str, parties: &Parties) {
        let told = self.sessions.heard(id, parties, None, self.now);
        self.tell_sessions(told);
    }

    pub(crate) fn session_over(&mut self, id: &str, how: SessionEnd) {
        let told = self.sessions.end(id, how, self.now);
        self.tell_sessions(told);
    }

    /// A request of a session was answered with 404: unless it was the method that is not there, the session is gone.
    pub(crate) fn session_expired(&mut self, id: &str, code: Option<i64>) {
        if code != Some(NO_METHOD) {
            self.session_over(id, SessionEnd::Expired);
        }
    }

    pub(crate) fn tell_sessions(&mut self, told: impl IntoIterator<Item = Told>) {
        for (parties, change) in told {
            self.observe(Observation::Session { parties, change });
        }
    }
}
