//! `loans --xes FILE`: turns the entries of an event log into commands, waits until all are taken, and prints the table of what it reads back.
//!
//! It may be killed at any moment and started again with the same command line. It then goes on behind what the events topic holds, and sends
//! again what was on its way: a command's id is made of its application and its place there, so a repeated one is known by its id; and should
//! that be forgotten, the aggregate knows the entry by its place.

use es_kafka::clap::{Arg, ArgMatches, Command, value_parser};
use es_kafka::embedded::Embedded;
use es_kafka::settings::Origin;
use es_kafka::{App, Exit, Running, Settings};
use indicatif::{ProgressBar, ProgressStyle};
use loans::table::Table;
use loans::{Loan, activity, xes};
use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a start may take: the session of a former process, and a restore.
const START: Duration = Duration::from_secs(300);
/// How long the application must have had nothing to do before it counts as done.
const QUIET: Duration = Duration::from_millis(500);
/// The longest silence after which missing entries are still waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the last commands may take to arrive.
const FLUSH: Duration = Duration::from_secs(60);

/// The grammar of `loans --xes FILE`.
pub(crate) fn command() -> Command {
    let xes = Arg::new("xes").long("xes").value_name("FILE").required(true).value_parser(value_parser!(PathBuf));
    Command::new("feed")
        .about("Feeds an event log to loan applications and prints a table; without --bootstrap-servers on a broker in memory")
        .arg(xes.help("The event log: XES, plain or compressed by gzip"))
}

/// Runs `loans --xes FILE`.
pub(crate) fn run(arguments: &ArgMatches, app: App) -> Result<Exit, Box<dyn Error>> {
    let path = arguments.get_one::<PathBuf>("xes").expect("clap requires it");
    let log = xes::open(path).map_err(|error| in_file(path, &error))?;
    let app = if names_a_broker(app.settings()?) { app } else { app.embedded(Embedded::new()) };
    let begun = Instant::now();
    let running = app.start()?;
    // A former process may have left a transaction open; it is ended once the partitions are ours.
    if !running.wait_until(START, |lanes| lanes.iter().all(|lane| lane.tasks > 0 && lane.running == lane.tasks)) {
        running.stop()?;
        return Err(format!("no partitions within {} s: are there more processes than partitions?", START.as_secs()).into());
    }
    let fed = feed(&app, path, log)?;
    wait(&app, &running, &fed)?;
    let stats = running.stop()?;
    let (refused, dead) = stats.iter().fold((0, 0), |(refused, dead), (_, one)| (refused + one.rejected, dead + one.dead_letters));
    let took = begun.elapsed();

    // The application has stopped, so its store can be read.
    let mut table = Table::default();
    app.each_event::<Loan>(|envelope| table.event(envelope))?;
    app.each_state::<Loan>(|id, loan| table.state(id, loan))?;
    print!("{table}");
    let missing = fed.entries.iter().map(|(case, entries)| entries.saturating_sub(table.events_of(case))).sum::<u64>();
    if missing > 0 {
        println!("WRONG: {missing} entries of the file are not in the events topic");
        println!("  {refused} were rejected in this run (why is in the outcomes topic), {dead} went to the dead letters");
    }
    println!("{} entries of the file, of which {} were sent, in {:.1} s", fed.total(), fed.sent, took.as_secs_f64());
    Ok(if missing == 0 && table.differences().is_empty() { Exit::OK } else { Exit::DIFFERENCE })
}

/// Whether somebody said where the log lives.
fn names_a_broker(settings: &Settings) -> bool {
    settings.entries().iter().any(|entry| matches!(entry.key.as_str(), "broker" | "bootstrap.servers") && entry.origin != Origin::Default)
}

/// What was fed.
struct Fed {
    /// The number of entries of each application in the file.
    entries: HashMap<String, u64>,
    /// How many of them were sent.
    sent: u64,
}

impl Fed {
    fn total(&self) -> u64 {
        self.entries.values().sum()
    }
}

/// Sends the commands of all entries that the events topic does not hold yet, in the order of the file.
fn feed(app: &App, path: &Path, log: impl Iterator<Item = Result<xes::Trace, xes::XesError>>) -> Result<Fed, Box<dyn Error>> {
    let taken = taken(app)?;
    let mut sender = app.sender::<Loan>()?;
    let mut fed = Fed { entries: HashMap::new(), sent: 0 };
    for trace in log {
        let trace = trace.map_err(|error| in_file(path, &error))?;
        let commands = activity::commands(&trace).map_err(|error| in_file(path, &error))?;
        if fed.entries.insert(trace.name.clone(), commands.len() as u64).is_some() {
            return Err(in_file(path, &format!("line {}: a second trace is named `{}`", trace.line, trace.name)).into());
        }
        let known = taken.get(&trace.name).copied().unwrap_or(0);
        for command in commands.iter().filter(|command| command.entry().index >= known) {
            sender.send(&trace.name, &format!("{}-{}", trace.name, command.entry().index), command)?;
            fed.sent += 1;
        }
    }
    sender.flush(FLUSH)?;
    Ok(fed)
}

fn in_file(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

/// The number of entries of each application that the events topic holds.
fn taken(app: &App) -> Result<HashMap<String, u64>, Box<dyn Error>> {
    let mut taken = HashMap::new();
    app.each_event::<Loan>(|envelope| *taken.entry(envelope.aggregate_id.clone()).or_default() += 1)?;
    Ok(taken)
}

/// Waits until the events topic holds all that was fed, or nothing more can come.
fn wait(app: &App, running: &Running, fed: &Fed) -> Result<(), Box<dyn Error>> {
    let bar = ProgressBar::new(fed.sent).with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} entries, {per_sec}, {elapsed}")?);
    let (mut quiet, mut committed, mut busy) = (QUIET, 0, Instant::now());
    while quiet <= PATIENCE && !running.has_ended() {
        let is_quiet = running.wait_until(PATIENCE, |lanes| {
            let now = lanes.iter().map(|lane| lane.stats.committed_inputs).sum();
            bar.set_position(now);
            if now != committed || !lanes.iter().all(|lane| lane.idle) {
                (committed, busy) = (now, Instant::now());
            }
            busy.elapsed() >= quiet
        });
        if is_quiet {
            let taken = taken(app)?;
            let all_are_there = fed.entries.iter().all(|(case, entries)| taken.get(case).is_some_and(|taken| taken >= entries));
            let status = running.status();
            let refused: u64 = status.iter().map(|lane| lane.stats.rejected + lane.stats.conflicts + lane.stats.dead_letters).sum();
            if all_are_there || (refused > 0 && committed >= fed.sent) {
                break;
            }
            // Another process may have them, or the broker is slow: look again, each time after a longer silence.
            quiet *= 2;
        }
    }
    bar.finish_and_clear();
    Ok(())
}
