//! Who has which TLS library: a look at every process by `/proc` alone, which attaches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::elf::{Findings, Refusal};
use super::search::search;
use super::{QUEUE, Returns, State, ways_in};
use crate::capture::Scope;
use crate::capture::scope::members;

/// How long it may take; what was not looked at by then is told.
const LIMIT: Duration = Duration::from_secs(10);

/// The TLS libraries in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Libraries by name, each way in once.
    pub libraries: Vec<LibraryUse>,
    /// Processes that there was no time to look at.
    pub left_out: usize,
}

/// A library, and how many have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryUse {
    /// Its name, as the metrics have it.
    pub library: &'static str,
    /// [`State::Attached`] where `run` would attach.
    pub state: State,
    /// Processes that have it.
    pub processes: u64,
}

/// Looks at every process but our own.
pub(in crate::capture) fn census(returns: Returns) -> Census {
    let everyone = Scope::default();
    let mut left = members(&everyone).unwrap_or_default().len().saturating_sub(1);
    let deadline = Instant::now() + LIMIT;
    let (wanted, requests) = channel();
    let (findings, found) = sync_channel(QUEUE);
    // It looks at everyone once and ends, since nobody will ask it for more.
    drop(wanted);
    let searching = thread::Builder::new()
        .name("tls-search".to_owned())
        .spawn(move || search(&everyone, &requests, &findings));
    let mut counts = BTreeMap::new();
    while searching.is_ok()
        && let Ok(found) = found.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        left = left.saturating_sub(1);
        for kind in kinds(found.libraries.iter().map(|library| &library.findings), returns) {
            *counts.entry(kind).or_default() += 1;
        }
    }
    // Processes that ended meanwhile are looked at too, those made meanwhile are not missed.
    let libraries = counts.into_iter().map(|((library, state), processes)| LibraryUse {
        library,
        state,
        processes,
    });
    Census {
        libraries: libraries.collect(),
        left_out: if Instant::now() < deadline { 0 } else { left },
    }
}

/// The libraries of one process, each once: it may have two files of one.
fn kinds<'a>(
    all: impl Iterator<Item = &'a Result<Findings, Refusal>>,
    returns: Returns,
) -> BTreeSet<(&'static str, State)> {
    let kind = |findings| match ways_in(findings, returns) {
        Ok((name, _)) => (name, State::Attached),
        Err(told) => told,
    };
    all.map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::tls::elf::Point;

    #[test]
    fn a_library_is_told_by_what_run_would_do() {
        let kinds = |findings: &[Result<Findings, Refusal>], returns| {
            let kinds = kinds(findings.iter(), returns);
            kinds.into_iter().collect::<Vec<_>>()
        };
        let openssl = |returns| {
            Ok(Findings::Reachable {
                library: "openssl",
                points: vec![Point {
                    program: "tls_send",
                    offset: 16,
                    returns,
                }],
            })
        };
        let rustls = Ok(Findings::Unsupported { library: "rustls" });
        let two = [openssl(true), rustls.clone(), openssl(true)];
        assert_eq!(
            kinds(&two, Returns::Safe),
            [("openssl", State::Attached), ("rustls", State::Unsupported)]
        );
        assert_eq!(
            kinds(&two, Returns::Unsafe),
            [("openssl", State::Failed), ("rustls", State::Unsupported)]
        );
        assert_eq!(
            kinds(&[openssl(false)], Returns::Unsafe),
            [("openssl", State::Attached)],
            "what needs no return is not harmed"
        );
        assert_eq!(
            kinds(&[Err(Refusal::TooLarge)], Returns::Safe),
            [("unknown", State::Failed)]
        );
    }

    #[test]
    fn everyone_is_looked_at() {
        let census = census(Returns::Safe);
        assert_eq!(census.left_out, 0);
        assert!(census.libraries.iter().all(|of| of.processes > 0), "{census:?}");
    }
}
