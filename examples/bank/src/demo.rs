//! `bank demo`: a generator of commands, the bank on a broker in memory, and a table that shows that nothing was lost or counted twice.

use bank::{Account, AccountEvent};
use es_kafka::clap::{Arg, ArgMatches, Command, value_parser};
use es_kafka::embedded::Embedded;
use es_kafka::partition::partition_of;
use es_kafka::record::{Place, RecordBatch, Role};
use es_kafka::{Aggregate, App, Exit};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The grammar of `bank demo`.
pub(crate) fn command() -> Command {
    let number = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).default_value(default).value_parser(value_parser!(u64).range(1..)).help(help)
    };
    Command::new("demo")
        .about("Runs the bank on a broker in memory, with commands that it makes up, and counts afterwards")
        .arg(number("commands", "200000", "How many commands to make up"))
        .arg(number("accounts", "10000", "Over how many accounts"))
        .arg(number("seed", "1", "The same seed makes up the same commands"))
}

/// Runs `bank demo`.
pub(crate) fn run(arguments: &ArgMatches, app: App) -> Result<Exit, Box<dyn Error>> {
    let number = |name: &str| *arguments.get_one::<u64>(name).expect("it has a default");
    let (commands, accounts) = (number("commands"), number("accounts"));
    let embedded = Embedded::new();
    let app = app.embedded(embedded.clone());
    let running = app.start()?;

    let begun = Instant::now();
    let partitions = app.settings()?.partitions;
    feed(&embedded, partitions, commands, accounts, number("seed"))?;
    let bar = ProgressBar::new(commands).with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} commands, {per_sec}, {elapsed}")?);
    let done = running.wait_until(Duration::from_secs(600), |lanes| {
        let committed = lanes.iter().map(|lane| lane.stats.committed_inputs).sum();
        bar.set_position(committed);
        committed >= commands
    });
    let took = begun.elapsed();
    bar.finish_and_clear();

    let stats = running.stop()?.into_iter().map(|(_, stats)| stats).next().unwrap_or_default();
    let log = refold(&app, &embedded)?;
    let mut stored = Totals::default();
    app.each_state::<Account>(|_, account| stored.add(account))?;
    if !done {
        return Err(format!("only {} of {commands} commands were committed in {took:?}", stats.committed_inputs).into());
    }

    let moved = log.deposits - log.withdrawals;
    let outcomes = log.events + log.outcomes;
    println!("commands                                {:>15}", commands);
    println!("events                                  {:>15}", log.events);
    println!("rejections                              {:>15}", stats.rejected);
    println!("nothing to do, dead letters             {:>15}", stats.nothing + stats.dead_letters);
    println!("events + outcomes in the log            {:>15}  {}", outcomes, verdict(outcomes == commands, "one for each command"));
    println!("deposits - withdrawals                  {moved:>15}");
    println!(
        "sum of {:>6} balances in the store      {:>15}  {}",
        stored.accounts,
        stored.balance,
        verdict(stored.balance == moved, "equal")
    );
    println!(
        "sum of {:>6} balances refolded from log {:>15}  {}",
        log.state.accounts,
        log.state.balance,
        verdict(log.state == stored, "equal")
    );
    println!("{commands} commands in {:.1} s, {} transactions", took.as_secs_f64(), stats.commits);
    Ok(if outcomes == commands && stored.balance == moved && log.state == stored { Exit::OK } else { Exit::FAILED })
}

fn verdict(right: bool, text: &str) -> String {
    if right { format!("({text})") } else { "(DIFFERENT)".to_owned() }
}

/// Writes made-up commands: plain JSON without headers, as any producer would; 7 of 10 are deposits.
fn feed(embedded: &Embedded, partitions: i32, commands: u64, accounts: u64, seed: u64) -> Result<(), Box<dyn Error>> {
    let mut random = seed;
    let mut draw = |below: u64| {
        // SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let mut batch = RecordBatch::new();
    for n in 1..=commands {
        let key = format!("acct-{:011}", draw(accounts));
        let name = if draw(10) < 7 { "Deposit" } else { "Withdraw" };
        let value = format!(r#"{{"type":"{name}","amount":{},"memo":"made up"}}"#, 1 + draw(1000));
        let place = Place::new(Role::Commands, partition_of(key.as_bytes(), partitions));
        batch.push(place, now).key(key.as_bytes()).value(value.as_bytes());
        if batch.len() == 1000 || n == commands {
            embedded.produce_batch("account-commands", &batch)?;
            batch.clear();
        }
    }
    Ok(())
}

/// What the log says.
#[derive(Default)]
struct Log {
    events: u64,
    outcomes: u64,
    deposits: u64,
    withdrawals: u64,
    state: Totals,
}

/// Accounts and what is in them.
#[derive(Default, PartialEq)]
struct Totals {
    accounts: u64,
    balance: u64,
}

impl Totals {
    fn add(&mut self, account: &Account) {
        self.accounts += 1;
        self.balance += account.balance;
    }
}

/// Reads all events and folds them once more.
fn refold(app: &App, embedded: &Embedded) -> Result<Log, Box<dyn Error>> {
    let mut log = Log { outcomes: embedded.read("account-outcomes")?.len() as u64, ..Log::default() };
    let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
    app.each_event::<Account>(|envelope| {
        log.events += 1;
        match &envelope.event {
            AccountEvent::Deposited { amount } => log.deposits += amount,
            AccountEvent::Withdrawn { amount } => log.withdrawals += amount,
            AccountEvent::Opened { .. } | AccountEvent::Closed => {}
        }
        accounts.entry(envelope.aggregate_id.clone()).or_default().apply(envelope.event.clone());
    })?;
    accounts.values().for_each(|account| log.state.add(account));
    Ok(log)
}
