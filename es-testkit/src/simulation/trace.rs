//! Who did what, when: the timeline of a simulation.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The timeline, one line per thing that happened. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    text: String,
    lines: usize,
    faults: BTreeMap<String, u64>,
}

impl Trace {
    pub(super) fn note(&self, now: Duration, who: &str, what: impl fmt::Display) {
        let mut inner = self.0.lock().expect("no one panics with the trace in hand");
        inner.lines += 1;
        writeln!(inner.text, "{:>9.3} {who:<8} {what}", now.as_secs_f64()).expect("a string takes all");
    }

    /// The same for a fault, which is counted.
    pub(super) fn fault(&self, now: Duration, who: &str, what: impl fmt::Display, fault: &str) {
        self.note(now, who, format_args!("{what}  << {fault}"));
        let mut inner = self.0.lock().expect("no one panics with the trace in hand");
        let name = what.to_string();
        let name = if name.is_empty() { fault.to_owned() } else { format!("{name}: {fault}") };
        *inner.faults.entry(name).or_default() += 1;
    }

    pub(super) fn lines(&self) -> usize {
        self.0.lock().expect("no one panics with the trace in hand").lines
    }

    pub(super) fn text(&self) -> String {
        self.0.lock().expect("no one panics with the trace in hand").text.clone()
    }

    pub(super) fn faults(&self) -> BTreeMap<String, u64> {
        self.0.lock().expect("no one panics with the trace in hand").faults.clone()
    }
}
