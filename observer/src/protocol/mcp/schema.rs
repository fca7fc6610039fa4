//! `structuredContent` against the `outputSchema` of its own tool (2025-06-18 and later, tools).
//!
//! Schema and content both come from a server that may be hostile. So a schema is weighed before it is compiled: references
//! stay within it and never lead back, which bounds what one check can cost by weight times bytes; patterns run on an engine
//! that does not backtrack; nothing is fetched. What is too much is skipped and counted, and so is what comes too often.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::peer::PeerKey;
use crate::protocol::digest::Digest;
use crate::protocol::event::Timestamp;
use crate::protocol::recent::Recent;

/// Bytes of a schema, and of a result that is checked. Those of real tools are a hundredth of it.
const MAX_BYTES: usize = 64 << 10;

/// Schemas remembered, and their bytes together; a compiled one takes some twenty times its text.
const MAX_SCHEMAS: usize = 4096;
const MAX_ALL_BYTES: usize = 2 << 20;

/// Values in a schema with every reference followed.
const MAX_WEIGHT: u64 = 4096;

/// Nesting of a schema with every reference followed.
const MAX_DEPTH: u32 = 64;

/// Patterns of one schema: each may take a millisecond to compile.
const MAX_PATTERNS: u32 = 32;

/// Bytes of one compiled pattern.
const MAX_PATTERN_BYTES: usize = 64 << 10;

/// Checks of one server in a second.
const MAX_CHECKS: u32 = 20;

/// Weight times bytes of one check, and of all checks in a second: tens of milliseconds at worst.
const MAX_WORK: u64 = 4 << 20;
const MAX_ALL_WORK: u64 = 8 << 20;

/// Servers whose checks are counted.
const MAX_SERVERS: usize = 4096;

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// The tool has no schema that is known.
    NoSchema,
    /// Nothing was checked.
    Skipped,
    Valid,
    Violated,
}

/// The schemas of tools.
#[derive(Debug)]
pub(crate) struct Schemas {
    known: Recent<Digest, Schema>,
    /// Bytes of the texts of all of them.
    bytes: usize,
    /// Checks of a server in this second.
    checks: Recent<Digest, (u64, u32)>,
    /// Work in this second.
    work: (u64, u64),
    /// Results that were not checked.
    pub(crate) skipped: u64,
}

#[derive(Debug)]
struct Schema {
    text: Box<[u8]>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nobody needed it yet.
    Text,
    Ready(Box<Validator>, u64),
    Refused,
}

impl Default for Schemas {
    fn default() -> Self {
        Self {
            known: Recent::new(MAX_SCHEMAS),
            bytes: 0,
            checks: Recent::new(MAX_SERVERS),
            work: (0, 0),
            skipped: 0,
        }
    }
}

impl Schemas {
    /// Takes in what a listing says of a tool; `schema`: as JSON text.
    pub(crate) fn learn(&mut self, server: &PeerKey, tool: &str, schema: Option<&[u8]>) {
        let key = Digest::of((server, tool));
        if self.known.get(&key).is_some_and(|known| Some(&*known.text) == schema) {
            return;
        }
        self.bytes -= self.known.remove(&key).map_or(0, |old| old.text.len());
        let Some(text) = schema else {
            return;
        };
        while (self.bytes + text.len() > MAX_ALL_BYTES || self.known.is_full())
            && let Some((_, oldest)) = self.known.pop_oldest()
        {
            self.bytes -= oldest.text.len();
        }
        let (text, state): (Box<[u8]>, State) = match text.len() {
            ..=MAX_BYTES => (text.into(), State::Text),
            _ => (Box::default(), State::Refused),
        };
        self.bytes += text.len();
        self.known.entry(key, || Schema { text, state });
    }

    /// Checks a result.
    pub(crate) fn check(&mut self, server: &PeerKey, tool: &str, content: &[u8], now: Timestamp) -> Check {
        let check = self.try_check(server, tool, content, now);
        self.skipped += u64::from(check == Check::Skipped);
        check
    }

