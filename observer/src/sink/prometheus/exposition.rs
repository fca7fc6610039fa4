//! What a scrape reads: everything, or one capability alone.

use prometheus::{Registry, TextEncoder};

/// What scrapes read: the same metrics, from any thread.
#[derive(Clone)]
pub struct Exposition(pub(super) Registry);

/// Whose series a scrape wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Label `capability`.
    pub capability: Option<String>,
    /// Label `namespace`.
    pub namespace: Option<String>,
}

impl Exposition {
    /// The text format, of everything or of the capability that `filter` names.
    #[must_use]
    pub fn render(&self, filter: &Filter) -> String {
        let mut families = self.0.gather();
        let wanted = [("capability", &filter.capability), ("namespace", &filter.namespace)];
        if wanted.iter().any(|(_, value)| value.is_some()) {
            for family in &mut families {
                family.mut_metric().retain(|metric| {
                    wanted
                        .iter()
                        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
                        .all(|(name, value)| {
                            metric
                                .get_label()
                                .iter()
                                .any(|label| label.name() == *name && label.value() == value)
                        })
                });
            }
            families.retain(|family| !family.get_metric().is_empty());
        }
        let mut text = String::new();
        TextEncoder::new()
            .encode_utf8(&families, &mut text)
            .expect("gathered families are named and not empty");
        text
    }
}
