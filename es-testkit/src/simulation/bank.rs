//! The bank that is simulated: accounts, transfers between them, and a table of all that moves.

use super::random::Random;
use super::subject::{Order, Subject, Witness};
use es_core::{Aggregate, Command, Context, Decide, Decision, Draft, Fold, emit, event, nothing, reject};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

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

/// All that has moved on an account, in its order: a table over the same events.
#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, version = 1, name = "journal")]
pub struct Journal {
    /// How often something moved.
    pub movements: u64,
    /// Of all amounts in their order, so that a table that has one twice, or two in another order, is another one.
    pub digest: u64,
}

impl Journal {
    fn enter(&mut self, amount: u64) {
        self.movements += 1;
        self.digest = (self.digest ^ amount).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
    }
}

impl Fold<Deposited> for Journal {
    fn fold(&mut self, Deposited { amount }: Deposited) {
        self.enter(amount);
    }
}

impl Fold<Withdrawn> for Journal {
    fn fold(&mut self, Withdrawn { amount }: Withdrawn) {
        self.enter(!amount);
    }
}

/// The bank's part of a simulation: what its customers want, its clerk who carries transfers out, and its auditor.
pub(super) fn subject(random: &mut Random) -> Subject<Account> {
    let accounts = random.between(2, 14);
    let keys: Vec<String> = (0..accounts).map(|n| format!("acct-{n}")).collect();
    let clerk = Rc::new(RefCell::new(Clerk::default()));
    let (customers, all) = (Rc::clone(&clerk), keys.clone());
    let orders = move |random: &mut Random| {
        if random.chance(60) {
            return customers.borrow_mut().transfer(random, &all);
        }
        Order::new(command(random))
    };
    Subject { keys, orders: Box::new(orders), witness: Box::new(Auditor { balances: BTreeMap::new(), clerk }) }
}

fn command(random: &mut Random) -> AccountCommand {
    let amount = random.between(1, 50);
    match random.below(60) {
        0..27 => AccountCommand::Deposit { amount },
        27..42 => AccountCommand::Withdraw { amount },
        42..51 => AccountCommand::Salary { amount, fee: random.below(amount / 2 + 1) },
        51..58 => AccountCommand::Touch,
        // More than half of all there is, and than all that is drawn meanwhile: the second one overflows on the same account, and nothing else does.
        _ => AccountCommand::Deposit { amount: u64::MAX / 2 + (1 << 20) },
    }
}

/// Moves money from one account to another: when the withdrawal has become an event, the deposit is sent, under an id of its own.
#[derive(Default)]
struct Clerk {
    transfers: Vec<Transfer>,
    due: VecDeque<Order<AccountCommand>>,
}

struct Transfer {
    to: String,
    withdrawn: Vec<u64>,
    deposited: Vec<u64>,
}

impl Clerk {
    fn transfer(&mut self, random: &mut Random, accounts: &[String]) -> Order<AccountCommand> {
        let (from, to) = (random.pick(accounts), random.pick(accounts));
        let number = self.transfers.len();
        self.transfers.push(Transfer { to, withdrawn: Vec::new(), deposited: Vec::new() });
        let command = AccountCommand::Withdraw { amount: random.between(1, 50) };
        Order { key: Some(from), id: Some(format!("transfer-{number}-out")), command }
    }

    fn saw(&mut self, cause: &str, event: &AccountEvent) {
        let Some((number, side)) = cause.strip_prefix("transfer-").and_then(|rest| rest.split_once('-')) else { return };
        let Some(transfer) = number.parse().ok().and_then(|n: usize| self.transfers.get_mut(n)) else { return };
        match (side, event) {
            ("out", AccountEvent::Withdrawn { amount }) => {
                transfer.withdrawn.push(*amount);
                let command = AccountCommand::Deposit { amount: *amount };
                self.due.push_back(Order { key: Some(transfer.to.clone()), id: Some(format!("transfer-{number}-in")), command });
            }
            ("in", AccountEvent::Deposited { amount }) => transfer.deposited.push(*amount),
            // Somebody else has used the id, for another command.
            _ => {}
        }
    }
}

struct Auditor {
    balances: BTreeMap<String, i128>,
    clerk: Rc<RefCell<Clerk>>,
}

impl Witness<Account> for Auditor {
    fn saw(&mut self, key: &str, cause: &str, event: &AccountEvent) -> Result<(), String> {
        if !self.balances.contains_key(key) {
            self.balances.insert(key.to_owned(), 0);
        }
        let balance = self.balances.get_mut(key).expect("it was just made sure of");
        *balance += match *event {
            AccountEvent::Deposited { amount } => i128::from(amount),
            AccountEvent::Withdrawn { amount } => -i128::from(amount),
        };
        self.clerk.borrow_mut().saw(cause, event);
        if *balance < 0 { Err(format!("the balance of `{key}` is {balance}")) } else { Ok(()) }
    }

    fn next_order(&mut self) -> Option<Order<AccountCommand>> {
        self.clerk.borrow_mut().due.pop_front()
    }

    fn at_rest(&self, states: &BTreeMap<String, Option<Account>>, forgets: bool) -> Result<(), String> {
        for (id, account) in states {
            let known = self.balances.get(id).copied().unwrap_or(0);
            let state = account.as_ref().map_or(0, |a| i128::from(a.balance));
            if known != state {
                return Err(format!("`{id}` has {state}, and deposits − withdrawals are {known}"));
            }
        }
        for (number, transfer) in self.clerk.borrow().transfers.iter().enumerate().filter(|_| !forgets) {
            if transfer.withdrawn.len() > 1 || transfer.withdrawn != transfer.deposited {
                return Err(format!("of transfer {number}, {:?} was withdrawn and {:?} deposited", transfer.withdrawn, transfer.deposited));
            }
        }
        Ok(())
    }
}
