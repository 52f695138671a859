//! What is checked at the end of each round, when everything is at rest and no process runs.

use crate::load::{Ledger, MAX_COMMAND};
use crate::logs::Follower;
use crate::process::{App, Variant, command, copy};
use crate::reads::{Read, Shown};
use crate::report::Verdict;
use crate::world::World;
use bank::Account;
use es_kafka::envelope::header;
use es_kafka::record::{Place, RecordRef, Role};
use es_kafka::state_store::StateStore;
use es_store::{StoreFolder, StoreOptions};
use es_testkit::checkers::{Audit, AuditCounts, Violation};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

/// Up to so many events the application's own `verify` runs after each round; it reads the whole log for each process.
const VERIFIED: u64 = 2_000_000;
/// How many accounts each process is asked for.
const ASKED: usize = 2;

/// The checkers, and what they carry from round to round.
pub(crate) struct Checks {
    follower: Follower,
    audit: Audit<Account>,
    books: Books,
    shown: Shown,
    round: usize,
    interrupted: Arc<AtomicBool>,
}

/// Sums over all that is committed.
#[derive(Debug, Default)]
struct Books {
    deposited: u128,
    withdrawn: u128,
    /// One bit for each id of the ledger, set when a command with it was read.
    ids: Vec<u64>,
    distinct: u64,
}

impl Checks {
    pub(crate) fn new(world: &World, interrupted: Arc<AtomicBool>) -> Result<Self, String> {
        Ok(Checks {
            interrupted,
            follower: Follower::new(world)?,
            audit: Audit::new(world.commands_id, world.partitions, world.command_memory, MAX_COMMAND),
            books: Books::default(),
            shown: Shown::default(),
            round: 0,
        })
    }

    /// What the audit has seen.
    pub(crate) fn counts(&self) -> AuditCounts {
        self.audit.counts()
    }

    /// The reads that were compared.
    pub(crate) fn reads(&self) -> u64 {
        self.shown.compared
    }

    /// Runs the checkers over what is new since the last round; when interrupted, only those that had begun.
    pub(crate) fn round(
        &mut self,
        world: &World,
        apps: &[App],
        ledger: &Ledger,
        reads: Vec<Read>,
        variant: Variant,
        last: bool,
    ) -> Result<Vec<Verdict>, String> {
        let before = self.audit.counts();
        let shown = format!("{} reads", reads.len());
        self.shown.expect(reads);
        let violations = self.follow(world)?;
        let seen = self.audit.counts();
        let told = format!(
            "{} commands: {} events, {} rejected, {} nothing, {} conflicts, {} repeated, {} dead letters; {} changelog records",
            seen.commands - before.commands,
            seen.events - before.events,
            seen.rejected - before.rejected,
            seen.nothing - before.nothing,
            seen.conflicts - before.conflicts,
            seen.repeated - before.repeated,
            seen.dead_letters - before.dead_letters,
            seen.changelog - before.changelog,
        );
        let mut verdicts = vec![Verdict::of("audit", violations, told), self.ledger(world, ledger), self.sums()];
        let wrong = self.shown.close().into_iter().map(|what| Violation::new("reads", what)).collect();
        verdicts.push(Verdict::of("reads", wrong, shown));
        let violations = apps.iter().map(|app| self.store(world, &app.folder));
        let (counts, violations): (Vec<_>, Vec<_>) = violations.partition(Result::is_ok);
        let told: Vec<String> = counts.into_iter().flatten().collect();
        verdicts.push(Verdict::of("store", violations.into_iter().filter_map(Result::err).collect(), told.join("; ")));
        if self.interrupted.load(Ordering::SeqCst) {
            return Ok(verdicts);
        }
        let asked = &apps[self.round % apps.len()];
        verdicts.push(self.answers(world, &asked.folder, variant)?);
        if seen.events < VERIFIED || last {
            let whom = if last { apps } else { std::slice::from_ref(asked) };
            for app in whom.iter().take_while(|_| !self.interrupted.load(Ordering::SeqCst)) {
                verdicts.push(verify(world, &app.folder, variant)?);
            }
        }
        if last && !self.interrupted.load(Ordering::SeqCst) {
            verdicts.extend(java(world));
        }
        self.round += 1;
        Ok(verdicts)
    }

