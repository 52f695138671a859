//! Who did what, when: the timeline of a simulation, and what is counted of it.

use super::hits::{Checker, FaultId, Hits, fault_names};
use std::fmt;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The timeline, one line per thing that happened. Clones share it.
///
/// The text is kept only where somebody will read it; the same seed gives the same text whenever it is run again.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    inner: Arc<Mutex<Inner>>,
    is_kept: bool,
}

#[derive(Debug, Default)]
struct Inner {
    text: String,
    lines: usize,
    hits: Hits,
}

impl Trace {
    pub(super) fn new(is_kept: bool) -> Self {
        Trace { inner: Arc::default(), is_kept }
    }

    /// Whether the text is kept; else there is no need to make it.
    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    pub(super) fn note(&self, now: Duration, who: &str, what: fmt::Arguments<'_>) {
        let mut inner = self.lock();
        inner.lines += 1;
        if self.is_kept {
            writeln!(inner.text, "{:>9.3} {who:<8} {what}", now.as_secs_f64()).expect("a string takes all");
        }
    }

    /// The same for what is only told where it is read: it is no sign that something happened.
    pub(super) fn detail(&self, now: Duration, who: &str, what: fmt::Arguments<'_>) {
        if self.is_kept {
            writeln!(self.lock().text, "{:>9.3} {who:<8} {what}", now.as_secs_f64()).expect("a string takes all");
        }
    }

    /// The same for a fault, which is counted.
    pub(super) fn fault(&self, now: Duration, who: &str, what: fmt::Arguments<'_>, fault: FaultId) {
        self.note(now, who, format_args!("{what}  << fault"));
        self.lock().hits.fault(fault);
    }

    /// A checker had something to judge, and found nothing wrong.
    pub(super) fn judged(&self, checker: Checker) {
        self.lock().hits.judged(checker);
    }

    pub(super) fn lines(&self) -> usize {
        self.lock().lines
    }

    /// The text, and what was counted.
    pub(super) fn take(&self) -> (String, Hits) {
        let mut inner = self.lock();
        (std::mem::take(&mut inner.text), std::mem::take(&mut inner.hits))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no one panics with the trace in hand")
    }
}

impl Hits {
    /// How often each fault happened that did.
    pub fn faults(&self) -> impl Iterator<Item = (&'static str, u32)> {
        fault_names().iter().zip(&self.faults).filter(|(_, times)| **times > 0).map(|(name, times)| (name.as_str(), *times))
    }
}
