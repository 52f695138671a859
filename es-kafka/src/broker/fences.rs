//! What a [`Fence`] stands for: the group metadata under which tasks were handed over.

use crate::ffi::GroupMetadata;
use es_core::broker::{BrokerError, ErrorKind, Fence};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How many of the newest snapshots are kept. An older one is out of date for certain.
const KEPT: usize = 64;

/// The snapshots, by fence. Fences count from 1, so that a zero by mistake stands for nothing.
#[derive(Debug, Default)]
pub(super) struct Fences(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    snapshots: BTreeMap<u64, Arc<GroupMetadata>>,
}

impl Fences {
    /// A fence for this snapshot: the present one if it shows the same, else a new one. The flag tells whether it is new.
    pub(super) fn issue(&self, snapshot: GroupMetadata) -> (Fence, bool) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// The snapshot behind a fence.
    ///
    /// # Errors
    /// [`ErrorKind::StaleMember`] for a fence that is long out of date; [`ErrorKind::Fatal`] for one that stands for no membership,
    /// since the broker would take offsets under it without any check.
    pub(super) fn get(&self, fence: Fence) -> Result<Arc<GroupMetadata>, BrokerError> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match table.snapshots.get(&fence.0) {
            Some(snapshot) if snapshot.is_member() => Ok(snapshot.clone()),
            None if (1..=table.last).contains(&fence.0) => {
                Err(BrokerError::new(ErrorKind::StaleMember, format!("fence {} is long out of date: read the inputs again", fence.0)))
            }
            _ => Err(BrokerError::new(
                ErrorKind::Fatal,
                format!("fence {} stands for no membership: offsets under it would be taken unchecked, so they are not sent", fence.0),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_that_was_never_issued_is_refused() {
        let fences = Fences::default();
        for fence in [0, 1, u64::MAX] {
            assert_eq!(fences.get(Fence(fence)).unwrap_err().kind, ErrorKind::Fatal);
        }
    }
}
