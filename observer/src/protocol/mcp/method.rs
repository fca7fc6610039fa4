//! The methods of every MCP revision: who sends them, what names their target, whether they prove that a stream is MCP.

/// Which side may send a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Clients only.
    Client,
    /// Servers only.
    Server,
    /// Both.
    Either,
}

/// How a request is to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// An ordinary call.
    Call,
    /// `initialize`, or `server/discover`: a step of getting to know each other.
    Handshake,
    /// Blocks until a task is over: no deadline.
    Blocking,
    /// Lives as long as the client wants: no deadline, no duration.
    Subscription,
    /// Not a request.
    Notification,
}

/// What is known of one method.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    /// As sent.
    pub(crate) name: &'static str,
    /// Who sends it.
    pub(crate) sender: Sender,
    /// How it is treated.
    pub(crate) nature: Nature,
    /// Whether `params.name` names what is called.
    pub(crate) named: bool,
    /// Whether it proves MCP by itself. Not `initialize`, `ping` and `tasks/*`, which other protocols have too.
    pub(crate) proves: bool,
}

/// A method name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// One of the specification.
    Known(&'static Spec),
    /// Any other.
    Other(Arc<str>),
}

impl Method {
    /// Reads a name; one that is longer than [`MAX_NAME`] is cut.
    pub(crate) fn from_name(name: &[u8]) -> Self {
        match TABLE.binary_search_by(|spec| spec.name.as_bytes().cmp(name)) {
            Ok(index) => Self::Known(&TABLE[index]),
            Err(_) => Self::Other(cut(&String::from_utf8_lossy(name), MAX_NAME).into()),
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Known(spec) => spec.name,
            Self::Other(name) => name,
        }
    }

    /// The name as observations have it.
    pub(crate) fn shown(&self) -> Cow<'static, str> {
        match self {
            Self::Known(spec) => Cow::Borrowed(spec.name),
            Self::Other(name) => Cow::Owned(name.to_string()),
        }
    }

    pub(crate) fn sender(&self) -> Sender {
        self.spec().map_or(Either, |spec| spec.sender)
    }

    pub(crate) fn nature(&self) -> Nature {
        self.spec().map_or(Call, |spec| spec.nature)
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.name() == name
    }

    pub(crate) const fn spec(&self) -> Option<&'static Spec> {
        match self {
            Self::Known(spec) => Some(spec),
            Self::Other(_) => None,
        }
    }
}

/// Bytes of a method, tool or prompt name that are kept. The specification allows tool names of 128.
pub(crate) const MAX_NAME: usize = 256;

/// `text` up to `limit` bytes, at a character boundary.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

const fn row(name: &'static str, sender: Sender, nature: Nature) -> Spec {
    Spec {
        name,
        sender,
        nature,
        named: false,
        proves: true,
    }
}

impl Spec {
    const fn named(mut self) -> Self {
        self.named = true;
        self
    }

    const fn shared(mut self) -> Self {
        self.proves = false;
        self
    }
}

use std::borrow::Cow;
use std::sync::Arc;

use Nature::{Blocking, Call, Handshake, Notification, Subscription};
use Sender::{Client, Either, Server};

/// Sorted by name.
static TABLE: &[Spec] = &[
    row("completion/complete", Client, Call),
    row("elicitation/create", Server, Call),
    row("initialize", Client, Handshake).shared(),
    row("logging/setLevel", Client, Call),
    row("notifications/cancelled", Either, Notification),
    row("notifications/elicitation/complete", Server, Notification),
    row("notifications/initialized", Client, Notification),
    row("notifications/message", Server, Notification),
    row("notifications/progress", Either, Notification),
    row("notifications/prompts/list_changed", Server, Notification),
    row("notifications/resources/list_changed", Server, Notification),
    row("notifications/resources/updated", Server, Notification),
    row("notifications/roots/list_changed", Client, Notification),
    row("notifications/subscriptions/acknowledged", Server, Notification),
    row("notifications/tasks", Server, Notification),
    row("notifications/tasks/status", Either, Notification),
    row("notifications/tools/list_changed", Server, Notification),
    row("ping", Either, Call).shared(),
    row("prompts/get", Client, Call).named(),
    row("prompts/list", Client, Call),
    row("resources/list", Client, Call),
    row("resources/read", Client, Call),
    row("resources/subscribe", Client, Call),
    row("resources/templates/list", Client, Call),
    row("resources/unsubscribe", Client, Call),
    row("roots/list", Server, Call),
    row("sampling/createMessage", Server, Call),
    row("server/discover", Client, Handshake),
    row("subscriptions/listen", Client, Subscription),
    row("tasks/cancel", Either, Call).shared(),
    row("tasks/get", Either, Call).shared(),
    row("tasks/list", Either, Call).shared(),
    row("tasks/result", Either, Blocking).shared(),
    row("tasks/update", Client, Call).shared(),
    row("tools/call", Client, Call).named(),
    row("tools/list", Client, Call),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found() {
        for spec in TABLE {
            assert_eq!(
                Method::from_name(spec.name.as_bytes()),
                Method::Known(spec),
                "{}",
                spec.name
            );
        }
    }

    #[test]
    fn names_are_cut_at_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(Method::from_name(b"textDocument/hover").spec(), None);
    }
}
