//! Where a lane takes questions: a bounded queue, and the lane's own thread that answers them between two steps of its loop.
//!
//! So queries take no lock and copy no state; and no question holds the lane for longer than about a millisecond, since a scan goes on slice by slice.

use es_core::broker::Broker;
use es_core::clock::Clock;
use es_core::runner::{Runner, RunnerError};
use es_core::state_store::StateStore;
use es_core::task::Logic;
use es_core::task::query::{Committed, Scan, Scanned, Unanswered};
use serde::Serialize;
use std::collections::VecDeque;
use std::ops::{Bound, ControlFlow};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// For so long a lane answers between two steps.
const SLICE: Duration = Duration::from_millis(1);
/// A scan looks at the clock after so many keys.
const LOOK: usize = 16;
/// So many questions may wait in a lane's queue.
const QUEUE: usize = 4096;
/// So many may wait for the state to come up to what they ask for.
const WAITING: usize = 4096;

/// What a lane is asked about one of its partitions.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// The state of an aggregate.
    Get { id: String },
    /// States in the order of their ids.
    List { range: Range, limit: usize, max_bytes: usize },
    /// The number of states.
    Count { range: Range },
    /// Where the events of an aggregate lie.
    History { id: String, after: u64, limit: usize },
    /// What the state reflects.
    Position,
}

/// Which ids.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub(crate) prefix: String,
    pub(crate) from: Bound<String>,
    pub(crate) to: Option<String>,
}

impl Range {
    fn scan(&self) -> Scan<'_> {
        Scan { prefix: &self.prefix, from: self.from.as_ref().map(String::as_str), to: self.to.as_deref() }
    }
}

/// A question to a lane.
pub(crate) struct Question {
    pub(crate) partition: i32,
    pub(crate) ask: Ask,
    /// The state must reflect the input at this offset.
    pub(crate) reflects: Option<i64>,
    /// A standby may answer too, where it is asked for one state as it is.
    pub(crate) stale: bool,
    /// Until then it may wait for that, and for a restore.
    pub(crate) until: Instant,
    /// Called once, on the lane's thread.
    pub(crate) answer: Box<dyn FnOnce(Answer) + Send>,
}

/// What a lane answers. A position is that of the next input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The state with its id, partition, position and number of events, as JSON.
    Found(Vec<u8>),
    /// There is none.
    Absent {
        position: i64,
    },
    /// As [`Answer::Found`], of a standby, with its lag in the place of the position.
    FoundInStandby(Vec<u8>),
    /// A standby has none, and had not folded so many records.
    AbsentInStandby {
        lag: u64,
    },
    /// Items of a page, JSON with commas between; and, where there may be more, the id of the last that was looked at.
    Page {
        items: Vec<u8>,
        count: usize,
        last: Option<String>,
    },
    Counted {
        count: u64,
        position: i64,
    },
    /// Numbers and offsets of events, in their order.
    Events {
        places: Vec<(u64, i64)>,
        position: i64,
    },
    Position {
        input: i64,
        events: i64,
        outcomes: i64,
    },
    /// The time is over, and the state does not reflect what was asked for.
    Behind {
        position: i64,
    },
    /// The partition is being restored.
    NotReady {
        state: String,
    },
    /// Another lane or process has the partition, or nobody.
    NotHere,
    /// Too many wait already.
    Busy,
    Failed(String),
}

/// Hands questions to a lane, from any thread.
#[derive(Clone)]
pub(crate) struct Counter {
    questions: SyncSender<Question>,
    waker: Arc<OnceLock<Waker>>,
}

type Waker = Box<dyn Fn() + Send + Sync>;

/// The lane's end.
pub(crate) struct Desk {
    questions: Receiver<Question>,
    waker: Arc<OnceLock<Waker>>,
    waiting: Vec<Question>,
    scans: VecDeque<Job>,
}

/// A scan under way.
struct Job {
    question: Question,
    items: Vec<u8>,
    count: usize,
    last: Option<String>,
}

/// A desk, and what hands questions to it.
pub(crate) fn desk() -> (Counter, Desk) {
    let (sender, questions) = sync_channel(QUEUE);
    let waker = Arc::new(OnceLock::new());
    (Counter { questions: sender, waker: waker.clone() }, Desk { questions, waker, waiting: Vec::new(), scans: VecDeque::new() })
}

