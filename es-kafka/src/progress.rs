//! Progress on stderr: a bar for a restore on a terminal, lines in the log otherwise, and a closing line.

use crate::status::ComponentStatus;
use es_core::runner::Stats;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The pause between two lines in the log.
const PAUSE: Duration = Duration::from_secs(5);

/// The bar that is on the terminal now, for who writes there too.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Shows what the components are doing.
pub(crate) struct Progress {
    app: String,
    terminal: bool,
    started: Instant,
    told: Instant,
    /// The number of partitions that were told to be processed.
    serving: Option<usize>,
}

impl Progress {
    pub(crate) fn new(app: &str) -> Self {
        let now = Instant::now();
        Progress { app: app.to_owned(), terminal: io::stderr().is_terminal(), started: now, told: now, serving: None }
    }

    pub(crate) fn show(&mut self, components: &[ComponentStatus]) {
        let restoring = components.iter().filter_map(|component| component.restoring).reduce(|a, b| (a.0 + b.0, a.1 + b.1));
        let lanes = components.iter().flat_map(|component| &component.lanes);
        let partitions = lanes.flat_map(|lane| &lane.details.tasks).filter(|task| task.restoring.is_some()).count();
        let working: usize = components.iter().map(|component| component.running).sum();
        match restoring {
            Some((done, all)) if self.terminal => {
                let bar = shown().get_or_insert_with(bar).clone();
                bar.set_message(format!("{partitions} partitions, {working} work already"));
                bar.set_length(all);
                bar.set_position(done.min(all));
            }
            Some((done, all)) if self.told.elapsed() >= PAUSE => {
                self.told = Instant::now();
                tracing::info!(records = done, of = all, partitions, working, "restoring");
            }
            Some(_) => {}
            None => clear(),
        }
        let all_run = restoring.is_none() && components.iter().all(ComponentStatus::is_processing);
        let serving = all_run.then(|| components.iter().map(|component| component.tasks).sum());
        if let Some(partitions) = serving.filter(|_| serving != self.serving) {
            tracing::info!(partitions, after = ?self.started.elapsed(), "processing");
        }
        self.serving = serving;
    }

    /// Says what was done in all.
    pub(crate) fn close(&mut self, done: &[(String, Stats)]) {
        clear();
        for (component, stats) in done {
            say(format_args!("{}: `{component}` {}", self.app, summary(stats)));
        }
    }
}

/// Progress of a tool through partitions.
pub(crate) struct Partitions {
    bar: Option<ProgressBar>,
    told: Instant,
    done: i32,
    all: i32,
}

impl Partitions {
    pub(crate) fn new(all: i32) -> Self {
        let style = ProgressStyle::with_template("partition {pos} of {len} {bar:40} {msg}");
        let bar = || ProgressBar::new(all.max(0) as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Partitions { bar: io::stderr().is_terminal().then(bar), told: Instant::now(), done: 0, all }
    }

    /// One more is done; `events` have been read so far.
    pub(crate) fn step(&mut self, events: u64) {
        self.done += 1;
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("{events} events"));
                bar.inc(1);
            }
            None if self.told.elapsed() >= PAUSE => {
                self.told = Instant::now();
                tracing::info!(partitions = self.done, of = self.all, events, "verifying");
            }
            None => {}
        }
    }
}

impl Drop for Partitions {
    fn drop(&mut self) {
        self.bar.take().into_iter().for_each(|bar| bar.finish_and_clear());
    }
}

/// Says something to the person at the terminal.
pub(crate) fn say(message: std::fmt::Arguments<'_>) {
    // Nobody is left to be told when stderr is closed.
    let _ = Lines.write_all(format!("{message}\n").as_bytes());
}

/// Whole lines for stderr. A bar that is there makes room for them, and is drawn again below.
pub(crate) struct Lines;

impl Write for Lines {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        // The lock is not kept while the bar is drawn.
        let bar = shown().clone();
        match bar {
            Some(bar) => bar.suspend(|| io::stderr().write(lines)),
            None => io::stderr().write(lines),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn shown() -> std::sync::MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn clear() {
    let bar = shown().take();
    bar.into_iter().for_each(|bar| bar.finish_and_clear());
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("restoring {msg} {wide_bar} {human_pos} of {human_len} records, {per_sec}, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// One line: `committed 200 inputs in 3 transactions: 180 events, 20 rejected`.
pub(crate) fn summary(stats: &Stats) -> String {
    let mut text = format!("committed {} inputs in {} transactions: {} events", stats.committed_inputs, stats.commits, stats.events);
    let others = [
        (stats.rejected, "rejected"),
        (stats.nothing, "with nothing to do"),
        (stats.duplicates, "repeated"),
        (stats.conflicts, "in conflict"),
        (stats.dead_letters, "dead letters"),
        (stats.aborts, "batches given up and done again"),
    ];
    for (count, what) in others {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_leaves_out_what_did_not_happen() {
        let stats = Stats { committed_inputs: 9, commits: 2, events: 7, rejected: 2, ..Stats::default() };
        assert_eq!(summary(&stats), "committed 9 inputs in 2 transactions: 7 events, 2 rejected");
    }
}