    fn try_check(&mut self, server: &PeerKey, tool: &str, content: &[u8], now: Timestamp) -> Check {
        let Some(schema) = self.known.get_mut(&Digest::of((server, tool))) else {
            return Check::NoSchema;
        };
        let second = now.0 / 1_000_000_000;
        let checks = self.checks.entry(Digest::of(server), || (second, 0));
        if checks.0 != second {
            *checks = (second, 0);
        }
        if self.work.0 != second {
            self.work = (second, 0);
        }
        if content.len() > MAX_BYTES || checks.1 >= MAX_CHECKS {
            return Check::Skipped;
        }
        checks.1 += 1;
        if matches!(schema.state, State::Text) {
            schema.state = State::compile(&schema.text);
        }
        let State::Ready(validator, weight) = &schema.state else {
            return Check::Skipped;
        };
        let work = weight * content.len() as u64;
        if work > MAX_WORK || self.work.1 + work > MAX_ALL_WORK {
            return Check::Skipped;
        }
        self.work.1 += work;
        match serde_json::from_slice::<Value>(content) {
            Ok(content) if validator.is_valid(&content) => Check::Valid,
            Ok(_) => Check::Violated,
            // It nests deeper than that reader goes.
            Err(_) => Check::Skipped,
        }
    }
}

impl State {
    fn compile(text: &[u8]) -> Self {
        let Ok(schema) = serde_json::from_slice::<Value>(text) else {
            return Self::Refused;
        };
        let mut scale = Scale {
            root: &schema,
            weight: 0,
            patterns: 0,
            trail: Vec::new(),
        };
        if scale.weigh(&schema, 0).is_err() {
            return Self::Refused;
        }
        let weight = scale.weight;
        let patterns = PatternOptions::regex()
            .size_limit(MAX_PATTERN_BYTES)
            .dfa_size_limit(MAX_PATTERN_BYTES);
        let validator = jsonschema::options()
            .with_pattern_options(patterns)
            .should_validate_formats(false)
            .build(&schema);
        validator.map_or(Self::Refused, |validator| Self::Ready(Box::new(validator), weight))
    }
}

/// Weighs a schema.
struct Scale<'a> {
    root: &'a Value,
    weight: u64,
    patterns: u32,
    /// References being followed.
    trail: Vec<&'a str>,
}

/// A schema that will not be used.
struct TooMuch;

impl<'a> Scale<'a> {
    fn weigh(&mut self, value: &'a Value, depth: u32) -> Result<(), TooMuch> {
        self.weight += 1;
        if self.weight > MAX_WEIGHT || depth > MAX_DEPTH {
            return Err(TooMuch);
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.weigh(item, depth + 1)),
            Value::Object(members) => members
                .iter()
                .try_for_each(|(key, value)| self.weigh_member(key, value, depth)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        }
    }

    fn weigh_member(&mut self, key: &str, value: &'a Value, depth: u32) -> Result<(), TooMuch> {
        match (key, value) {
            ("$ref", Value::String(target)) => return self.follow(target, depth),
            // References whose target is found while checking, and names that change what references mean.
            ("$dynamicRef" | "$recursiveRef", _) => return Err(TooMuch),
            ("$id" | "id" | "$anchor" | "$dynamicAnchor", Value::String(_)) if depth > 0 => return Err(TooMuch),
            ("pattern", Value::String(_)) => self.patterns += 1,
            ("patternProperties", Value::Object(patterns)) => {
                self.patterns = self
                    .patterns
                    .saturating_add(u32::try_from(patterns.len()).unwrap_or(u32::MAX));
            }
            _ => {}
        }
        if self.patterns > MAX_PATTERNS {
            return Err(TooMuch);
        }
        self.weigh(value, depth + 1)
    }

