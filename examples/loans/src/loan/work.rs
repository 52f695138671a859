//! The work that people do on an application.

use super::Stage;
use serde::{Deserialize, Serialize};

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Work {
    /// Following up leads.
    Leads,
    /// Completing the application.
    Completion,
    /// Calling about offers that were sent.
    OfferCalls,
    /// Assessing the application.
    Validation,
    /// Calling about missing papers.
    MissingPapers,
    /// Investigating fraud.
    Fraud,
    /// Changing the contract.
    ContractChange,
}

impl Work {
    /// Whether it can be planned while the application is in this stage.
    pub fn may_be_planned(self, stage: Stage) -> bool {
        match self {
            Work::Leads => stage == Stage::PartlySubmitted,
            Work::Completion => matches!(stage, Stage::PartlySubmitted | Stage::PreAccepted),
            Work::OfferCalls | Work::Validation | Work::MissingPapers => stage == Stage::Finalized,
            Work::Fraud => matches!(stage, Stage::PartlySubmitted | Stage::PreAccepted | Stage::Finalized),
            Work::ContractChange => stage == Stage::Finalized || stage.is_granted(),
        }
    }
}

/// The items of one kind of work. An item is planned, started and completed; a completed one can be started again, by the next shift, say.
#[derive(Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Items {
    /// How many were planned in all.
    pub planned: u32,
    /// How many of them wait for somebody.
    pub waiting: u32,
    /// How many are being worked on.
    pub running: u32,
}

impl Items {
    /// Whether there is no item left to start, be it a waiting or a completed one.
    pub fn all_running(&self) -> bool {
        self.running >= self.planned
    }

    pub(super) fn planned(&mut self) {
        self.planned += 1;
        self.waiting += 1;
    }

    pub(super) fn started(&mut self) {
        if self.waiting > 0 {
            self.waiting -= 1;
        }
        self.running += 1;
    }

    /// Completes one that is under way, or else withdraws one that waits. Where neither is there, a completed one was completed once more.
    pub(super) fn completed(&mut self) {
        if self.running > 0 {
            self.running -= 1;
        } else if self.waiting > 0 {
            self.waiting -= 1;
        }
    }
}
