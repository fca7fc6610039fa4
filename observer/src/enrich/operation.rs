//! The label `operation`: bounded, and never a name that a client made up.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use super::Capability;

/// Tools and prompts of one capability that get a label of their own.
const MAX_OPERATIONS: usize = 200;

/// Tools and prompts remembered of all capabilities together; the capability not called for longest is forgotten first.
const MAX_ADMITTED: usize = 20_000;

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
    admitted: AHashMap<Arc<Capability>, Admitted>,
    total: usize,
    uses: u64,
    evictions: u64,
}

#[derive(Debug, Default)]
struct Admitted {
    names: AHashSet<Arc<str>>,
    /// Order of the last use, for eviction.
    used: u64,
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
        self.uses += 1;
        if let Some(admitted) = self.admitted.get_mut(capability) {
            admitted.used = self.uses;
            if let Some(label) = admitted.names.get(target) {
                return Arc::clone(label);
            }
        }
        match proof {
            Proof::Missing => UNKNOWN.into(),
            Proof::Seen => self.admit(capability, target),
        }
    }

    /// Capabilities whose operations were forgotten.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    fn admit(&mut self, capability: &Arc<Capability>, target: &str) -> Arc<str> {
        let full = self
            .admitted
            .get(capability)
            .is_some_and(|admitted| admitted.names.len() >= MAX_OPERATIONS);
        if full || target.len() > MAX_NAME {
            return OTHER.into();
        }
        if self.total >= MAX_ADMITTED {
            self.evict();
        }
        let admitted = self.admitted.entry(Arc::clone(capability)).or_default();
        admitted.used = self.uses;
        let label: Arc<str> = target.into();
        admitted.names.insert(Arc::clone(&label));
        self.total += 1;
        label
    }

    fn evict(&mut self) {
        let oldest = self.admitted.iter().min_by_key(|(_, admitted)| admitted.used);
        if let Some(capability) = oldest.map(|(capability, _)| Arc::clone(capability)) {
            self.total -= self
                .admitted
                .remove(&capability)
                .map_or(0, |admitted| admitted.names.len());
            self.evictions += 1;
        }
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

    #[test]
    fn what_is_remembered_of_all_capabilities_is_bounded() {
        let mut operations = Operations::default();
        let capability = |number: usize| {
            Arc::new(Capability {
                name: number.to_string(),
                namespace: "host".into(),
            })
        };
        for number in 0..=MAX_ADMITTED {
            operations.label(&capability(number), "tools/call", Some("a"), Proof::Seen);
        }
        assert_eq!((operations.total, operations.evictions()), (MAX_ADMITTED, 1));
        assert_eq!(
            &*operations.label(&capability(0), "tools/call", Some("a"), Proof::Missing),
            "_unknown"
        );
        assert_eq!(
            &*operations.label(&capability(1), "tools/call", Some("a"), Proof::Missing),
            "a"
        );
    }
}
