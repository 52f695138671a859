//! Membership in a streams group (KIP-1071), as a pure state machine: no bytes, no clock, no connection.
//!
//! The broker distributes the tasks: a member sends heartbeats, each answer may tell which tasks it has, and the next heartbeat says which it
//! still holds. [`Member`] decides what is sent next and when, and what the lane is told. Whoever drives it sends the [`Heartbeat`]s and
//! brings the answers back.
//!
//! ```text
//!          join               answer
//!   Out ─────────► Joining ─────────────► In
//!    ▲              │ ▲ ▲ ▲               │
//!    │      refused │ │ │ └── no answer ──┤   keeps its tasks, under the fences that they have
//!    │              ▼ │ └─── not a member ┤   all its tasks are lost
//!    │         Failed │                   │
//!    │                └── left ── Hung ◄──┘   the lane polls no more: all its tasks are lost
//!    │                                    │
//!    └─────────── Leaving ◄───────────────┘   from each state
//! ```
//!
//! **Joining is acknowledging.** A member that joins (epoch 0) owns nothing, so a join that repeats a lost heartbeat gives up all that was to be
//! given up. So nobody joins while the lane still holds a revoked or a lost task; and a task that is missing from the answer to a join
//! may be somebody else's already: it is *lost*, where in an answer to another heartbeat it is *revoked*.
//!
//! **An answer that nobody hears takes its news with it.** The coordinator tells of a change once, and it may take a heartbeat long after its sender has
//! given it up. So after a lost answer the member joins at once, and once more when a late copy can come no more; after a first join, too, since a
//! former life of the same name may have left something on its way.
//!
//! **Each task has the epoch at which it was assigned as its fence.** The broker takes offsets under any epoch from that of the task's assignment
//! to the member's present one, and under the present one even offsets of tasks that the member has not (tried on Kafka 4.3.1). So offsets
//! are never sent under a newer epoch than the one by which the task is known to be ours. If the broker refuses such a fence as out of date, the
//! task was somebody else's meanwhile: it is lost, and comes again under the present epoch.

mod member;
#[cfg(test)]
mod tests;
pub mod watch;

pub use member::{Member, MemberState};

use std::collections::BTreeSet;
use std::time::Duration;

/// Tasks of a member, by partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tasks {
    /// Those that it works on.
    pub active: BTreeSet<i32>,
    /// Those that it keeps a copy of.
    pub standby: BTreeSet<i32>,
}

/// The epoch by which a member joins its group.
pub const JOIN: i32 = 0;
/// The epoch by which a member leaves its group.
pub const LEAVE: i32 = -1;

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The member's epoch, [`JOIN`] or [`LEAVE`].
    pub epoch: i32,
    /// The tasks that it holds; `None` where that has not changed since the last heartbeat. With [`JOIN`] there are none.
    pub owned: Option<Tasks>,
}

/// What the coordinator answers to a heartbeat that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The member's epoch from now on.
    pub epoch: i32,
    /// When the next heartbeat is due, counted from this one.
    pub interval: Duration,
    /// The tasks that the member is to have; `None` where that has not changed.
    pub assignment: Option<Tasks>,
}

/// Why there is no answer. Each has a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The heartbeat was not taken, and nothing has changed: the coordinator is elsewhere, or is starting.
    NotNow(String),
    /// The heartbeat may have been taken, and its answer is lost.
    NoAnswer(String),
    /// The coordinator has failed, for no reason that it tells. As [`NoAnswer`](Failure::NoAnswer), but not for ever.
    Broken(String),
    /// The coordinator knows no such member, or knows it at another epoch.
    NotAMember(String),
    /// The group does not take this member, now or later.
    Refused(String),
}

/// What the lane is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// These tasks are ours, and this epoch is their fence. Some may have been standbys before.
    Assigned {
        /// The tasks.
        tasks: Vec<i32>,
        /// The epoch under which their offsets are sent.
        epoch: i32,
    },
    /// Of these tasks we keep a copy.
    Standby {
        /// The tasks.
        tasks: Vec<i32>,
    },
    /// These tasks, active or standby, are to be given up.
    Revoked {
        /// The tasks.
        tasks: Vec<i32>,
    },
    /// These tasks are somebody else's, or were.
    Lost {
        /// The tasks.
        tasks: Vec<i32>,
    },
    /// The membership has failed for good.
    Failed {
        /// Why, for people.
        why: String,
    },
}
