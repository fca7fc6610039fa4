//! The label `operation`: bounded, and never a name that a client made up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Capability;

/// Tools and prompts of one capability that get a label of their own.
const MAX_OPERATIONS: usize = 200;

/// Capabilities whose operations are remembered.
const MAX_CAPABILITIES: usize = 4096;

/// Bytes of a name that still makes a readable label.
const MAX_NAME: usize = 128;

/// The label of a tool or prompt that nothing has shown to exist.
const UNKNOWN: &str = "_unknown";

/// The label of what is past the cap, and of methods that the specification does not know.
pub const OTHER: &str = "_other";

/// Methods of all revisions of the specification, requests and notifications.
const METHODS: &[&str] = &[
    "completion/complete",
    "elicitation/create",
    "initialize",
    "logging/setLevel",
    "notifications/cancelled",
    "notifications/elicitation/complete",
    "notifications/initialized",
    "notifications/message",
    "notifications/progress",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
    "notifications/resources/updated",
    "notifications/roots/list_changed",
    "notifications/subscriptions/acknowledged",
    "notifications/tasks",
    "notifications/tasks/status",
    "notifications/tools/list_changed",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "roots/list",
    "sampling/createMessage",
    "server/discover",
    "subscriptions/listen",
    "tasks/cancel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/update",
    "tools/call",
    "tools/list",
];

/// The method as a label: itself where the specification knows it, else [`OTHER`].
#[must_use]
pub fn method_label(method: &str) -> &'static str {
    METHODS.binary_search(&method).map_or(OTHER, |at| METHODS[at])
}

/// Which tools and prompts have been admitted as labels.
#[derive(Debug, Default)]
pub(super) struct Operations {
    admitted: HashMap<Arc<Capability>, HashSet<Arc<str>>>,
}

impl Operations {
    /// The label of a call of `method`, of `target` where it is a tool or prompt, known to exist or not.
    pub(super) fn label(
        &mut self,
        capability: &Arc<Capability>,
        method: &str,
        target: Option<&str>,
        proof: Proof,
    ) -> Arc<str> {
        let Some(target) = target else {
            return method_label(method).into();
        };
        if let Some(label) = self.admitted.get(capability).and_then(|names| names.get(target)) {
            return Arc::clone(label);
        }
        match proof {
            Proof::Missing => UNKNOWN.into(),
            Proof::Seen => self.admit(capability, target),
        }
    }

    fn admit(&mut self, capability: &Arc<Capability>, target: &str) -> Arc<str> {
        if target.len() > MAX_NAME
            || (self.admitted.len() >= MAX_CAPABILITIES && !self.admitted.contains_key(capability))
        {
            return OTHER.into();
        }
        let names = self.admitted.entry(Arc::clone(capability)).or_default();
        if names.len() >= MAX_OPERATIONS {
            return OTHER.into();
        }
        let label: Arc<str> = target.into();
        names.insert(Arc::clone(&label));
        label
    }
}

/// Whether a tool or prompt is known to exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// A list named it or a call to it succeeded.
    Seen,
    /// A client said its name; that is all.
    Missing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_sorted_for_the_search() {
        assert!(METHODS.is_sorted());
        assert_eq!(method_label("tools/list"), "tools/list");
        assert_eq!(method_label("vendor/thing"), "_other");
    }

    #[test]
    fn names_are_admitted_by_proof_and_stay_admitted_up_to_the_cap() {
        let capability = Arc::new(Capability {
            name: "weather".into(),
            namespace: "host".into(),
        });
        let mut operations = Operations::default();
        let mut label = |target: &str, proof| {
            operations
                .label(&capability, "tools/call", Some(target), proof)
                .to_string()
        };
        assert_eq!(label("made up", Proof::Missing), "_unknown");
        assert_eq!(label("forecast", Proof::Seen), "forecast");
        assert_eq!(label("forecast", Proof::Missing), "forecast");
        assert_eq!(label(&"x".repeat(MAX_NAME + 1), Proof::Seen), "_other");
        for number in 1..MAX_OPERATIONS {
            assert_eq!(label(&format!("t{number}"), Proof::Seen), format!("t{number}"));
        }
        assert_eq!(label("one more", Proof::Seen), "_other");
        assert_eq!(label("forecast", Proof::Seen), "forecast");
    }
}
