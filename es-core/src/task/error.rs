//! Why a task stops. Each error says what happened, to what, and what to do now.

use crate::state_store::StoreError;

/// A task cannot go on; nothing is folded around a hole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The store failed.
    #[error("task {task}: {error}")]
    Store {
        /// The task.
        task: i32,
        /// What the store said.
        error: StoreError,
    },
    /// A record of the aggregate's own events or outcomes topic, or of its changelog, cannot be used.
    #[error(
        "{topic}[{partition}] offset {offset} cannot be folded: {why}. Nothing is folded around a hole, so the task stops. If another program \
         wrote the record, stop that program; only this aggregate may write the topic. If the record is of a newer version, run that version"
    )]
    Unusable {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The record's offset.
        offset: i64,
        /// What is wrong with it.
        why: String,
    },
    /// Another application has written the aggregate's events or outcomes.
    #[error(
        "{topic}[{partition}] offset {offset} was written by {written}, and this is `{us}`. The topic of an aggregate has one writer: two of them count \
         every command twice. If the application was renamed, give it its former name (`App::name`, or the executable's); if it is another one, give the \
         aggregate topics of its own"
    )]
    OtherWriter {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The record's offset.
        offset: i64,
        /// Who wrote it, where it says so.
        written: String,
        /// Who we are.
        us: String,
    },
    /// The group has no committed offset although the log shows that inputs were processed.
    #[error(
        "group `{group}` has no committed offset for {topic}[{partition}], although inputs up to offset {processed} were processed. The offsets \
         have expired or were deleted. Nothing is skipped or processed twice by guessing: set the group's offset for this partition \
         (kafka-consumer-groups --bootstrap-server HOST:PORT --group {group} --topic {topic}:{partition} --reset-offsets --to-offset {next} --execute) and start \
         again", next = processed + 1
    )]
    OffsetMissing {
        /// The consumer group.
        group: String,
        /// The input topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The last input that is known to be processed.
        processed: i64,
    },
    /// The committed offset, or the position of the store, lies outside what the topic holds.
    #[error(
        "offset {offset} of {topic}[{partition}] is out of range: the topic holds {start} to {end}. Records that were never processed are gone, or the \
         topic was re-created. Restore the topic, or decide what is lost and set the offset of group `{group}` yourself"
    )]
    OutOfRange {
        /// The consumer group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset that was wanted.
        offset: i64,
        /// The oldest offset that is kept.
        start: i64,
        /// The next offset.
        end: i64,
    },
    /// The topics are not the ones that the state was folded from.
    #[error(
        "{topic} was deleted and created again: its id is {found}, and the state (or its events) came from {known}. Starting over would lose what was \
         processed. Restore the topic; or, to begin anew on purpose, remove the state folder, the events, outcomes and changelog topics and the group"
    )]
    Recreated {
        /// The topic.
        topic: String,
        /// Its id now.
        found: String,
        /// Its id then.
        known: String,
    },
    /// An input of a table cannot be folded, and the table's policy is to stop.
    #[error(
        "{topic}[{partition}] offset {offset} cannot be folded into the table `{table}`: {why}. Mend the writer, or declare that the table sends bad \
         records to the dead-letter topic (`App::table_with`, `BadRows::DeadLetter`)"
    )]
    BadRow {
        /// The table.
        table: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The record's offset.
        offset: i64,
        /// What is wrong with it.
        why: String,
    },
    /// The state cannot be written.
    #[error(
        "the state of `{id}` in task {task} cannot be written: {why}. Give the state's type a serde form that postcard can write and read (no \
         `#[serde(untagged)]`, `flatten` or `skip_serializing_if`)"
    )]
    Unwritable {
        /// The task.
        task: i32,
        /// The aggregate's id.
        id: String,
        /// What the codec said.
        why: String,
    },
}
