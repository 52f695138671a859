//! What processes have read to restore states, from their own logs.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// What was read for restores, of each log.
#[derive(Debug, Default)]
pub(super) struct Copies(pub(super) BTreeMap<PathBuf, Copied>);

/// What one process has read for restores, in records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Copied {
    /// Of the changelog, for partitions that it was to work on.
    pub(super) changelog: u64,
    /// Of the changelog, for standbys: copies that it had not kept before.
    pub(super) changelog_of_standbys: u64,
    /// Of the log, restore by restore: what the store did not reflect yet, or the changelog may lack.
    pub(super) refolds: Vec<u64>,
}

impl Copies {
    /// What was read after `before`, over all logs.
    pub(super) fn since(&self, before: &Copies) -> Copied {
        let none = Copied::default();
        let mut all = Copied::default();
        for (log, now) in &self.0 {
            let before = before.0.get(log).unwrap_or(&none);
            all.changelog += now.changelog - before.changelog;
            all.changelog_of_standbys += now.changelog_of_standbys - before.changelog_of_standbys;
            all.refolds.extend(&now.refolds[before.refolds.len()..]);
        }
        all
    }
}

impl Copied {
    /// Reads the log of the bank.
    pub(super) fn read(log: &str) -> Self {
        let (mut copied, mut is_standby) = (Copied::default(), BTreeMap::new());
        for line in log.lines() {
            if let Some((_, tasks)) = line.split_once(": assigned ") {
                is_standby.extend(list(tasks).map(|task| (task, false)));
            } else if let Some((_, tasks)) = line.split_once(": standby ") {
                is_standby.extend(list(tasks).map(|task| (task, true)));
            } else if let Some((_, rest)) = line.split_once(": restoring from the changelog ") {
                let records = field(rest, "records=").unwrap_or_default();
                match field(rest, "task=").and_then(|task| is_standby.get(&task)) {
                    Some(true) => copied.changelog_of_standbys += records,
                    _ => copied.changelog += records,
                }
            } else if let Some((_, rest)) = line.split_once(": restored ") {
                copied.refolds.extend(field(rest, "records="));
            }
        }
        copied
    }

    /// The largest restore from the log.
    pub(super) fn most_refolded(&self) -> u64 {
        self.refolds.iter().copied().max().unwrap_or_default()
    }
}

/// The number behind `key`.
fn field(text: &str, key: &str) -> Option<u64> {
    text.split_once(key)?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The numbers in `tasks=[1, 2]`.
fn list(text: &str) -> impl Iterator<Item = u64> + '_ {
    let inner = text.split_once("tasks=[").and_then(|(_, rest)| rest.split_once(']')).map_or("", |(inner, _)| inner);
    inner.split(", ").filter_map(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-01T00:00:02.500000Z  INFO es_core::runner: assigned component=\"account\" tasks=[0, 1]
2026-01-01T00:00:02.500000Z  INFO es_core::runner: standby component=\"account\" tasks=[2]
2026-01-01T00:00:02.600000Z  INFO es_core::task::restore: restoring from the changelog task=1 records=12
2026-01-01T00:00:02.600000Z  INFO es_core::task::restore: restoring from the changelog task=2 records=30
2026-01-01T00:00:02.700000Z  INFO es_core::task::restore: restored task=0 from=Store records=7";

    #[test]
    fn what_is_read_for_standbys_is_told_from_what_holds_a_partition_up() {
        let copied = Copied { changelog: 12, changelog_of_standbys: 30, refolds: vec![7] };
        assert_eq!(Copied::read(LOG), copied);
        assert_eq!(Copied::read("no log of ours"), Copied::default());
    }

    #[test]
    fn what_was_read_before_does_not_count() {
        let copies = |log: &str| Copies([(PathBuf::from("log-1"), Copied::read(log))].into());
        let more = format!(
            "{LOG}
2026-01-01T00:00:03.000000Z  INFO es_core::runner: assigned component=\"account\" tasks=[2]
2026-01-01T00:00:03.100000Z  INFO es_core::task::restore: restored task=2 from=Store records=5
2026-01-01T00:00:03.100000Z  INFO es_core::task::restore: restored task=3 from=Store records=3"
        );
        let copied = copies(&more).since(&copies(LOG));
        assert_eq!((copied.changelog, copied.changelog_of_standbys, copied.most_refolded()), (0, 0, 5));
        assert_eq!(copies(&more).since(&Copies::default()).changelog_of_standbys, 30);
    }
}
