//! Reads through the processes' queries, beside everything else: each shows what was written before it, and nothing that is not committed.

use crate::load::Ledger;
use bank::Account;
use es_kafka::Aggregate;
use es_kafka::envelope::Headers;
use es_kafka::record::RecordRef;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Who reads at a time.
const HANDS: usize = 16;
/// Between two reads of each.
const PAUSE: Duration = Duration::from_millis(40);
/// How long an answer is waited for, the owner's waiting for the command included.
const PATIENCE: Duration = Duration::from_secs(6);

/// A command that the broker has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) account: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// An answer: the account as it was shown after `written` had been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) written: Written,
    pub(crate) sequence: u64,
    pub(crate) balance: u64,
}

/// What has come of the reads.
#[derive(Debug, Default)]
struct Shared {
    /// Where the processes answer, by their number.
    endpoints: Mutex<Vec<Option<String>>>,
    reads: Mutex<Vec<Read>>,
    /// Questions without an answer, by the reason that was told.
    unanswered: Mutex<BTreeMap<String, u64>>,
    end: AtomicBool,
}

/// The threads that read.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Reader {
    /// Starts them; they ask whoever has told its endpoint.
    pub(crate) fn start(ledger: &Arc<Ledger>, processes: usize) -> Self {
        let shared = Arc::new(Shared { endpoints: Mutex::new(vec![None; processes]), ..Shared::default() });
        let threads = (0..HANDS).map(|hand| {
            let (shared, ledger) = (shared.clone(), ledger.clone());
            thread::spawn(move || shared.run(&ledger, hand))
        });
        Reader { threads: threads.collect(), shared }
    }

    /// Where a process answers now; it stays known when it has died, as a client would know it.
    pub(crate) fn tell(&self, process: usize, endpoint: &str) {
        lock(&self.shared.endpoints)[process] = Some(endpoint.to_owned());
    }

    /// The answers since the last time.
    pub(crate) fn take(&self) -> Vec<Read> {
        std::mem::take(&mut lock(&self.shared.reads))
    }

    /// Questions without an answer, by the reason.
    pub(crate) fn unanswered(&self) -> BTreeMap<String, u64> {
        lock(&self.shared.unanswered).clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A panic of it has been told by the hook.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, ledger: &Ledger, hand: usize) {
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build().into();
        let mut turn = hand;
        while !self.end.load(Ordering::SeqCst) {
            thread::sleep(PAUSE);
            turn += 1;
            let endpoint = {
                let endpoints = lock(&self.endpoints);
                endpoints[turn % endpoints.len()].clone()
            };
            let (Some(endpoint), Some(written)) = (endpoint, ledger.take_newest()) else { continue };
            match ask(&agent, &endpoint, written) {
                Ok(read) => lock(&self.reads).push(read),
                Err(why) => *lock(&self.unanswered).entry(why).or_default() += 1,
            }
        }
    }
}

/// Asks a process for an account, whoever its owner is.
fn ask(agent: &ureq::Agent, endpoint: &str, written: Written) -> Result<Read, String> {
    let Written { account, partition, offset } = &written;
    let component = Account::NAME;
    let target = format!("http://{endpoint}/v1/{component}/state/{account}?min_position={partition}:{offset}&wait=3s");
    let mut answer = agent.get(&target).call().map_err(|error| match error {
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        _ => "nobody there".to_owned(),
    })?;
    let body = answer.body_mut().read_to_string().map_err(|_| "an answer broke off".to_owned())?;
    let body: Value = serde_json::from_str(&body).map_err(|_| "no JSON".to_owned())?;
    match (answer.status().as_u16(), body["error"].as_str()) {
        (200, _) => match (body["sequence"].as_u64(), body["state"]["balance"].as_u64()) {
            (Some(sequence), Some(balance)) => Ok(Read { written, sequence, balance }),
            _ => Err("no state".to_owned()),
        },
        (404, Some("not_found")) => Ok(Read { written, sequence: 0, balance: 0 }),
        (status, error) => Err(format!("{status} {}", error.unwrap_or("without a reason"))),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compares what was shown with the log, event by event.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// The reads of this round, by account.
    reads: HashMap<String, Vec<Read>>,
    /// Number of events and balance of each account, as the log has them so far.
    accounts: HashMap<String, (u64, u64)>,
    wrong: Vec<String>,
    pub(crate) compared: u64,
}

impl Shown {
    /// The reads since the last round, before the round's events are taken.
    pub(crate) fn expect(&mut self, reads: Vec<Read>) {
        for read in reads {
            let (sequence, balance) = self.accounts.get(&read.written.account).copied().unwrap_or_default();
            if read.sequence < sequence || read.sequence == sequence && read.balance != balance {
                self.wrong.push(format!("{read:?}: before the round it had {balance} after {sequence} events"));
            }
            self.compared += 1;
            self.reads.entry(read.written.account.clone()).or_default().push(read);
        }
    }

    /// Takes the next event of the log.
    pub(crate) fn take(&mut self, record: &RecordRef<'_>, change: i128) {
        let (Some(key), Ok(Headers { sequence, provenance: Some(provenance), .. })) = (record.key, Headers::read(record)) else { return };
        let Ok(account) = std::str::from_utf8(key) else { return };
        let entry = match self.accounts.get_mut(account) {
            Some(entry) => entry,
            None => self.accounts.entry(account.to_owned()).or_default(),
        };
        *entry = (sequence, (i128::from(entry.1) + change).try_into().unwrap_or(u64::MAX));
        for read in self.reads.get(account).into_iter().flatten() {
            if read.sequence == sequence && read.balance != entry.1 {
                self.wrong.push(format!("{read:?}: after {sequence} events it has {}", entry.1));
            }
            if read.sequence < sequence && provenance.offset <= read.written.offset {
                self.wrong.push(format!("{read:?}: event {sequence}, of the command at {}, is missing", provenance.offset));
            }
        }
    }

    /// What was wrong, once all events of the round were taken.
    pub(crate) fn close(&mut self) -> Vec<String> {
        for (account, reads) in self.reads.drain() {
            let (sequence, _) = self.accounts.get(&account).copied().unwrap_or_default();
            let beyond = reads.iter().filter(|read| read.sequence > sequence);
            self.wrong.extend(beyond.map(|read| format!("{read:?}: only {sequence} events are committed")));
        }
        std::mem::take(&mut self.wrong)
    }
}
