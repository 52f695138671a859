//! What a [`Fence`] stands for: the group metadata under which tasks were handed over.

use crate::ffi::GroupMetadata;
use es_core::broker::{BrokerError, ErrorKind, Fence};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How many of the newest snapshots are kept. An older one is out of date for certain.
const KEPT: usize = 64;

/// What fences stand for.
#[derive(Debug)]
pub(super) enum Fences {
    /// Snapshots of a consumer's metadata, numbered from 1: of two that differ the older one is out of date.
    Snapshots(Mutex<Table>),
    /// The epochs of a member of a streams group. An old one may hold: that of a task that was assigned long ago.
    Epochs {
        /// The group's name.
        group: String,
        /// The member's id.
        member: String,
        /// The newest epoch that tasks were assigned at; 0: none yet.
        newest: AtomicI32,
    },
}

/// The snapshots, by fence. Fences count from 1, so that a zero by mistake stands for nothing.
#[derive(Debug, Default)]
pub(super) struct Table {
    last: u64,
    snapshots: BTreeMap<u64, Arc<GroupMetadata>>,
}

impl Fences {
    /// For a consumer's group.
    pub(super) fn snapshots() -> Self {
        Fences::Snapshots(Mutex::default())
    }

    /// For this member of a streams group.
    pub(super) fn epochs(group: &str, member: &str) -> Self {
        Fences::Epochs { group: group.to_owned(), member: member.to_owned(), newest: AtomicI32::new(0) }
    }

    /// A fence for this snapshot: the present one if it shows the same, else a new one. The flag tells whether it is new.
    pub(super) fn issue(&self, snapshot: GroupMetadata) -> (Fence, bool) {
        let Fences::Snapshots(table) = self else { unreachable!("a member of a streams group has epochs") };
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        let last = table.last;
        if table.snapshots.get(&last).is_some_and(|newest| **newest == snapshot) {
            return (Fence(last), false);
        }
        table.last += 1;
        let last = table.last;
        table.snapshots.insert(last, Arc::new(snapshot));
        if table.snapshots.len() > KEPT {
            table.snapshots.pop_first();
        }
        (Fence(last), true)
    }

    /// The fence of tasks that were assigned at this epoch of the member.
    pub(super) fn issue_epoch(&self, epoch: i32) -> Fence {
        let Fences::Epochs { newest, .. } = self else { unreachable!("a consumer's group has snapshots") };
        newest.fetch_max(epoch, Ordering::SeqCst);
        Fence(u64::try_from(epoch).unwrap_or_default())
    }

    /// The group metadata behind a fence.
    ///
    /// # Errors
    /// [`ErrorKind::StaleMember`] for a fence that is long out of date; [`ErrorKind::Fatal`] for one that stands for no membership,
    /// since the broker would take offsets under it without any check.
    pub(super) fn get(&self, fence: Fence) -> Result<Arc<GroupMetadata>, BrokerError> {
        match self {
            Fences::Snapshots(table) => {
                let table = table.lock().unwrap_or_else(PoisonError::into_inner);
                match table.snapshots.get(&fence.0) {
                    Some(snapshot) if snapshot.is_member() => Ok(snapshot.clone()),
                    None if (1..=table.last).contains(&fence.0) => {
                        let text = format!("fence {} is long out of date: read the inputs again", fence.0);
                        Err(BrokerError::new(ErrorKind::StaleMember, text))
                    }
                    _ => Err(no_membership(fence)),
                }
            }
            Fences::Epochs { group, member, .. } => {
                let metadata = GroupMetadata::new(group, self.epoch(fence)?, member).filter(GroupMetadata::is_member);
                metadata.map(Arc::new).ok_or_else(|| no_membership(fence))
            }
        }
    }

    /// The epoch behind a fence.
    ///
    /// # Errors
    /// [`ErrorKind::Fatal`] for one that stands for no membership.
    pub(super) fn epoch(&self, fence: Fence) -> Result<i32, BrokerError> {
        let Fences::Epochs { newest, .. } = self else { unreachable!("a consumer's group has snapshots") };
        let epoch = i32::try_from(fence.0).ok().filter(|epoch| (1..=newest.load(Ordering::SeqCst)).contains(epoch));
        epoch.ok_or_else(|| no_membership(fence))
    }
}

fn no_membership(fence: Fence) -> BrokerError {
    let text = format!("fence {} stands for no membership: offsets under it would be taken unchecked, so they are not sent", fence.0);
    BrokerError::new(ErrorKind::Fatal, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_that_was_never_issued_is_refused() {
        for fences in [Fences::snapshots(), Fences::epochs("group", "member")] {
            for fence in [0, 1, u64::MAX] {
                assert_eq!(fences.get(Fence(fence)).unwrap_err().kind, ErrorKind::Fatal);
            }
        }
    }

    #[test]
    fn an_old_epoch_stands_for_itself_however_many_came_after_it() {
        let fences = Fences::epochs("group", "member");
        let old = fences.issue_epoch(3);
        for epoch in 4..1000 {
            fences.issue_epoch(epoch);
        }
        let metadata = fences.get(old).unwrap();
        assert_eq!((metadata.generation(), metadata.member().as_str()), (3, "member"));
    }
}
