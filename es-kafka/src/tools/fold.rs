//! Folds records of a log, as the engine does when it restores.

use crate::settings::Settings;
use es_core::aggregate::Millis;
#[cfg(feature = "cli")]
use es_core::envelope::Headers;
use es_core::envelope::key;
use es_core::record::RecordRef;
use es_core::runner::Guarantee;
use es_core::task::entry::Entry;
use es_core::task::replay::{self, Folded, Sequence};
use es_core::topology::{Kind, Topology};
use es_core::{Aggregate, Envelope};

/// How the records of one component are folded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folder {
    kind: Kind,
    sequence: Sequence,
    /// Command ids older than this are forgotten.
    pub(super) horizon: Millis,
}

/// What folding a record came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The entry has changed.
    Changed,
    /// The entry held it already.
    Known,
    /// It is a record that a table passes over.
    Passed,
}

impl Folder {
    /// The fold of a component; it forgets no command id.
    pub(super) fn new(topology: &Topology, settings: &Settings) -> Self {
        let sequence = match settings.guarantee {
            Guarantee::ExactlyOnce => Sequence::Gapless,
            Guarantee::AtLeastOnce => Sequence::Any,
        };
        Folder { kind: topology.kind, sequence, horizon: Millis::MIN }
    }

    /// Folds one record of the events topic.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn event<A: Aggregate>(&self, entry: &mut Entry<A>, record: &RecordRef<'_>) -> Result<Step, String> {
        match self.kind {
            Kind::Aggregate => {
                let envelope = Envelope::<A::Event>::read(record).map_err(|e| e.to_string())?;
                Ok(match replay::event(entry, envelope, self.horizon, self.sequence)? {
                    Folded::Changed { .. } => Step::Changed,
                    Folded::Known => Step::Known,
                })
            }
            Kind::Table => Ok(row(entry, record)),
        }
    }

    /// Takes notice of one record of the outcomes topic.
    ///
    /// # Errors
    /// What is wrong with it.
    #[cfg(feature = "cli")]
    pub(super) fn outcome<A>(&self, entry: &mut Entry<A>, record: &RecordRef<'_>) -> Result<(), String> {
        let headers = Headers::read(record).map_err(|e| e.to_string())?;
        let from = headers.provenance.ok_or("it has no `es_input` header, so another program wrote it")?;
        replay::outcome(entry, headers.causation_id, &from, self.horizon);
        Ok(())
    }
}

/// The id that a record is about.
///
/// # Errors
/// When it has no usable key.
pub(super) fn id_of<'a>(record: &RecordRef<'a>) -> Result<&'a str, String> {
    key(record).map_err(|e| e.to_string())
}

/// Folds a row of a table: no value removes it, and what cannot be folded is passed over, as it was when it was first processed.
fn row<A: Aggregate>(entry: &mut Entry<A>, record: &RecordRef<'_>) -> Step {
    if entry.reflects(record.offset) {
        return Step::Known;
    }
    if record.value.is_none() {
        *entry = Entry { sequence: entry.sequence, ..Entry::default() };
    } else {
        let folded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut state = entry.state.clone();
            let envelope = Envelope::<A::Event>::read(record).ok()?;
            state.apply(envelope.event);
            Some(state)
        }));
        let Ok(Some(state)) = folded else { return Step::Passed };
        entry.state = state;
        entry.present = true;
    }
    entry.sequence += 1;
    entry.events_through = record.offset + 1;
    Step::Changed
}
