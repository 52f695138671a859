//! What goes in: commands that one seed decides, and what must come of them by the bank's rules.

use clap::ValueEnum;
use es_core::partition::partition_of;
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Zipf};
use std::fmt;
use std::io::Write as _;

/// The length of a command's JSON, in bytes.
const VALUE_BYTES: usize = 107;
/// The largest amount.
const MOST: u16 = 1000;
/// Of ten commands so many are deposits.
const DEPOSITS: u32 = 7;
/// The exponent of the skewed workload: of YCSB and of the literature after it.
const SKEW: f64 = 0.99;

/// Which accounts the commands are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Skew {
    /// Each as often as any other.
    Uniform,
    /// By Zipf's law with exponent 0.99: few accounts get most of the commands.
    Zipf,
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Skew::Uniform => "uniform",
            Skew::Zipf => "zipf 0.99",
        })
    }
}

/// What to make up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// The number of accounts.
    pub accounts: u32,
    /// Whether each account gets one deposit before anything else, in the order of their numbers.
    pub opening: bool,
    /// The number of random commands, after the opening ones.
    pub commands: usize,
    /// Which accounts the random commands are for.
    pub skew: Skew,
    /// The same seed makes up the same commands.
    pub seed: u64,
    /// The number of partitions of the topics.
    pub partitions: i32,
}

/// One command and what must come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// Which account.
    pub account: u32,
    /// How much.
    pub amount: u16,
    /// A deposit or a withdrawal.
    pub deposit: bool,
    /// Whether it leaves an event, or else a rejection.
    pub accepted: bool,
}

/// The commands in the order in which they are sent.
pub struct Input {
    /// What it was made of.
    pub workload: Workload,
    /// The commands; those of one account are in one partition, so this order holds for it whatever the partitions' own order is.
    pub commands: Vec<Command>,
    /// The partition of each account.
    partitions: Vec<u16>,
}

/// The state of one account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// What is in it.
    pub amount: u64,
    /// The number of its events.
    pub sequence: u32,
}

impl Balance {
    /// Carries a command out by the bank's rules, if they allow it: a withdrawal over the balance is rejected.
    pub fn apply(&mut self, amount: u16, deposit: bool) -> bool {
        let after = if deposit { self.amount.checked_add(amount.into()) } else { self.amount.checked_sub(amount.into()) };
        if let Some(after) = after {
            *self = Balance { amount: after, sequence: self.sequence + 1 };
        }
        after.is_some()
    }
}

impl Input {
    /// Makes the commands up.
    pub fn generate(workload: Workload) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(workload.seed);
        let zipf = Zipf::new(f64::from(workload.accounts), SKEW).expect("there is an account, and the exponent is positive");
        let mut balances = vec![Balance::default(); workload.accounts as usize];
        let mut make = |account: u32, amount: u16, deposit: bool| {
            let accepted = balances[account as usize].apply(amount, deposit);
            Command { account, amount, deposit, accepted }
        };
        let opening = if workload.opening { workload.accounts } else { 0 };
        let mut commands = Vec::with_capacity(opening as usize + workload.commands);
        for account in 0..opening {
            commands.push(make(account, random.random_range(1..=MOST), true));
        }
        for _ in 0..workload.commands {
            let account = match workload.skew {
                Skew::Uniform => random.random_range(0..workload.accounts),
                // Ranks are from 1.
                Skew::Zipf => zipf.sample(&mut random) as u32 - 1,
            };
            commands.push(make(account, random.random_range(1..=MOST), random.random_range(0..10) < DEPOSITS));
        }
        let partition = |account: u32| partition_of(&key(account), workload.partitions) as u16;
        Input { workload, commands, partitions: (0..workload.accounts).map(partition).collect() }
    }

    /// The partition of a command.
    pub fn partition(&self, command: &Command) -> i32 {
        self.partitions[command.account as usize].into()
    }

    /// The state of every account after the first `commands` commands.
    pub fn balances(&self, commands: usize) -> Vec<Balance> {
        let mut balances = vec![Balance::default(); self.workload.accounts as usize];
        for command in &self.commands[..commands] {
            balances[command.account as usize].apply(command.amount, command.deposit);
        }
        balances
    }
}