    /// A reference weighs what it stands for. One that leads back has no bound, one to elsewhere is never fetched.
    fn follow(&mut self, target: &'a str, depth: u32) -> Result<(), TooMuch> {
        let pointer = target.strip_prefix('#').ok_or(TooMuch)?;
        let found = self.root.pointer(pointer).ok_or(TooMuch)?;
        let around = pointer.is_empty() || self.trail.contains(&target);
        if around {
            return Err(TooMuch);
        }
        self.trail.push(target);
        let weighed = self.weigh(found, depth + 1);
        self.trail.pop();
        weighed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::event::Pid;

    const SERVER: PeerKey = PeerKey::Process(Pid(1));

    fn check(schema: &str, content: &str) -> Check {
        let mut schemas = Schemas::default();
        schemas.learn(&SERVER, "t", Some(schema.as_bytes()));
        schemas.check(&SERVER, "t", content.as_bytes(), Timestamp(0))
    }

    #[test]
    fn judges_content() {
        let schema = r##"{"type":"object","required":["n"],"properties":{"n":{"$ref":"#/$defs/N"}},"$defs":{"N":{"type":"number"}}}"##;
        assert_eq!(check(schema, r#"{"n":1}"#), Check::Valid);
        assert_eq!(check(schema, r#"{"n":"1"}"#), Check::Violated);
        assert_eq!(check(schema, "{}"), Check::Violated);
        assert_eq!(check(r#"{"pattern":"^[a-z]+$"}"#, "\"A\""), Check::Violated);
        // A keyword's name may be a property's.
        assert_eq!(
            check(r#"{"properties":{"$ref":{"type":"string"}}}"#, r#"{"$ref":1}"#),
            Check::Violated
        );
    }

    #[test]
    fn refuses_what_has_no_bound() {
        fn refused(schema: &str) {
            assert_eq!(check(schema, "{}"), Check::Skipped, "{schema}");
        }
        refused(r##"{"$ref":"#"}"##);
        refused(r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"allOf":[{"$ref":"#/$defs/a"}]}}}"##);
        refused(r#"{"$ref":"https://example.org/schema.json"}"#);
        refused(r#"{"$ref":"file:///etc/passwd"}"#);
        refused(r##"{"$dynamicRef":"#node"}"##);
        refused(r##"{"properties":{"a":{"$id":"https://example.org/","$ref":"#/x"}}}"##);
        refused(r#"{"$schema":"https://example.org/own-dialect"}"#);
        refused(r#"{"pattern":"(?=a)b"}"#);
        refused(r#"{"pattern":"((a{1,500}){1,500}){1,500}"}"#);
        refused(&format!(r#"{{"allOf":[{}{{}}]}}"#, r#"{"pattern":"a"},"#.repeat(33)));
        refused(&format!(r#"{{"enum":[{}0]}}"#, "0,".repeat(5000)));
        refused(&format!(r#"{}{{}}{}"#, r#"{"not":"#.repeat(100), "}".repeat(100)));
        refused(&format!(r#"{{"title":"{}"}}"#, "x".repeat(MAX_BYTES)));
        // Each level doubles what the one below weighs.
        let level = |n: u32| {
            format!(
                r##""l{n}":{{"allOf":[{{"$ref":"#/$defs/l{0}"}},{{"$ref":"#/$defs/l{0}"}}]}}"##,
                n + 1
            )
        };
        let levels: Vec<String> = (0..30).map(level).collect();
        refused(&format!(
            r##"{{"$ref":"#/$defs/l0","$defs":{{{},"l30":{{}}}}}}"##,
            levels.join(",")
        ));
        refused("not json");
    }

    #[test]
    fn not_more_than_twenty_a_second_and_none_too_large() {
        let mut schemas = Schemas::default();
        schemas.learn(&SERVER, "t", Some(b"{}"));
        let second = 1_000_000_000;
        let checked = |schemas: &mut Schemas, at| {
            let check = |_: &u32| schemas.check(&SERVER, "t", b"1", Timestamp(at)) == Check::Valid;
            (0..30).filter(check).count()
        };
        assert_eq!((checked(&mut schemas, second), schemas.skipped), (20, 10));
        assert_eq!((checked(&mut schemas, 2 * second), schemas.skipped), (20, 20));
        let large = format!("\"{}\"", "x".repeat(MAX_BYTES));
        assert_eq!(
            schemas.check(&SERVER, "t", large.as_bytes(), Timestamp(3 * second)),
            Check::Skipped
        );
        assert_eq!(schemas.check(&SERVER, "other", b"1", Timestamp(0)), Check::NoSchema);
        schemas.learn(&SERVER, "t", None);
        assert_eq!(schemas.check(&SERVER, "t", b"1", Timestamp(0)), Check::NoSchema);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut schemas = Schemas::default();
        let text = format!(r#"{{"title":"{}"}}"#, "x".repeat(60_000));
        for tool in 0..100 {
            schemas.learn(&SERVER, &tool.to_string(), Some(text.as_bytes()));
        }
        assert!(schemas.bytes <= MAX_ALL_BYTES);
        assert_eq!(schemas.check(&SERVER, "0", b"1", Timestamp(0)), Check::NoSchema);
        assert_eq!(schemas.check(&SERVER, "99", b"1", Timestamp(0)), Check::Valid);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let keys = "type|properties|items|anyOf|not|\\$ref|enum|required|minimum|pattern|a|if|then|additionalProperties|uniqueItems|multipleOf|\\$defs|dependentSchemas|prefixItems";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "#/\\$defs/a|#/a|object|string|number|[a-z(){}*+.]{0,5}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(keys, inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_schema_and_any_content(schema in any_value(), content in any_value()) {
            check(&schema.to_string(), &content.to_string());
        }
    }
}
