//! Progress on stderr: a bar for a restore on a terminal, lines in the log otherwise, and a closing line.

use crate::status::ComponentStatus;
use es_core::runner::Stats;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// The pause between two lines in the log.
const PAUSE: Duration = Duration::from_secs(5);

/// Shows what the components are doing.
pub(crate) struct Progress {
    app: String,
    bar: Option<ProgressBar>,
    terminal: bool,
    started: Instant,
    told: Instant,
    /// The number of partitions that were told to be processed.
    serving: Option<usize>,
}

impl Progress {
    pub(crate) fn new(app: &str) -> Self {
        let now = Instant::now();
        Progress { app: app.to_owned(), bar: None, terminal: io::stderr().is_terminal(), started: now, told: now, serving: None }
    }

    pub(crate) fn show(&mut self, components: &[ComponentStatus]) {
        let restoring = components.iter().filter_map(|component| component.restoring).reduce(|a, b| (a.0 + b.0, a.1 + b.1));
        match restoring {
            Some((done, all)) if self.terminal => {
                let bar = self.bar.get_or_insert_with(bar);
                bar.set_length(all);
                bar.set_position(done.min(all));
            }
            Some((done, all)) if self.told.elapsed() >= PAUSE => {
                self.told = Instant::now();
                tracing::info!(records = done, of = all, "restoring");
            }
            Some(_) => {}
            None => self.bar.take().into_iter().for_each(|bar| bar.finish_and_clear()),
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
        self.bar.take().into_iter().for_each(|bar| bar.finish_and_clear());
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
    let _ = writeln!(io::stderr(), "{message}");
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("restoring {bar:40} {human_pos} of {human_len} records, {per_sec}, {eta} left");
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