impl Counter {
    /// Hands a question over. It is answered by this very call where the lane has ended or too many wait.
    pub(crate) fn ask(&self, question: Question) {
        match self.questions.try_send(question) {
            Ok(()) => {
                if let Some(wake) = self.waker.get() {
                    wake();
                }
            }
            Err(TrySendError::Full(question)) => (question.answer)(Answer::Busy),
            Err(TrySendError::Disconnected(question)) => (question.answer)(Answer::NotHere),
        }
    }
}

impl Desk {
    /// How a lane is woken that waits for its broker.
    pub(crate) fn wake_by(&self, waker: impl Fn() + Send + Sync + 'static) {
        // Once, by the lane as it starts.
        let _ = self.waker.set(Box::new(waker));
    }

    /// Answers what it can. Returns whether there is more to do at once.
    pub(crate) fn serve<L: Logic, B: Broker, S: StateStore, C: Clock>(&mut self, runner: &mut Runner<L, B, S, C>) -> bool {
        let Ok(first) = self.questions.try_recv() else {
            return self.go_on(runner);
        };
        let begun = Instant::now();
        let mut next = Some(first);
        while let Some(question) = next {
            self.take(runner, question);
            next = if begun.elapsed() < SLICE { self.questions.try_recv().ok() } else { None };
        }
        let cut_short = begun.elapsed() >= SLICE;
        self.go_on(runner) || cut_short
    }

    /// Looks at what waits, and does a slice of a scan. Returns whether there is a scan left.
    fn go_on<L: Logic, B: Broker, S: StateStore, C: Clock>(&mut self, runner: &mut Runner<L, B, S, C>) -> bool {
        if !self.waiting.is_empty() {
            let now = Instant::now();
            for question in std::mem::take(&mut self.waiting) {
                match wants(runner, &question) {
                    Some(_) if now < question.until => self.waiting.push(question),
                    Some(missing) => (question.answer)(missing),
                    None => self.answer(runner, question),
                }
            }
        }
        if let Some(mut job) = self.scans.pop_front() {
            match job.slice(runner, Instant::now() + SLICE / 2) {
                Some(answer) => (job.question.answer)(answer),
                None => self.scans.push_back(job),
            }
        }
        !self.scans.is_empty()
    }

    fn take<L: Logic, B: Broker, S: StateStore, C: Clock>(&mut self, runner: &mut Runner<L, B, S, C>, question: Question) {
        match wants(runner, &question) {
            None => self.answer(runner, question),
            Some(Answer::NotHere) => {
                let answer = of_standby(runner, &question).unwrap_or(Answer::NotHere);
                (question.answer)(answer);
            }
            Some(Answer::Behind { .. } | Answer::NotReady { .. }) if self.waiting.len() < WAITING && Instant::now() < question.until => {
                self.waiting.push(question);
            }
            Some(missing) => (question.answer)(missing),
        }
    }

    fn answer<L: Logic, B: Broker, S: StateStore, C: Clock>(&mut self, runner: &mut Runner<L, B, S, C>, question: Question) {
        let partition = question.partition;
        let Ok(position) = runner.position(partition).copied() else { return (question.answer)(Answer::NotHere) };
        let answer = match &question.ask {
            Ask::Get { id } => runner
                .get(partition, id, |found| match found {
                    None => Answer::Absent { position: position.input },
                    Some(Committed { sequence, state }) => {
                        let shown = Shown { id, partition, position: Some(position.input), lag_records: None, sequence, state };
                        serde_json::to_vec(&shown).map_or_else(|e| not_json(id, &e), Answer::Found)
                    }
                })
                .unwrap_or_else(unanswered),
            Ask::History { id, after, limit } => runner
                .history(partition, id, *after, *limit)
                .map_or_else(unanswered, |places| Answer::Events { places, position: position.input }),
            Ask::Position => Answer::Position { input: position.input, events: position.events, outcomes: position.outcomes },
            Ask::List { .. } | Ask::Count { .. } => {
                self.scans.push_back(Job { question, items: Vec::new(), count: 0, last: None });
                return;
            }
        };
        (question.answer)(answer);
    }
}

