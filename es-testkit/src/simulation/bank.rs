//! What is simulated: accounts, and those who send commands to them, well-behaved or not.

use super::random::Random;
use crate::broker::Cluster;
use es_core::envelope::header;
use es_core::partition::partition_of;
use es_core::{Aggregate, Command, Context, Decide, Decision, Draft, emit, event, nothing, reject};
use serde::{Deserialize, Serialize};

/// What happens to an account.
#[event(aggregate = "account")]
#[derive(Clone, Debug, PartialEq)]
pub enum AccountEvent {
    /// Money came.
    Deposited {
        /// How much.
        amount: u64,
    },
    /// Money went.
    Withdrawn {
        /// How much.
        amount: u64,
    },
}

/// What an account can be asked.
#[derive(Command, Clone, Debug, PartialEq)]
pub enum AccountCommand {
    /// Put money in.
    Deposit {
        /// How much.
        amount: u64,
    },
    /// Take money out.
    Withdraw {
        /// How much.
        amount: u64,
    },
    /// Put money in, and take a fee of the same decision; three events.
    Salary {
        /// How much.
        amount: u64,
        /// How much of it goes at once, in two parts.
        fee: u64,
    },
    /// Nothing.
    Touch,
}

/// An account.
#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, version = 1)]
pub struct Account {
    /// What lies on it.
    #[fold(Deposited => add(amount), Withdrawn => sub(amount))]
    pub balance: u64,
    /// How often something came or went.
    #[fold(Deposited => count, Withdrawn => count)]
    pub movements: u64,
}

/// There is too little on the account.
#[derive(Debug, PartialEq, Serialize)]
pub struct Overdrawn {
    /// What is missing.
    pub missing: u64,
}

impl Decide for Account {
    type Command = AccountCommand;
    type Rejection = Overdrawn;

    fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Decision<Self> {
        match *command {
            AccountCommand::Deposit { amount } => emit(Deposited { amount }),
            AccountCommand::Withdraw { amount } if amount > self.balance => reject(Overdrawn { missing: amount - self.balance }),
            AccountCommand::Withdraw { amount } => emit(Withdrawn { amount }),
            AccountCommand::Salary { amount, fee } => {
                let mut draft = Draft::of(self);
                draft.emit(Deposited { amount }).emit(Withdrawn { amount: fee }).emit(Withdrawn { amount: fee });
                draft.done()
            }
            AccountCommand::Touch => nothing(),
        }
    }
}

/// Sends commands.
#[derive(Debug)]
pub(super) struct Senders {
    random: Random,
    accounts: u64,
    sent: Vec<Sent>,
    ids: u64,
}

#[derive(Debug, Clone)]
struct Sent {
    key: String,
    id: String,
    name: &'static str,
    value: Vec<u8>,
}

impl Senders {
    pub(super) fn new(mut random: Random) -> Self {
        let accounts = random.between(2, 14);
        Senders { random, accounts, sent: Vec::new(), ids: 0 }
    }

    /// The keys that commands may have, wherever they lie.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.accounts).map(|n| format!("acct-{n}"))
    }

    pub(super) fn any_key(&mut self) -> String {
        format!("acct-{}", self.random.below(self.accounts))
    }

    /// Sends one command, and tells of it.
    pub(super) fn send(&mut self, cluster: &Cluster, topic: &str) -> String {
        let key = self.any_key();
        match self.random.below(100) {
            0..7 if !self.sent.is_empty() => {
                let again = self.random.pick(&self.sent);
                self.write(cluster, topic, &again, "again")
            }
            7..10 if !self.sent.is_empty() => {
                let mut other = self.random.pick(&self.sent);
                other.value = br#"{"amount":7}"#.to_vec();
                other.name = "Deposit";
                self.write(cluster, topic, &other, "conflict")
            }
            10..14 => self.poison(cluster, topic, &key),
            14..16 => {
                let partitions = cluster.topic(topic).expect("the topic exists").partitions;
                let wrong = (partition_of(key.as_bytes(), partitions) + 1) % partitions;
                let offset = put(cluster, topic, wrong, Some(&key), &[(header::TYPE, b"Deposit")], Some(br#"{"amount":5}"#));
                format!("a deposit for {key} in the wrong partition {wrong}, offset {offset}")
            }
            _ => {
                let command = self.command();
                let mut value = Vec::new();
                command.encode(&mut value).expect("a command can be written");
                self.ids += 1;
                let one = Sent { key, id: format!("c{}", self.ids), name: command.name(), value };
                if self.random.chance(800) {
                    self.sent.push(one.clone());
                    return self.write(cluster, topic, &one, "a command");
                }
                let (partition, offset) =
                    cluster.produce(topic, &one.key, &[(header::TYPE, one.name.as_bytes())], &one.value).expect("the topic exists");
                format!("a command without an id: {} for {} at {partition}/{offset}", one.name, one.key)
            }
        }
    }

    fn command(&mut self) -> AccountCommand {
        let amount = self.random.between(1, 50);
        match self.random.below(20) {
            0..9 => AccountCommand::Deposit { amount },
            9..14 => AccountCommand::Withdraw { amount },
            14..17 => AccountCommand::Salary { amount, fee: self.random.below(amount / 2 + 1) },
            17..19 => AccountCommand::Touch,
            // More than half of all there is: the second one overflows on the same account.
            _ => AccountCommand::Deposit { amount: u64::MAX / 2 + 1 },
        }
    }

    fn poison(&mut self, cluster: &Cluster, topic: &str, key: &str) -> String {
        let partitions = cluster.topic(topic).expect("the topic exists").partitions;
        let own = partition_of(key.as_bytes(), partitions);
        let (what, offset) = match self.random.below(5) {
            0 => ("no JSON", put(cluster, topic, own, Some(key), &[(header::TYPE, b"Deposit")], Some(b"{"))),
            1 => ("an unknown type", put(cluster, topic, own, Some(key), &[(header::TYPE, b"Rob")], Some(b"{}"))),
            2 => ("a tombstone", put(cluster, topic, own, Some(key), &[(header::TYPE, b"Deposit")], None)),
            3 => ("no key", put(cluster, topic, own, None, &[(header::TYPE, b"Touch")], Some(b"{}"))),
            _ => ("a torn header", put(cluster, topic, own, Some(key), &[(header::TYPE, b"\xff")], Some(b"{}"))),
        };
        format!("poison at {own}/{offset}: {what}")
    }

    fn write(&self, cluster: &Cluster, topic: &str, one: &Sent, what: &str) -> String {
        let headers = [(header::TYPE, one.name.as_bytes()), (header::ID, one.id.as_bytes())];
        let (partition, offset) = cluster.produce(topic, &one.key, &headers, &one.value).expect("the topic exists");
        format!("{what}: {} {} {} for {} at {partition}/{offset}", one.id, one.name, String::from_utf8_lossy(&one.value), one.key)
    }
}

fn put(cluster: &Cluster, topic: &str, partition: i32, key: Option<&str>, headers: &[(&str, &[u8])], value: Option<&[u8]>) -> i64 {
    cluster.produce_to(topic, partition, key.map(str::as_bytes), headers, value).expect("the topic exists")
}