/// The key of an account's records: 16 bytes.
pub fn key(account: u32) -> [u8; 16] {
    let mut key = *b"acct-00000000000";
    write!(&mut key[5..], "{account:011}").expect("it fits");
    key
}

/// The account of a key; `None` if it is none of ours.
pub fn account_of(key: &[u8]) -> Option<u32> {
    let digits = key.strip_prefix(b"acct-").filter(|digits| digits.len() == 11)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

impl Command {
    /// Its JSON, as any producer would write it: without headers, 107 bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        let name = if self.deposit { "Deposit" } else { "Withdraw" };
        write!(out, r#"{{"type":"{name}","amount":{},"memo":""#, self.amount).expect("a vector takes all");
        out.resize(VALUE_BYTES - 2, b'.');
        out.extend_from_slice(b"\"}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(skew: Skew) -> Workload {
        Workload { accounts: 1000, opening: false, commands: 20_000, skew, seed: 7, partitions: 4 }
    }

    #[test]
    fn the_same_seed_makes_up_the_same_commands() {
        for skew in [Skew::Uniform, Skew::Zipf] {
            assert_eq!(Input::generate(workload(skew)).commands, Input::generate(workload(skew)).commands);
        }
        assert_ne!(Input::generate(workload(Skew::Zipf)).commands, Input::generate(workload(Skew::Uniform)).commands);
    }

    #[test]
    fn seven_of_ten_are_deposits_and_some_withdrawals_are_rejected() {
        for skew in [Skew::Uniform, Skew::Zipf] {
            let commands = Input::generate(workload(skew)).commands;
            let deposits = commands.iter().filter(|c| c.deposit).count();
            assert!((13_700..14_300).contains(&deposits), "{deposits}");
            assert!(commands.iter().any(|c| !c.accepted) && commands.iter().all(|c| c.accepted || !c.deposit));
        }
    }

    #[test]
    fn zipf_gives_the_first_account_the_most_and_uniform_none() {
        let of_the_first = |skew| Input::generate(workload(skew)).commands.iter().filter(|c| c.account == 0).count();
        let (zipf, uniform) = (of_the_first(Skew::Zipf), of_the_first(Skew::Uniform));
        assert!((2000..3500).contains(&zipf) && uniform < 60, "{zipf} {uniform}");
    }

    #[test]
    fn keys_and_values_have_the_lengths_that_were_promised_and_come_back() {
        assert_eq!((key(42).as_slice(), account_of(&key(42))), (b"acct-00000000042".as_slice(), Some(42)));
        assert_eq!(account_of(b"acct-1"), None);
        let mut value = Vec::new();
        for (amount, deposit) in [(1, true), (1000, false)] {
            Command { account: 0, amount, deposit, accepted: true }.write(&mut value);
            assert_eq!(value.len(), VALUE_BYTES);
            let json: serde_json::Value = serde_json::from_slice(&value).unwrap();
            assert_eq!(
                (json["amount"].as_u64(), json["type"].as_str()),
                (Some(amount.into()), Some(if deposit { "Deposit" } else { "Withdraw" }))
            );
        }
    }

    #[test]
    fn the_opening_deposits_come_first_and_are_accepted() {
        let input = Input::generate(Workload { opening: true, ..workload(Skew::Zipf) });
        assert!(input.commands[..1000].iter().enumerate().all(|(n, c)| c.account == n as u32 && c.deposit && c.accepted));
        assert_eq!(input.commands.len(), 21_000);
        let events: u32 = input.balances(21_000).iter().map(|b| b.sequence).sum();
        assert_eq!(events as usize, input.commands.iter().filter(|c| c.accepted).count());
    }
}