    fn follow(&mut self, world: &World) -> Result<Vec<Violation>, String> {
        let Checks { follower, audit, books, shown, .. } = self;
        // In a thread of this name the panic hook keeps quiet: the audit folds what must panic.
        thread::scope(|scope| {
            let reading = thread::Builder::new().name("audit".into()).spawn_scoped(scope, move || {
                for role in Role::ALL.into_iter().filter(|role| *role != Role::Changelog).chain([Role::Changelog]) {
                    follower.read(world, role, |record| {
                        let change = books.take(record);
                        if role == Role::Events {
                            shown.take(record, change);
                        }
                        audit.take(record);
                    })?;
                }
                Ok(audit.close())
            });
            reading.map_err(|e| e.to_string())?.join().map_err(|_| "the audit has panicked, which is a bug of it".to_owned())?
        })
    }

    /// Every command that was acknowledged lies in the log, once.
    fn ledger(&self, world: &World, ledger: &Ledger) -> Verdict {
        let mut wrong = Vec::new();
        for (partition, acknowledged) in ledger.acknowledged.iter().enumerate() {
            let (acknowledged, held) =
                (acknowledged.load(Ordering::SeqCst), self.follower.next(Place::new(Role::Commands, partition as i32)));
            if acknowledged != held as u64 {
                wrong.push(format!(
                    "{}[{partition}]: {acknowledged} commands were acknowledged, {held} are there",
                    world.topic(Role::Commands)
                ));
            }
        }
        let (ids, failed) = (ledger.ids.load(Ordering::SeqCst), ledger.failed.load(Ordering::SeqCst));
        if ids != self.books.distinct {
            wrong.push(format!("{ids} ids were given out, {} are in the log", self.books.distinct));
        }
        if failed > 0 {
            wrong.push(format!("{failed} commands could not be written"));
        }
        let violations = wrong.into_iter().map(|what| Violation::new("ledger", what)).collect();
        Verdict::of("ledger", violations, format!("{ids} ids"))
    }

    /// The sum of all balances is what was deposited less what was withdrawn.
    fn sums(&self) -> Verdict {
        let balances: u128 = self.audit.states().map(|(_, account)| u128::from(account.balance)).sum();
        let Books { deposited, withdrawn, .. } = self.books;
        if deposited >= withdrawn && deposited - withdrawn == balances {
            return Verdict::holds("sums", format!("{deposited} − {withdrawn} = {balances}"));
        }
        Verdict::violated("sums", format!("{deposited} were deposited, {withdrawn} withdrawn, and the balances come to {balances}"))
    }

    /// The store of a process is a prefix of the log. A copy of it is opened, so that looking changes nothing.
    fn store(&self, world: &World, folder: &Path) -> Result<String, Violation> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !folder.join("db").exists() {
            return Ok(format!("{name}: none"));
        }
        let bad = |what: &dyn std::fmt::Display| Violation::new("store", format!("{name}: {what}"));
        let looked_at = world.folder.join("looked-at");
        let _ = fs::remove_dir_all(&looked_at);
        copy(folder, &looked_at).ok_or_else(|| bad(&"it cannot be copied"))?;
        let opened = StoreFolder::open_existing(&looked_at, StoreOptions::default()).map_err(|e| bad(&e))?;
        let mut store = opened.component(&world.topology.store()).map_err(|e| bad(&e))?;
        let mut entries = 0;
        for task in 0..world.partitions {
            store.open(task).map_err(|e| bad(&e))?;
            let snapshot = store.snapshot(task).map_err(|e| bad(&e))?;
            let found = self.audit.store(task, &snapshot).map_err(|v| bad(&v.what))?;
            entries += found.unwrap_or(0);
            drop(snapshot);
            store.close(task);
        }
        Ok(format!("{name}: {entries} entries"))
    }

    /// What the program answers of some accounts, from the store of a process.
    fn answers(&self, world: &World, folder: &Path, variant: Variant) -> Result<Verdict, String> {
        let mut wrong = Vec::new();
        let step = 1 + self.round * 997;
        let accounts: Vec<_> = self.audit.states().step_by(step).take(ASKED).collect();
        for (id, account) in &accounts {
            let output = command(world, folder, variant, &["state", "get", id, "--json"]).output().map_err(|e| e.to_string())?;
            let text = String::from_utf8_lossy(&output.stdout);
            let answer: serde_json::Value = serde_json::from_str(text.trim()).unwrap_or_default();
            let never = account.balance == 0 && account.stage == bank::Stage::Unopened && output.status.code() == Some(1);
            if answer["state"]["balance"].as_u64() != Some(account.balance) && !never {
                let said = String::from_utf8_lossy(&output.stderr);
                wrong.push(Violation::new("answers", format!("`{id}` has {}, and `state get` says {text}{said}", account.balance)));
            }
        }
        Ok(Verdict::of("answers", wrong, format!("{} accounts", accounts.len())))
    }
}

