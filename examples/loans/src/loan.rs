//! A loan application: its stages, its offers, and the work that people do on it.
//!
//! The rules were measured on the log (DOI 10.4121/uuid:3926db30-f712-4394-aebc-75976070e91f): they are as strict as its 262,200 entries allow.
//!
//! | rule | refusal |
//! |---|---|
//! | An entry is taken once; a repeated one is nothing to do. | – |
//! | No entry is left out. | [`Refusal::Gap`] |
//! | Time never goes back within an application. | [`Refusal::BackInTime`] |
//! | An application is submitted first, and once. | [`Refusal::NotSubmitted`], [`Refusal::AlreadySubmitted`] |
//! | Stages follow one another as [`Stage::may_become`] says, each at most once. | [`Refusal::Stage`] |
//! | The three parts of granting (approved, registered, activated) come in any order. | [`Refusal::Stage`] |
//! | Offers are made, sent and answered as [`Offers::may`] says: at most one in preparation and one with the customer. | [`Refusal::Offer`] |
//! | Offers are made while the application is accepted or finalized, and closed with it. | [`Refusal::OfferAtStage`] |
//! | Work is planned only in the stages that need it ([`Work::may_be_planned`]). | [`Refusal::WorkAtStage`] |
//! | Work starts only when it was planned, in no more places at once than it was planned, and never on a declined application. | [`Refusal::NotPlanned`], [`Refusal::AllRunning`], [`Refusal::WorkAtStage`] |
//! | Work completes only when it was planned; what was not started is withdrawn. | [`Refusal::NotPlanned`] |

mod offers;
mod stage;
mod work;

#[cfg(test)]
mod tests;

pub use offers::{OfferStep, Offers, Preparing, WithCustomer};
pub use stage::Stage;
pub use work::{Items, Work};

use es_kafka::{Aggregate, Command, Context, Decide, Decision, Fold, Millis, emit, event, nothing, reject};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the log says of each of its entries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place among the entries of its application, from 0.
    pub index: u64,
    /// When it happened, by the log's own clock: milliseconds since the Unix epoch.
    pub at: Millis,
    /// Who did it, where the log knows.
    pub by: Option<String>,
}

/// What has happened to an application: one event per entry of the log.
#[event(aggregate = "loan")]
#[derive(Clone, Debug, PartialEq)]
pub enum LoanEvent {
    /// It came in.
    Submitted {
        /// The entry of the log.
        entry: Entry,
        /// The amount that is asked for, in euros.
        amount: u64,
    },
    /// It reached another stage.
    Advanced {
        /// The entry of the log.
        entry: Entry,
        /// Which stage.
        to: Stage,
    },
    /// An offer went a step further.
    OfferMoved {
        /// The entry of the log.
        entry: Entry,
        /// Which step.
        to: OfferStep,
    },
    /// Work was planned.
    WorkPlanned {
        /// The entry of the log.
        entry: Entry,
        /// Which work.
        work: Work,
    },
    /// Somebody started to work.
    WorkStarted {
        /// The entry of the log.
        entry: Entry,
        /// Which work.
        work: Work,
    },
    /// Work was completed, for now or for good.
    WorkCompleted {
        /// The entry of the log.
        entry: Entry,
        /// Which work.
        work: Work,
    },
}

/// What can be asked of an application: to take an entry of the log.
#[derive(Command, Clone, Debug, PartialEq)]
pub enum LoanCommand {
    /// Submit it.
    Submit {
        /// The entry of the log.
        entry: Entry,
        /// The amount that is asked for, in euros.
        amount: u64,
    },
    /// Move it to another stage.
    Advance {
        /// The entry of the log.
        entry: Entry,
        /// Which stage.
        to: Stage,
    },
    /// Move an offer a step further.
    MoveOffer {
        /// The entry of the log.
        entry: Entry,
        /// Which step.
        to: OfferStep,
    },
    /// Plan work.
    Plan {
        /// The entry of the log.
        entry: Entry,
        /// Which work.
        work: Work,
    },
    /// Start to work.
    Start {
        /// The entry of the log.
        entry: Entry,
        /// Which work.
        work: Work,
    },
    /// Complete work.
    Complete {
        /// The entry of the log.
        entry: Entry,
        /// Which work.
        work: Work,
    },
}

impl LoanCommand {
    /// The entry of the log that is to be taken.
    pub fn entry(&self) -> &Entry {
        match self {
            LoanCommand::Submit { entry, .. }
            | LoanCommand::Advance { entry, .. }
            | LoanCommand::MoveOffer { entry, .. }
            | LoanCommand::Plan { entry, .. }
            | LoanCommand::Start { entry, .. }
            | LoanCommand::Complete { entry, .. } => entry,
        }
    }
}

/// Why an application refuses an entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Refusal {
    /// Entries before it are missing.
    Gap {
        /// The index of the entry that comes next.
        expected: u64,
    },
    /// It happened before the last one.
    BackInTime {
        /// When the last one happened.
        last: Millis,
    },
    /// Nothing was submitted yet.
    NotSubmitted,
    /// It was submitted before.
    AlreadySubmitted,
    /// This stage does not follow on that one.
    Stage {
        /// Where the application is.
        from: Stage,
        /// Where it cannot go, or has been.
        to: Stage,
    },
    /// The offers do not stand so that this step can follow.
    Offer {
        /// The step that is not possible.
        to: OfferStep,
        /// How the offers stand.
        offers: Offers,
    },
    /// The step of an offer is not possible in this stage.
    OfferAtStage {
        /// The step that is not possible.
        to: OfferStep,
        /// Where the application is.
        stage: Stage,
    },
    /// This work is neither planned nor started in this stage.
    WorkAtStage {
        /// Which work.
        work: Work,
        /// Where the application is.
        stage: Stage,
    },
    /// This work was never planned.
    NotPlanned {
        /// Which work.
        work: Work,
    },
    /// This work is under way as often as it was planned.
    AllRunning {
        /// Which work.
        work: Work,
    },
}

