//! Which ends of a process a fault explains. Any other is a violation.

use crate::plan::Kind;
use std::time::{Duration, Instant};

/// A fault that struck.
#[derive(Debug, Clone)]
pub(crate) struct Struck {
    pub(crate) at: Instant,
    /// When it was over.
    pub(crate) until: Instant,
    pub(crate) kind: Kind,
    /// The process that it aimed at; `None`: all of them.
    pub(crate) app: Option<usize>,
    pub(crate) text: String,
}

/// An end that may be: what the process says, and which faults explain it, for how long after they are over.
struct Rule {
    said: &'static [&'static str],
    faults: &'static [Kind],
    within: Duration,
    why: &'static str,
}

/// Faults by which a process may not reach the broker.
const OUT_OF_REACH: &[Kind] = &[Kind::BrokerKill, Kind::BlackHole, Kind::Cut, Kind::OtherRequest, Kind::LongPause, Kind::ShortPause];

const RULES: &[Rule] = &[
    Rule {
        said: &["no broker at", "answered within", "timed out", "TransportFailure", "Local: Broker transport failure"],
        faults: OUT_OF_REACH,
        within: Duration::from_secs(45),
        why: "no broker to start with",
    },
    Rule {
        said: &["has fenced this one twice"],
        faults: &[Kind::Fence, Kind::OtherRequest, Kind::Produce, Kind::OffsetCommit],
        within: Duration::from_secs(30),
        why: "fenced twice",
    },
    // librdkafka asks without its member id when its session has ended before the broker knows: it is taken for another process of its name.
    Rule {
        said: &["Static consumer fenced by other consumer with same group.instance.id"],
        faults: OUT_OF_REACH,
        within: Duration::from_secs(45),
        why: "taken for its own namesake when its session had ended",
    },
    Rule {
        said: &["ended at once (the shutdown took too long)", "ended at once (closing the connections took too long)"],
        faults: &[
            Kind::BrokerKill,
            Kind::BlackHole,
            Kind::LongPause,
            Kind::ShortPause,
            Kind::EndTxn,
            Kind::Produce,
            Kind::OffsetCommit,
            Kind::DiskSlow,
        ],
        within: Duration::from_secs(30),
        why: "could not settle at its shutdown",
    },
    Rule {
        said: &["the state store", "state folder"],
        faults: &[Kind::FolderDeleted, Kind::StoreTorn, Kind::StoreOlder, Kind::StoreForeign],
        within: Duration::from_secs(60),
        why: "its store was damaged",
    },
    Rule {
        said: &["the state store", "state folder", "No space left", "Input/output error"],
        faults: &[Kind::DiskFull, Kind::DiskFailing],
        within: Duration::from_secs(20),
        why: "it could not write its store",
    },
];

/// Why a process may have ended with an error and these last words; `None`: nothing explains it.
pub(crate) fn explain(app: usize, words: &str, struck: &[Struck]) -> Option<String> {
    RULES.iter().filter(|rule| rule.said.iter().any(|said| words.contains(said))).find_map(|rule| {
        let fits = |s: &&Struck| rule.faults.contains(&s.kind) && s.app.is_none_or(|of| of == app) && s.until.elapsed() < rule.within;
        let fault = struck.iter().rev().find(fits)?;
        Some(format!("{}, after `{}`", rule.why, fault.kind.name()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_explained_by_a_fault_that_fits_and_by_no_other() {
        let now = Instant::now();
        let struck = |kind, app| vec![Struck { at: now, until: now, kind, app, text: String::new() }];
        let fenced = "error: another process uses the same identity and has fenced this one twice: …";
        assert!(explain(1, fenced, &struck(Kind::Fence, Some(1))).is_some_and(|why| why.contains("fenced twice")));
        assert_eq!(explain(0, fenced, &struck(Kind::Fence, Some(1))), None, "it aimed at another process");
        assert_eq!(explain(1, fenced, &struck(Kind::BrokerKill, None)), None, "no fence was there");
        assert_eq!(explain(1, "error: a panic", &struck(Kind::Fence, Some(1))), None);
        assert_eq!(explain(1, fenced, &[]), None);
    }
}
