//! An aggregate or table of an application, with its types erased: what the application calls without knowing them.

use crate::app::AppError;
use crate::lane::{self, Lane};
#[cfg(feature = "cli")]
use crate::tools::{self, Finding, Tool};
use es_core::record::Role;
use es_core::runner::Stats;
use es_core::task::{BadRows, Commands, Logic, Rows};
use es_core::topology::Topology;
use es_core::{Aggregate, Decide};
use std::sync::Arc;

/// What an application does with one of its components.
pub(crate) trait Component: Send + Sync {
    /// Its names, without what the settings say.
    fn topology(&self, app: &str) -> Topology;

    /// Whether the program names the topic that a table reads.
    fn names_its_input(&self) -> bool;

    /// Runs one lane of it until it is told to stop.
    fn run(&self, lane: Lane) -> Result<Stats, AppError>;

    /// Looks into its log and its store.
    #[cfg(feature = "cli")]
    fn inspect(&self, tool: &mut Tool<'_>) -> Result<Finding, AppError>;
}

/// A component of an application with its settings: its topics are named as they say.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) topology: Topology,
    pub(crate) component: Arc<dyn Component>,
}

/// The component of an aggregate.
pub(crate) fn aggregate<A: Decide>() -> Box<dyn Component> {
    Box::new(Typed { topology: Topology::aggregate::<A>, events: None, logic: Commands::<A>::default })
}

/// The component of a table, over the events topic of this name or the default one.
pub(crate) fn table<T: Aggregate>(events: Option<String>, bad: BadRows) -> Box<dyn Component> {
    Box::new(Typed { topology: Topology::table::<T>, events, logic: move || Rows::<T>::new(bad) })
}

struct Typed<F> {
    topology: fn(&str) -> Topology,
    events: Option<String>,
    logic: F,
}

impl<L: Logic, F: Fn() -> L + Send + Sync> Component for Typed<F> {
    fn topology(&self, app: &str) -> Topology {
        let mut topology = (self.topology)(app);
        if let Some(events) = &self.events {
            topology.set_topic(Role::Events, events);
        }
        topology
    }

    fn names_its_input(&self) -> bool {
        self.events.is_some()
    }

    fn run(&self, lane: Lane) -> Result<Stats, AppError> {
        lane::run((self.logic)(), lane)
    }

    #[cfg(feature = "cli")]
    fn inspect(&self, tool: &mut Tool<'_>) -> Result<Finding, AppError> {
        tools::inspect::<L::State>(tool)
    }
}