/// A loan application.
#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = LoanEvent, version = 1)]
pub struct Loan {
    /// How many entries of the log it has taken.
    #[fold(Submitted => count, Advanced => count)]
    pub entries: u64,
    /// When the last of them happened.
    #[fold(Submitted => set(entry.at), Advanced => set(entry.at))]
    pub last: Millis,
    /// The amount that is asked for, in euros.
    #[fold(Submitted => set(amount))]
    pub amount: u64,
    /// The stages that it reached, and when.
    #[fold(Submitted => push((Stage::Submitted, entry.at)), Advanced => push((to, entry.at)))]
    pub path: Vec<(Stage, Millis)>,
    /// Its offers.
    pub offers: Offers,
    /// The work items, by kind of work.
    pub work: BTreeMap<Work, Items>,
}

impl Loan {
    /// Where it is; `None` before it was submitted.
    pub fn stage(&self) -> Option<Stage> {
        self.path.last().map(|(stage, _)| *stage)
    }

    /// The milliseconds that it spent in each stage, in the order in which it reached them; in the last one until the last entry.
    pub fn time_in_stages(&self) -> impl Iterator<Item = (Stage, Millis)> {
        let left = self.path.iter().skip(1).map(|(_, at)| *at).chain([self.last]);
        self.path.iter().zip(left).map(|((stage, reached), left)| (*stage, left - reached))
    }

    /// The number of work items that are planned or under way.
    pub fn open_work(&self) -> u64 {
        self.work.values().map(|items| u64::from(items.waiting) + u64::from(items.running)).sum()
    }

    fn has_reached(&self, stage: Stage) -> bool {
        self.path.iter().any(|(reached, _)| *reached == stage)
    }

    fn planned(&self, work: Work) -> Result<&Items, Refusal> {
        self.work.get(&work).ok_or(Refusal::NotPlanned { work })
    }

    fn took(&mut self, entry: &Entry) {
        self.entries += 1;
        self.last = entry.at;
    }
}

impl Fold<OfferMoved> for Loan {
    fn fold(&mut self, OfferMoved { entry, to }: OfferMoved) {
        self.took(&entry);
        self.offers.moved(to);
    }
}

impl Fold<WorkPlanned> for Loan {
    fn fold(&mut self, WorkPlanned { entry, work }: WorkPlanned) {
        self.took(&entry);
        self.work.entry(work).or_default().planned();
    }
}

impl Fold<WorkStarted> for Loan {
    fn fold(&mut self, WorkStarted { entry, work }: WorkStarted) {
        self.took(&entry);
        self.work.entry(work).or_default().started();
    }
}

impl Fold<WorkCompleted> for Loan {
    fn fold(&mut self, WorkCompleted { entry, work }: WorkCompleted) {
        self.took(&entry);
        self.work.entry(work).or_default().completed();
    }
}

impl Decide for Loan {
    type Command = LoanCommand;
    type Rejection = Refusal;

    fn decide(&self, command: &LoanCommand, _: &Context<'_>) -> Decision<Self> {
        let Entry { index, at, .. } = *command.entry();
        if index < self.entries {
            return nothing();
        }
        if index > self.entries {
            return reject(Refusal::Gap { expected: self.entries });
        }
        if self.entries > 0 && at < self.last {
            return reject(Refusal::BackInTime { last: self.last });
        }
        match (command.clone(), self.stage()) {
            (LoanCommand::Submit { entry, amount }, None) => emit(Submitted { entry, amount }),
            (LoanCommand::Submit { .. }, Some(_)) => reject(Refusal::AlreadySubmitted),
            (_, None) => reject(Refusal::NotSubmitted),
            (LoanCommand::Advance { entry, to }, Some(stage)) => {
                if self.has_reached(to) || !stage.may_become(to) {
                    return reject(Refusal::Stage { from: stage, to });
                }
                emit(Advanced { entry, to })
            }
            (LoanCommand::MoveOffer { entry, to }, Some(stage)) => {
                if !to.may_happen_at(stage) {
                    return reject(Refusal::OfferAtStage { to, stage });
                }
                if !self.offers.may(to) {
                    return reject(Refusal::Offer { to, offers: self.offers.clone() });
                }
                emit(OfferMoved { entry, to })
            }
            (LoanCommand::Plan { entry, work }, Some(stage)) => {
                if !work.may_be_planned(stage) {
                    return reject(Refusal::WorkAtStage { work, stage });
                }
                emit(WorkPlanned { entry, work })
            }
            (LoanCommand::Start { entry, work }, Some(stage)) => {
                if stage == Stage::Declined {
                    return reject(Refusal::WorkAtStage { work, stage });
                }
                if self.planned(work)?.all_running() {
                    return reject(Refusal::AllRunning { work });
                }
                emit(WorkStarted { entry, work })
            }
            (LoanCommand::Complete { entry, work }, Some(_)) => {
                self.planned(work)?;
                emit(WorkCompleted { entry, work })
            }
        }
    }
}
