//! Looks into logs and stores from beside the engine: the state, the history, and whether both agree.

mod fold;
mod groups;
#[cfg(feature = "cli")]
mod history;
mod read;
#[cfg(feature = "cli")]
mod states;
mod stored;
#[cfg(all(test, feature = "embedded", feature = "cli"))]
mod tests;
#[cfg(feature = "cli")]
mod verify;

use crate::app::AppError;
use crate::connection::Connection;
use crate::reader::Reader;
use crate::settings::Settings;
#[cfg(feature = "cli")]
use es_core::Aggregate;
use es_core::broker::TopicInfo;
use es_core::record::Role;
use es_core::topology::Topology;
#[cfg(feature = "cli")]
use std::io::Write;

pub(crate) use groups::copy_offsets;
pub(crate) use read::{each_event, each_state};

/// A question about one component, and where the answer goes.
#[cfg(feature = "cli")]
pub(crate) struct Tool<'a> {
    pub(crate) topology: Topology,
    pub(crate) settings: &'a Settings,
    pub(crate) connection: &'a Connection,
    pub(crate) question: Question,
    pub(crate) json: bool,
    pub(crate) out: &'a mut dyn Write,
}

/// What is asked.
#[cfg(feature = "cli")]
#[derive(Debug, Clone)]
pub(crate) enum Question {
    /// One state.
    State { id: String },
    /// Many states.
    States { prefix: String, limit: usize },
    /// The events of one aggregate, and the state after each.
    History { id: String },
    /// Whether store, changelog and the fold of the log are the same.
    Verify,
}

/// What was found.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// What was asked for, or that all is well.
    Found,
    /// Nothing of this id.
    Nothing,
    /// A difference.
    Difference,
}

/// Answers the question.
#[cfg(feature = "cli")]
pub(crate) fn inspect<A: Aggregate>(tool: &mut Tool<'_>) -> Result<Finding, AppError> {
    match tool.question.clone() {
        Question::State { id } => states::one::<A>(tool, &id),
        Question::States { prefix, limit } => states::many::<A>(tool, &prefix, limit),
        Question::History { id } => history::show::<A>(tool, &id),
        Question::Verify => verify::run::<A>(tool),
    }
}

/// A reader of the component's topics, with the events topic as it is.
fn open(settings: &Settings, connection: &Connection, topology: &Topology) -> Result<(Reader, TopicInfo), AppError> {
    let mut reader = connection.reader(settings, topology)?;
    let described = reader.describe()?;
    let name = topology.topic(Role::Events).unwrap_or_default();
    let missing = || AppError::Log(format!("the topic `{name}` does not exist: `{} topics apply` creates it", topology.app));
    let events = described.topics.into_iter().find(|t| t.role == Role::Events).ok_or_else(missing)?;
    Ok((reader, events))
}
