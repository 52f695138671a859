//! Where the run is: one line on a terminal, and a line every ten seconds elsewhere.

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// The pause between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    told: Instant,
    last: (Instant, u64),
    rate: f64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = io::stderr().is_terminal().then(|| ProgressBar::new_spinner().with_style(style));
        Progress { bar, told: Instant::now(), last: (Instant::now(), 0), rate: 0.0 }
    }

    #[allow(clippy::too_many_arguments, reason = "each is one figure of the line")]
    pub(crate) fn show(
        &mut self,
        round: &str,
        phase: &str,
        time: Duration,
        sent: u64,
        committed: u64,
        transactions: u64,
        kills: u64,
        faults: u64,
    ) {
        let pause = if self.bar.is_some() { Duration::from_millis(200) } else { PAUSE };
        if self.told.elapsed() < pause {
            return;
        }
        self.told = Instant::now();
        let passed = self.last.0.elapsed().as_secs_f64();
        if passed > 2.0 {
            self.rate = committed.saturating_sub(self.last.1) as f64 / passed;
            self.last = (Instant::now(), committed);
        }
        self.say(&format!(
            "{round}, {phase}, {}:{:02}: {} commands, {} committed ({:.0}/s), {} transactions, {faults} faults, {kills} kills",
            time.as_secs() / 60,
            time.as_secs() % 60,
            HumanCount(sent),
            HumanCount(committed),
            self.rate,
            HumanCount(transactions),
        ));
    }

    pub(crate) fn say(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(text.to_owned());
                bar.tick();
            }
            None => eprintln!("chaos: {text}"),
        }
    }

    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