impl Job {
    /// Goes on until `until`. Returns the answer once it is complete.
    fn slice<L: Logic, B: Broker, S: StateStore, C: Clock>(&mut self, runner: &mut Runner<L, B, S, C>, until: Instant) -> Option<Answer> {
        let partition = self.question.partition;
        let (Ask::List { range, .. } | Ask::Count { range }) = &self.question.ask else { unreachable!("a scan is a list or a count") };
        let from = match &self.last {
            Some(last) => Bound::Excluded(last.clone()),
            None => range.from.clone(),
        };
        let scan = Scan { from: from.as_ref().map(String::as_str), ..range.scan() };
        let (items, count, last) = (&mut self.items, &mut self.count, &mut self.last);
        let (mut looked, mut failed, mut full) = (0, None, false);
        let mut is_time = move || {
            looked += 1;
            looked % LOOK == 0 && Instant::now() >= until
        };
        let scanned = match &self.question.ask {
            Ask::List { limit, max_bytes, .. } => runner.scan(partition, &scan, |id, found| {
                if let Some(Committed { sequence, state }) = found {
                    if *count > 0 {
                        items.push(b',');
                    }
                    if let Err(error) = serde_json::to_writer(&mut *items, &Item { id, sequence, state }) {
                        failed = Some(not_json(id, &error));
                        return ControlFlow::Break(());
                    }
                    *count += 1;
                    full = *count >= *limit || items.len() >= *max_bytes;
                }
                if full || is_time() {
                    *last = Some(id.to_owned());
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            }),
            _ => runner.scan_keys(partition, &scan, |id, present| {
                *count += usize::from(present);
                if is_time() {
                    *last = Some(id.to_owned());
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            }),
        };
        let done = match scanned {
            _ if failed.is_some() => return failed,
            Err(error) => return Some(unanswered(error)),
            Ok(scanned) => scanned == Scanned::Done,
        };
        if !done && !full {
            return None;
        }
        Some(match &self.question.ask {
            Ask::Count { .. } => {
                Answer::Counted { count: *count as u64, position: runner.position(partition).map_or(0, |position| position.input) }
            }
            _ => Answer::Page { items: std::mem::take(items), count: *count, last: last.take().filter(|_| !done) },
        })
    }
}

/// What a question still lacks, if anything.
fn wants<L: Logic, B: Broker, S: StateStore, C: Clock>(runner: &Runner<L, B, S, C>, question: &Question) -> Option<Answer> {
    match runner.position(question.partition) {
        Err(error) => Some(unanswered(error)),
        Ok(position) if question.reflects.is_some_and(|offset| position.input <= offset) => {
            Some(Answer::Behind { position: position.input })
        }
        Ok(_) => None,
    }
}

/// What a standby answers, if one is kept here that follows, and the question may go to it.
fn of_standby<L: Logic, B: Broker, S: StateStore, C: Clock>(runner: &Runner<L, B, S, C>, question: &Question) -> Option<Answer> {
    let (Question { partition, stale: true, reflects: None, .. }, Ask::Get { id }) = (question, &question.ask) else { return None };
    // One that does not know how far it is behind has nothing to tell yet.
    let lag = runner.standbys().find(|(task, _)| task == partition)?.1?;
    let entry = match runner.standby_entry(id) {
        Ok((entry, _)) => entry,
        Err(RunnerError::NotHere { .. }) => return None,
        Err(error) => return Some(Answer::Failed(error.to_string())),
    };
    Some(match entry.as_ref().filter(|entry| entry.present).map(|entry| (entry.sequence, &entry.state)) {
        None => Answer::AbsentInStandby { lag },
        Some((sequence, state)) => {
            let shown = Shown { id, partition: *partition, position: None, lag_records: Some(lag), sequence, state };
            serde_json::to_vec(&shown).map_or_else(|e| not_json(id, &e), Answer::FoundInStandby)
        }
    })
}

fn unanswered(error: Unanswered) -> Answer {
    match error {
        Unanswered::NotHere { .. } => Answer::NotHere,
        Unanswered::NotReady { state, .. } => Answer::NotReady { state: format!("{state:?}").to_lowercase() },
        Unanswered::Failed(error) => Answer::Failed(error.to_string()),
    }
}

fn not_json(id: &str, error: &serde_json::Error) -> Answer {
    Answer::Failed(format!("the state of `{id}` cannot be shown as JSON: {error}. A map's keys must be text or numbers"))
}

/// One state as it is answered.
#[derive(Serialize)]
struct Shown<'a, S> {
    id: &'a str,
    partition: i32,
    /// Of the owner's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<i64>,
    /// Of a standby's: the records of the log that it has not folded yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_records: Option<u64>,
    sequence: u64,
    state: &'a S,
}

/// One state of a page.
#[derive(Serialize)]
struct Item<'a, S> {
    id: &'a str,
    sequence: u64,
    state: &'a S,
}