impl Books {
    /// Returns by how much an event changes its account's balance.
    fn take(&mut self, record: &RecordRef<'_>) -> i128 {
        match record.place.role {
            Role::Events => {
                let value = record.value.and_then(|v| serde_json::from_slice::<serde_json::Value>(v).ok());
                let amount = value.and_then(|v| v["amount"].as_u64()).unwrap_or(0);
                match record.header(header::TYPE) {
                    Some(b"Deposited") => {
                        self.deposited += u128::from(amount);
                        return i128::from(amount);
                    }
                    Some(b"Withdrawn") => {
                        self.withdrawn += u128::from(amount);
                        return -i128::from(amount);
                    }
                    _ => {}
                }
            }
            Role::Commands => {
                let id = record.header(header::ID).and_then(|id| std::str::from_utf8(id).ok());
                let Some(number) = id.and_then(|id| id.strip_prefix('c')?.parse::<usize>().ok()) else { return 0 };
                if self.ids.len() <= number / 64 {
                    self.ids.resize(number / 64 + 1, 0);
                }
                let bit = 1 << (number % 64);
                self.distinct += u64::from(self.ids[number / 64] & bit == 0);
                self.ids[number / 64] |= bit;
            }
            _ => {}
        }
        0
    }
}

/// The application's own comparison of store, changelog and the fold of the log.
fn verify(world: &World, folder: &Path, variant: Variant) -> Result<Verdict, String> {
    // A changelog that was off for some rounds needs not hold the newest states; its marker says what it has.
    let variant = Variant { changelog: if variant.changelog == "each-commit" { "checkpoint:5" } else { variant.changelog }, ..variant };
    let output = command(world, folder, variant, &["verify"]).output().map_err(|e| e.to_string())?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        let log = text.lines().find(|line| line.starts_with("log:")).unwrap_or_default();
        return Ok(Verdict::holds("verify", format!("{name}: {log}")));
    }
    Ok(Verdict::violated("verify", format!("{name}: {text}{}", String::from_utf8_lossy(&output.stderr))))
}

/// Everything once more, with Kafka's own clients and nothing of this project.
fn java(world: &World) -> Vec<Verdict> {
    const SOURCE: &str = include_str!("../java/ChaosAudit.java");
    let source = world.folder.join("ChaosAudit.java");
    let failed = |what: String| vec![Verdict::violated("Java", what)];
    if let Err(error) = fs::write(&source, SOURCE) {
        return failed(format!("{}: {error}", source.display()));
    }
    let server = world.broker.server();
    let topic = |role| world.topic(role);
    let group = world.topology.group();
    let arguments = [
        server.bootstrap_servers(),
        &group,
        topic(Role::Commands),
        topic(Role::Events),
        topic(Role::Outcomes),
        topic(Role::DeadLetters),
        topic(Role::Changelog),
    ];
    let (text, ended) = match server.run_tool(&source.to_string_lossy(), &arguments, b"") {
        Ok(text) => (text, true),
        Err(error) => (error.to_string(), false),
    };
    let mut verdicts: Vec<Verdict> = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, '\t');
        match (fields.next(), fields.next(), fields.next()) {
            (Some("HOLDS"), Some(name), told) => verdicts.push(Verdict::holds(&format!("Java: {name}"), told.unwrap_or_default())),
            (Some("VIOLATED"), Some(name), told) => verdicts.push(Verdict::violated(&format!("Java: {name}"), told.unwrap_or_default())),
            _ => {}
        }
    }
    if verdicts.is_empty() || (!ended && verdicts.iter().all(|v| v.violations.is_empty())) {
        let said: Vec<&str> = text.lines().filter(|line| !line.contains("] WARN ")).collect();
        verdicts.push(Verdict::violated("Java", format!("it did not end well: {}", said.join("\n"))));
    }
    verdicts
}
