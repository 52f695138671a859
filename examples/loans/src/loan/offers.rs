//! The offers of an application. The log does not say which offer an entry is about; it need not, since they take turns.

use super::Stage;
use serde::{Deserialize, Serialize};

/// A step in the life of an offer.
///
/// ```text
/// Selected ─► Created ─► Sent ─► SentBack ─► Accepted, Declined or Cancelled
///                          └───────────────► Accepted, Declined or Cancelled
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OfferStep {
    /// The customer was chosen for an offer.
    Selected,
    /// It was written.
    Created,
    /// It was sent to the customer.
    Sent,
    /// The customer has answered.
    SentBack,
    /// It was accepted.
    Accepted,
    /// It was declined.
    Declined,
    /// It was cancelled: by the customer, or because another takes its place.
    Cancelled,
}

impl OfferStep {
    /// Whether it can happen while the application is in this stage: offers are chosen from acceptance on, and closed with the application.
    pub fn may_happen_at(self, stage: Stage) -> bool {
        match self {
            OfferStep::Selected => matches!(stage, Stage::Accepted | Stage::Finalized),
            OfferStep::Created | OfferStep::Sent | OfferStep::SentBack => stage == Stage::Finalized,
            OfferStep::Accepted => stage == Stage::Finalized || stage.is_granted(),
            OfferStep::Declined => matches!(stage, Stage::Finalized | Stage::Declined),
            OfferStep::Cancelled => matches!(stage, Stage::Finalized | Stage::Cancelled),
        }
    }
}

/// How the offers of an application stand.
#[derive(Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offers {
    /// The one that is being prepared.
    pub preparing: Option<Preparing>,
    /// The one that the customer has, or had and sent back.
    pub with_customer: Option<WithCustomer>,
    /// How many were sent.
    pub sent: u32,
    /// How many were accepted.
    pub accepted: u32,
    /// How many were declined.
    pub declined: u32,
    /// How many were cancelled.
    pub cancelled: u32,
}

/// How far an offer is before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Preparing {
    /// The customer was chosen.
    Selected,
    /// It was written.
    Created,
}

/// How far an offer is once it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum WithCustomer {
    /// It was sent.
    Sent,
    /// It came back.
    SentBack,
}

impl Offers {
    /// Whether this step can follow. A new offer is chosen while the former is with the customer, and written once that is cancelled.
    pub fn may(&self, step: OfferStep) -> bool {
        match step {
            OfferStep::Selected => self.preparing.is_none(),
            OfferStep::Created => self.preparing == Some(Preparing::Selected) && self.with_customer.is_none(),
            OfferStep::Sent => self.preparing == Some(Preparing::Created),
            OfferStep::SentBack => self.with_customer == Some(WithCustomer::Sent),
            OfferStep::Accepted | OfferStep::Declined | OfferStep::Cancelled => self.with_customer.is_some(),
        }
    }

    /// Whether one is being prepared or with the customer.
    pub fn are_open(&self) -> bool {
        self.preparing.is_some() || self.with_customer.is_some()
    }

    pub(super) fn moved(&mut self, step: OfferStep) {
        match step {
            OfferStep::Selected => self.preparing = Some(Preparing::Selected),
            OfferStep::Created => self.preparing = Some(Preparing::Created),
            OfferStep::Sent => {
                self.preparing = None;
                self.with_customer = Some(WithCustomer::Sent);
                self.sent += 1;
            }
            OfferStep::SentBack => self.with_customer = Some(WithCustomer::SentBack),
            OfferStep::Accepted => {
                self.with_customer = None;
                self.accepted += 1;
            }
            OfferStep::Declined => {
                self.with_customer = None;
                self.declined += 1;
            }
            OfferStep::Cancelled => {
                self.with_customer = None;
                self.cancelled += 1;
            }
        }
    }
}
