//! Why a runner stops.

use crate::broker::BrokerError;
use crate::task::TaskError;

/// A runner cannot go on, or cannot answer. Each error says what happened, to what, and what to do now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunnerError {
    /// A task cannot go on.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The broker port has failed for good, or too often in a row.
    #[error("{doing}: {error}")]
    Broker {
        /// What was being done.
        doing: &'static str,
        /// What the port said.
        error: BrokerError,
    },
    /// Another producer has this one's `transactional.id`.
    #[error("another process uses the same identity and has fenced this one twice: {error}. Give each process a state folder of its own")]
    Fenced {
        /// What the port said.
        error: BrokerError,
    },
    /// A topic does not exist.
    #[error("`{component}` needs the topic `{topic}`, which does not exist. Create the topics first (`topics apply`)")]
    TopicMissing {
        /// The component.
        component: String,
        /// The topic.
        topic: String,
    },
    /// Topics that belong together differ in their number of partitions.
    #[error(
        "`{component}`: the topic `{topic}` has {found} partitions, and the others of the component have {wanted}. Command, events, outcomes and changelog \
         topics must have the same number"
    )]
    Partitions {
        /// The component.
        component: String,
        /// The topic.
        topic: String,
        /// Its number of partitions.
        found: i32,
        /// That of the others.
        wanted: i32,
    },
    /// The topics changed while the runner ran.
    #[error("the topics of `{component}` changed while it ran: {what}. Nothing is skipped or started over by guessing, so it stops")]
    TopicsChanged {
        /// The component.
        component: String,
        /// What has changed.
        what: String,
    },
    /// The key's task does not run here, or not yet.
    #[error("`{id}` belongs to partition {partition}, which is not served here (yet)")]
    NotHere {
        /// The key.
        id: String,
        /// Its partition.
        partition: i32,
    },
}
