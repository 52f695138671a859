//! What one process without faults makes of a partition's commands, one after another.

use es_core::codec::{Codec, Json};
use es_core::dead_letter::Cause;
use es_core::envelope::{Headers, Outcome, key as key_of};
use es_core::event::Event as _;
use es_core::partition::partition_of;
use es_core::record::RecordRef;
use es_core::task::entry::{command_digest, id_digest};
use es_core::task::layout;
use es_core::{Command as _, Context, Decide, Millis};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The rules that a [`Shadow`] goes by.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// The id of the commands topic, as text.
    pub(super) topic: String,
    pub(super) partitions: i32,
    pub(super) memory: Millis,
    pub(super) max_command_bytes: usize,
}

/// What must come of a command.
#[derive(Debug)]
pub(super) enum Came {
    /// Nothing: it repeats an earlier one.
    Repeated,
    /// A dead letter.
    Letter(Cause),
    /// An outcome that is no event.
    Outcome { account: u32, trace: Written },
    /// Events, and a digest of the state after each.
    Events { account: u32, traces: Vec<(Written, u32)> },
}

/// A record that must be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) name: &'static str,
    /// 0: it is no event.
    pub(super) sequence: u64,
    /// A digest of the cause's id and the value.
    pub(super) digest: u64,
}

/// An aggregate.
#[derive(Debug)]
pub(super) struct Account<A> {
    pub(super) id: String,
    pub(super) state: A,
    pub(super) sequence: u64,
}

/// One partition's aggregates.
#[derive(Debug)]
pub(super) struct Shadow<A> {
    partition: i32,
    pub(super) accounts: Vec<Account<A>>,
    by_id: HashMap<String, u32>,
    /// The digest and the time of the command that had this id first.
    ids: HashMap<(u32, [u8; 16]), (u64, Millis)>,
    stream_time: Millis,
}

impl<A: Decide> Shadow<A> {
    pub(super) fn new(partition: i32) -> Self {
        Shadow { partition, accounts: Vec::new(), by_id: HashMap::new(), ids: HashMap::new(), stream_time: Millis::MIN }
    }

    pub(super) fn find(&self, id: &str) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    /// Processes a command.
    pub(super) fn process(&mut self, input: &RecordRef<'_>, rules: &Rules) -> Came {
        self.decide(input, rules).unwrap_or_else(Came::Letter)
    }

    /// Forgets the ids that can no longer be known again.
    pub(super) fn forget(&mut self, rules: &Rules) {
        let horizon = self.stream_time.saturating_sub(rules.memory);
        self.ids.retain(|_, (_, time)| *time >= horizon);
    }

    fn decide(&mut self, input: &RecordRef<'_>, rules: &Rules) -> Result<Came, Cause> {
        if input.byte_len() > rules.max_command_bytes {
            return Err(Cause::Oversized);
        }
        let id = key_of(input).map_err(|_| Cause::Key)?;
        if id.is_empty() || id.len() > layout::MAX_ID_BYTES || id.parse::<A::Id>().is_err() {
            return Err(Cause::Key);
        }
        if partition_of(id.as_bytes(), rules.partitions) != self.partition {
            return Err(Cause::Partition);
        }
        let headers = Headers::read(input).map_err(|_| Cause::Undecodable)?;
        let value = input.value.ok_or(Cause::Undecodable)?;
        let digest = command_digest(headers.name, value);
        let horizon = self.stream_time.saturating_sub(rules.memory);
        let known = self.find(id).zip(headers.id).and_then(|(account, own)| self.ids.get(&(account, id_digest(own))));
        let known = known.filter(|(_, time)| *time >= horizon).map(|(digest, _)| *digest);
        if known == Some(digest) {
            return Ok(Came::Repeated);
        }
        let generated = || format!("{}-{}-{}", rules.topic, self.partition, input.offset);
        let cause = headers.id.map_or_else(generated, str::to_owned);
        let outcome = |outcome: &Outcome<A::Rejection>| {
            let mut value = Vec::new();
            Json::encode(outcome, &mut value).map_err(|_| Cause::Unwritable)?;
            Ok(Written { name: outcome.name(), sequence: 0, digest: digest_of(&cause, &value) })
        };
        if known.is_some() {
            self.stream_time = self.stream_time.max(input.timestamp);
            let account = self.find(id).expect("it has ids");
            return Ok(Came::Outcome { account, trace: outcome(&Outcome::Conflict)? });
        }
        let account = self.find(id).map(|account| &self.accounts[account as usize]);
        let (state, sequence) = account.map_or_else(|| (A::default(), 0), |a| (a.state.clone(), a.sequence));
        let command = catch_unwind(|| match headers.name {
            Some(name) => A::Command::decode(name, value),
            None => A::Command::decode_tagged(value),
        });
        let command = command.map_err(|_| Cause::Panicked)?.map_err(|_| Cause::Undecodable)?;
        if command.key().is_some_and(|named| *named != *id) {
            return Err(Cause::Key);
        }
        let context = Context { aggregate_id: id, command_id: &cause, time: input.timestamp, sequence };
        let decision = catch_unwind(AssertUnwindSafe(|| state.decide(&command, &context))).map_err(|_| Cause::Panicked)?;
        let (events, reason) = match decision {
            Ok(events) => (events.into_vec(), None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        let mut traces = Vec::with_capacity(events.len());
        let mut next = Account { id: id.to_owned(), state, sequence };
        for event in events {
            let mut value = Vec::new();
            event.encode(&mut value).map_err(|_| Cause::Unwritable)?;
            next.sequence += 1;
            let written = Written { name: event.event_type().name, sequence: next.sequence, digest: digest_of(&cause, &value) };
            catch_unwind(AssertUnwindSafe(|| next.state.apply(event))).map_err(|_| Cause::Panicked)?;
            traces.push((written, state_digest(&next.state)));
        }
        let outcome = match (traces.is_empty(), reason) {
            (false, _) => None,
            (true, None) => Some(outcome(&Outcome::Nothing)?),
            (true, Some(reason)) => Some(outcome(&Outcome::Rejected { reason })?),
        };
        // Nothing fails from here on.
        let account = self.put(next);
        if let Some(own) = headers.id {
            self.ids.insert((account, id_digest(own)), (digest, input.timestamp));
        }
        self.stream_time = self.stream_time.max(input.timestamp);
        Ok(match outcome {
            Some(trace) => Came::Outcome { account, trace },
            None => Came::Events { account, traces },
        })
    }

    fn put(&mut self, account: Account<A>) -> u32 {
        let number = self.find(&account.id).unwrap_or_else(|| {
            let number = u32::try_from(self.accounts.len()).expect("memory ends before numbers do");
            self.by_id.insert(account.id.clone(), number);
            number
        });
        match self.accounts.get_mut(number as usize) {
            Some(known) => *known = account,
            None => self.accounts.push(account),
        }
        number
    }
}

/// A digest of what a record says. Good within this process alone.
pub(super) fn digest_of(cause: &str, value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_usize(cause.len());
    hasher.write(cause.as_bytes());
    hasher.write(value);
    hasher.finish()
}

/// A digest of a state, by its bytes, as it need not implement `PartialEq`. Good within this process alone.
pub(super) fn state_digest<A: Decide>(state: &A) -> u32 {
    let mut bytes = Vec::new();
    layout::write(state, &mut bytes).expect("a state can be written");
    digest_of("", &bytes) as u32
}
