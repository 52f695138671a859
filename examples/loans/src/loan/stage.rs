//! The stages of an application.

use serde::{Deserialize, Serialize};

/// Where an application is in its life.
///
/// ```text
/// Submitted ─► PartlySubmitted ─► PreAccepted ─► Accepted ─► Finalized ─► Approved, Registered, Activated in any order
///                    └──────────────────┴────────────┴───────────┴─► Declined or Cancelled
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// It came in.
    Submitted,
    /// It came in with some of its papers.
    PartlySubmitted,
    /// It can be granted once it is complete.
    PreAccepted,
    /// It is complete.
    Accepted,
    /// It is ready for offers.
    Finalized,
    /// Granted: approved.
    Approved,
    /// Granted: registered.
    Registered,
    /// Granted: activated.
    Activated,
    /// Declined by the bank.
    Declined,
    /// Cancelled by the customer, or for want of an answer.
    Cancelled,
}

impl Stage {
    /// Whether this stage can be followed by that one.
    pub fn may_become(self, to: Stage) -> bool {
        use Stage::*;
        match self {
            Submitted => to == PartlySubmitted,
            PartlySubmitted => matches!(to, PreAccepted | Declined | Cancelled),
            PreAccepted => matches!(to, Accepted | Declined | Cancelled),
            Accepted => matches!(to, Finalized | Declined | Cancelled),
            Finalized => to.is_granted() || matches!(to, Declined | Cancelled),
            Approved | Registered | Activated => to.is_granted(),
            Declined | Cancelled => false,
        }
    }

    /// Whether the loan is granted.
    pub fn is_granted(self) -> bool {
        matches!(self, Stage::Approved | Stage::Registered | Stage::Activated)
    }
}
