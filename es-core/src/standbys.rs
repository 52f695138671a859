//! Which standbys a member keeps where its group does not say: a choice that each member makes by itself, and all make alike.
//!
//! Every member looks at who has which task. For each task the other processes are ranked by rendezvous hashing (Thaler, Ravishankar: "A name-based mapping
//! scheme for rendezvous", 1996), and the first ones keep a standby of it, in one of their lanes. So a member that comes or goes moves few of them. A process
//! keeps none of a task that one of its own lanes has: their store is one.

use std::collections::{BTreeMap, BTreeSet};

/// A member of the group, and the tasks that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name: that of its process, `-`, and the number of its lane.
    pub name: String,
    /// The tasks.
    pub tasks: Vec<i32>,
}

/// The tasks of which `me` keeps a standby, when `replicas` processes are to keep one of each of `partitions` tasks. A task that nobody has at the moment
/// stays where it is `kept`.
pub fn choose(me: &str, peers: &[Peer], partitions: i32, replicas: usize, kept: &BTreeSet<i32>) -> BTreeSet<i32> {
    let mine = process(me);
    let owners: BTreeMap<i32, &str> = peers.iter().flat_map(|peer| peer.tasks.iter().map(|task| (*task, process(&peer.name)))).collect();
    let processes: BTreeSet<&str> = peers.iter().map(|peer| process(&peer.name)).collect();
    let lanes: BTreeSet<&str> = peers.iter().map(|peer| peer.name.as_str()).filter(|name| process(name) == mine).collect();
    let is_mine = |task: &i32| match owners.get(task) {
        None => kept.contains(task),
        Some(owner) if *owner == mine => false,
        Some(owner) => {
            let mine = (hash(*task, mine), mine);
            let before = processes.iter().filter(|process| *process != owner && (hash(*task, process), **process) > mine).count();
            before < replicas && lanes.iter().max_by_key(|lane| (hash(*task, lane), **lane)) == Some(&me)
        }
    };
    (0..partitions).filter(is_mine).collect()
}

/// A member's name without the number of its lane.
fn process(name: &str) -> &str {
    name.rsplit_once('-').map_or(name, |(process, _)| process)
}

/// The same on every machine and in every version: FNV-1a, and the finish of SplitMix64, which spreads what differs little.
fn hash(task: i32, name: &str) -> u64 {
    let bytes = name.bytes().chain(task.to_be_bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The standbys of a member by its own choice: what its lane was told of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standbys {
    kept: BTreeSet<i32>,
    /// To be given up, and not acknowledged yet.
    going: BTreeSet<i32>,
}

/// What a lane is to be told: standbys to keep from now on, and standbys to give up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// For [`BrokerEvent::Standby`](crate::broker::BrokerEvent::Standby).
    pub keep: Vec<i32>,
    /// For [`BrokerEvent::Revoked`](crate::broker::BrokerEvent::Revoked).
    pub give_up: Vec<i32>,
}

impl Standbys {
    /// Those that are kept.
    pub fn kept(&self) -> &BTreeSet<i32> {
        &self.kept
    }

    /// These are to be kept from now on, but for those that the lane `holds` for the group, be it that it has not given them up yet.
    pub fn become_these(&mut self, mut chosen: BTreeSet<i32>, holds: impl Fn(i32) -> bool) -> Changes {
        chosen.retain(|task| !holds(*task));
        let give_up: Vec<i32> = self.kept.difference(&chosen).copied().collect();
        // One that is still being given up is kept again when that is done.
        let keep: Vec<i32> = chosen.iter().copied().filter(|task| !self.kept.contains(task) && !self.going.contains(task)).collect();
        self.kept.retain(|task| chosen.contains(task));
        self.going.extend(&give_up);
        self.kept.extend(&keep);
        Changes { keep, give_up }
    }

    /// The group has assigned these tasks to the lane: they are no standbys any more.
    pub fn assigned(&mut self, tasks: &[i32]) {
        for task in tasks {
            self.kept.remove(task);
            self.going.remove(task);
        }
    }

    /// The lane has given up these tasks, be it by itself.
    pub fn acknowledge(&mut self, tasks: &[i32]) {
        self.assigned(tasks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(tasks: &[(&str, &[i32])]) -> Vec<Peer> {
        tasks.iter().map(|(name, tasks)| Peer { name: (*name).to_owned(), tasks: tasks.to_vec() }).collect()
    }

    fn all(peers: &[Peer], replicas: usize) -> BTreeMap<i32, Vec<String>> {
        let mut all: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for peer in peers {
            for task in choose(&peer.name, peers, 12, replicas, &BTreeSet::new()) {
                all.entry(task).or_default().push(peer.name.clone());
            }
        }
        all
    }

    #[test]
    fn each_task_has_its_standbys_in_other_processes_and_in_one_lane_of_each() {
        let peers = peers(&[("a-0", &[0, 1]), ("a-1", &[2, 3]), ("b-0", &[4, 5]), ("b-1", &[6, 7]), ("c-0", &[8, 9]), ("c-1", &[10, 11])]);
        for replicas in 1..=3 {
            let all = all(&peers, replicas);
            assert_eq!(all.len(), 12);
            for (task, names) in &all {
                let owner = peers.iter().find(|peer| peer.tasks.contains(task)).unwrap();
                let processes: BTreeSet<&str> = names.iter().map(|name| process(name)).collect();
                assert_eq!((names.len(), processes.len()), (replicas.min(2), replicas.min(2)), "{task}: {names:?}");
                assert!(!processes.contains(process(&owner.name)), "{task}: {names:?}");
            }
        }
        assert_eq!(all(&peers, 0), BTreeMap::new());
    }

    #[test]
    fn who_goes_moves_none_of_the_others_standbys() {
        let three = peers(&[("a-0", &[0, 1, 2, 3]), ("b-0", &[4, 5, 6, 7]), ("c-0", &[8, 9, 10, 11])]);
        // Process c is gone, and nobody has its tasks yet.
        let two = &three[..2];
        let before = choose("a-0", &three, 12, 1, &BTreeSet::new());
        let after = choose("a-0", two, 12, 1, &before);
        assert!(before.is_subset(&after), "{before:?} {after:?}");
        assert_eq!(after, before.union(&BTreeSet::from([4, 5, 6, 7])).copied().collect(), "what c kept of b's is a's now");
    }

    #[test]
    fn what_is_given_up_is_kept_again_only_when_that_is_done() {
        let mut standbys = Standbys::default();
        let set = |tasks: &[i32]| tasks.iter().copied().collect::<BTreeSet<i32>>();
        let changes = standbys.become_these(set(&[1, 2, 3]), |task| task == 3);
        assert_eq!(changes, Changes { keep: vec![1, 2], give_up: vec![] });
        let changes = standbys.become_these(set(&[1]), |_| false);
        assert_eq!(changes, Changes { keep: vec![], give_up: vec![2] });
        assert_eq!(standbys.become_these(set(&[1, 2]), |_| false), Changes::default());
        standbys.acknowledge(&[2]);
        assert_eq!(standbys.become_these(set(&[1, 2]), |_| false), Changes { keep: vec![2], give_up: vec![] });
        standbys.assigned(&[1]);
        assert_eq!(standbys.kept(), &set(&[2]));
    }
}
