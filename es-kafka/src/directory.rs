//! Who has which partition: the endpoints of the owners and of the standbys, as the group's coordinator tells them.
//!
//! The membership writes it, whoever forwards queries reads it. Clones share one table.
//!
//! It is a hint, never a proof: the coordinator's word may be seconds old. Whoever is asked at an endpoint must know for himself whether he owns
//! the partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

/// One process of a component, and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Where it answers, `host:port`.
    pub endpoint: String,
    /// The partitions that it serves.
    pub active: Vec<i32>,
    /// The partitions that it keeps a copy of.
    pub standby: Vec<i32>,
}

/// The table of endpoints, by component and partition. A clone is a handle on the same table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Directory(Arc<Shared>);

/// Handles are the same when their table is.
impl PartialEq for Directory {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Directory {}

#[derive(Debug, Default)]
struct Shared {
    components: RwLock<BTreeMap<String, Partitions>>,
}

#[derive(Debug, Default)]
struct Partitions {
    owner: BTreeMap<i32, String>,
    standbys: BTreeMap<i32, Vec<String>>,
    endpoints: BTreeSet<String>,
}

impl Directory {
    /// Replaces all that is known of this component.
    pub(crate) fn update(&self, component: &str, owners: Vec<Owner>) {
        let mut new = Partitions::default();
        for Owner { endpoint, active, standby } in owners {
            for partition in active {
                new.owner.insert(partition, endpoint.clone());
            }
            for partition in standby {
                new.standbys.entry(partition).or_default().push(endpoint.clone());
            }
            new.endpoints.insert(endpoint);
        }
        self.0.components.write().unwrap_or_else(PoisonError::into_inner).insert(component.to_owned(), new);
    }

    /// The endpoint of the process that serves this partition, where one is known.
    pub(crate) fn owner(&self, component: &str, partition: i32) -> Option<String> {
        self.read(component, |known| known.owner.get(&partition).cloned()).flatten()
    }

    /// The endpoints of the processes that keep a copy of this partition.
    pub(crate) fn standbys(&self, component: &str, partition: i32) -> Vec<String> {
        self.read(component, |known| known.standbys.get(&partition).cloned()).flatten().unwrap_or_default()
    }

    /// Where processes of this component answer, those that have no partitions included.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "who watches the others"))]
    pub(crate) fn endpoints(&self, component: &str) -> BTreeSet<String> {
        self.read(component, |known| known.endpoints.clone()).unwrap_or_default()
    }

    fn read<T>(&self, component: &str, read: impl FnOnce(&Partitions) -> T) -> Option<T> {
        self.0.components.read().unwrap_or_else(PoisonError::into_inner).get(component).map(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(endpoint: &str, active: &[i32], standby: &[i32]) -> Owner {
        Owner { endpoint: endpoint.to_owned(), active: active.to_vec(), standby: standby.to_vec() }
    }

    #[test]
    fn clones_share_one_table_and_an_update_replaces_what_was_known() {
        let directory = Directory::default();
        let reader = directory.clone();
        directory.update("account", vec![owner("a:1", &[0, 1], &[2]), owner("b:1", &[2], &[0, 2])]);
        assert_eq!(reader.owner("account", 1).as_deref(), Some("a:1"));
        assert_eq!(reader.standbys("account", 2), ["a:1", "b:1"]);
        assert_eq!(reader.owner("other", 1), None);
        directory.update("account", vec![owner("b:1", &[1], &[])]);
        assert_eq!(reader.owner("account", 1).as_deref(), Some("b:1"));
        assert_eq!((reader.owner("account", 0), reader.standbys("account", 2)), (None, vec![]));
    }
}
