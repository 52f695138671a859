//! The application: its components, its settings, and what its `main` does.

use crate::component::{self, Component, Part};
use crate::connection::Connection;
use crate::running::Running;
use crate::sender::Sender;
use crate::settings::{Settings, SettingsError};
use crate::tools;
use crate::topics::TopicsError;
use es_core::broker::BrokerError;
use es_core::record::Role;
use es_core::runner::RunnerError;
use es_core::state_store::StoreError;
use es_core::task::BadRows;
use es_core::topology::{Kind, Topology};
use es_core::{Aggregate, Decide, Envelope};
use std::sync::{Arc, OnceLock};

/// An application: aggregates and tables, run together by one process.
///
/// A whole binary:
///
/// ```no_run
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)] struct Account;
/// # fn wrap<Account: es_kafka::Decide>() -> es_kafka::Exit {
/// es_kafka::App::from_args().aggregate::<Account>().run()
/// # }
/// ```
///
/// Its command line is `run`, `topics plan|apply|check`, `state get|list`, `events`, `verify` and `config`; `--help` tells the rest. Without
/// a command line, [`App::with_settings`] and [`App::start`] run the same inside of another program or a test.
pub struct App {
    name: String,
    settings: Option<Settings>,
    components: Vec<Arc<dyn Component>>,
    connection: OnceLock<Connection>,
    #[cfg(feature = "cli")]
    pub(crate) commands: Vec<(clap::Command, OwnCommand)>,
    /// What is done where no subcommand is named.
    #[cfg(feature = "cli")]
    pub(crate) default_command: Option<(clap::Command, OwnCommand)>,
    /// The program's own version.
    #[cfg(feature = "cli")]
    pub(crate) version: Option<String>,
}

/// What a subcommand of the program's own does.
#[cfg(feature = "cli")]
pub(crate) type OwnCommand = Box<dyn FnOnce(&clap::ArgMatches, App) -> Result<crate::Exit, Box<dyn std::error::Error>>>;

/// How a table reads its topic.
#[derive(Debug, Clone, Default)]
pub struct TableOptions {
    topic: Option<String>,
    bad: BadRows,
}

impl TableOptions {
    /// The default topic, that of the application's aggregate with these events, else `<aggregate>-events`; and to stop at a record that cannot be folded.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads this events topic. The setting `<table>.topics.events` goes before it.
    pub fn topic(mut self, name: impl Into<String>) -> Self {
        self.topic = Some(name.into());
        self
    }

    /// What to do about a record that cannot be folded.
    pub fn bad_records(mut self, policy: BadRows) -> Self {
        self.bad = policy;
        self
    }
}

/// An application cannot start, or has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// Settings that cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The application is put together wrongly.
    #[error("{0}")]
    Setup(String),
    /// The topics are not as they must be.
    #[error(transparent)]
    Topics(#[from] TopicsError),
    /// The state folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker cannot be used.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A component has stopped.
    #[error("`{component}` has stopped: {error}")]
    Component {
        /// The component.
        component: String,
        /// Why.
        error: RunnerError,
    },
    /// A component's thread has panicked.
    #[error("`{component}` has stopped by a panic, which is a bug: {message}")]
    Panicked {
        /// The component.
        component: String,
        /// What the panic said.
        message: String,
    },
    /// A log holds something that cannot be folded.
    #[error("{0}")]
    Log(String),
    /// A result cannot be written.
    #[error("the result cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

impl App {
    /// An application whose settings come from command line, environment and file; [`run`](App::run) reads them.
    #[cfg(feature = "cli")]
    pub fn from_args() -> Self {
        Self::new(program_name(), None)
    }

    /// An application with these settings, for other programs and for tests. Its name is [`Settings::app`].
    pub fn with_settings(settings: Settings) -> Self {
        Self::new(settings.app.clone(), Some(settings))
    }

    fn new(name: String, settings: Option<Settings>) -> Self {
        App {
            name,
            settings,
            components: Vec::new(),
            connection: OnceLock::new(),
            #[cfg(feature = "cli")]
            commands: Vec::new(),
            #[cfg(feature = "cli")]
            default_command: None,
            #[cfg(feature = "cli")]
            version: None,
        }
    }

    /// Names the application, the `<app>` in the names of groups, topics and transactions. Without it the name is that of the executable.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        if let Some(settings) = &mut self.settings {
            settings.app.clone_from(&self.name);
        }
        self
    }

    /// The program's version, which `--version` shows beside that of this crate: `env!("CARGO_PKG_VERSION")`, say.
    #[cfg(feature = "cli")]
    pub fn version(self, version: impl Into<String>) -> Self {
        App { version: Some(version.into()), ..self }
    }

    /// Adds an aggregate.
    pub fn aggregate<A: Decide>(mut self) -> Self {
        self.components.push(component::aggregate::<A>().into());
        self
    }

    /// Adds a table over the default events topic; it stops at a record that cannot be folded.
    pub fn table<T: Aggregate>(self) -> Self {
        self.table_with::<T>(TableOptions::new())
    }

    /// Adds a table.
    pub fn table_with<T: Aggregate>(mut self, options: TableOptions) -> Self {
        self.components.push(component::table::<T>(options.topic, options.bad).into());
        self
    }

    /// Uses this log in memory, when the setting `broker` is `embedded`, instead of a new one.
    #[cfg(feature = "embedded")]
    pub fn embedded(self, embedded: crate::embedded::Embedded) -> Self {
        App { connection: OnceLock::from(Connection::Embedded(embedded)), ..self }
    }

    /// Adds a subcommand of the program's own. `run` gets its arguments, and the application with its settings.
    #[cfg(feature = "cli")]
    pub fn command(
        mut self,
        command: clap::Command,
        run: impl FnOnce(&clap::ArgMatches, App) -> Result<crate::Exit, Box<dyn std::error::Error>> + 'static,
    ) -> Self {
        self.commands.push((command, Box::new(run)));
        self
    }

    /// What the program does where its command line names no subcommand: `run` gets the arguments of `command`, which stand beside the
    /// settings, and the application.
    #[cfg(feature = "cli")]
    pub fn default_command(
        self,
        command: clap::Command,
        run: impl FnOnce(&clap::ArgMatches, App) -> Result<crate::Exit, Box<dyn std::error::Error>> + 'static,
    ) -> Self {
        App { default_command: Some((command, Box::new(run))), ..self }
    }

    /// Does what the command line says, and returns how the process ends. It installs what a program has once: the subscriber of `tracing`
    /// (on stderr), the handlers of SIGTERM and SIGINT, and a panic hook that keeps quiet about panics of `decide` and `fold`, which are
    /// caught. An application with settings of its own runs at once.
    #[cfg(feature = "cli")]
    pub fn run(self) -> crate::Exit {
        crate::program::run(self)
    }

    /// Starts the application and returns at once. It prepares the topics and opens the state folder first.
    ///
    /// # Errors
    /// When the application cannot start; each says what to do about it.
    pub fn start(&self) -> Result<Running, AppError> {
        Running::start(self.settings()?, &self.parts()?, self.connection()?)
    }

    /// Calls `each` with every aggregate of `A` and its newest state, partition by partition in the order of the ids: from the local store and
    /// what the log has had since, or from the log alone where another process holds the store. Also while the application runs.
    ///
    /// # Errors
    /// When `A` is none of the application's components, or log or store cannot be read.
    pub fn each_state<A: Aggregate>(&self, each: impl FnMut(&str, &A)) -> Result<(), AppError> {
        let Part { topology, .. } = self.part(Some(A::NAME))?;
        tools::each_state(self.settings()?, self.connection()?, &topology, each)
    }

    /// Calls `each` with every committed event of `A`, partition by partition in the order of the log.
    ///
    /// # Errors
    /// When `A` is none of the application's components, the log cannot be read, or a record is no event of `A`.
    pub fn each_event<A: Aggregate>(&self, each: impl FnMut(&Envelope<A::Event>)) -> Result<(), AppError> {
        let Part { topology, .. } = self.part(Some(A::NAME))?;
        tools::each_event::<A>(self.settings()?, self.connection()?, &topology, each)
    }

    /// Sends commands to `A`, from this process or from one that runs no components. The topics must exist: [`start`](App::start) creates them.
    ///
    /// # Errors
    /// When `A` is none of the application's components, or a setting is wrong.
    pub fn sender<A: Decide>(&self) -> Result<Sender<A>, AppError> {
        let Part { topology, .. } = self.part(Some(A::NAME))?;
        let not_taken = || AppError::Setup(format!("`{}` takes no commands: add it with `aggregate`", A::NAME));
        let topic = topology.topic(Role::Commands).ok_or_else(not_taken)?;
        Ok(Sender::new(self.settings()?, self.connection()?, topic)?)
    }

    /// The settings.
    ///
    /// # Errors
    /// When they are still to be read from the command line.
    pub fn settings(&self) -> Result<&Settings, AppError> {
        let unread = || AppError::Setup("the settings of this application are read by `run`: use it, or `with_settings`".to_owned());
        self.settings.as_ref().ok_or_else(unread)
    }

    /// The name.
    #[cfg(feature = "cli")]
    pub(crate) fn app_name(&self) -> &str {
        &self.name
    }

    /// The components as they are by default, for the grammar of settings.
    pub(crate) fn default_topologies(&self) -> Vec<Topology> {
        self.components.iter().map(|c| c.topology(&self.name)).collect()
    }

    /// Takes settings over.
    #[cfg(feature = "cli")]
    pub(crate) fn resolved(mut self, settings: Settings) -> Self {
        self.settings = Some(settings);
        self
    }

    /// The components with their topics as the settings name them.
    ///
    /// # Errors
    /// When there is none, two have one name, or a setting names a topic of none of them.
    pub(crate) fn parts(&self) -> Result<Vec<Part>, AppError> {
        let settings = self.settings()?;
        let defaults = self.default_topologies();
        if defaults.is_empty() {
            return Err(AppError::Setup("the application has neither an aggregate nor a table: add one".to_owned()));
        }
        for (i, topology) in defaults.iter().enumerate() {
            if defaults[..i].iter().any(|other| other.component == topology.component) {
                return Err(AppError::Setup(format!("two components are named `{}`: give one of them another name", topology.component)));
            }
        }
        settings.check(&defaults)?;
        let part = |(default, component): (&Topology, &Arc<dyn Component>)| {
            let mut topology = default.clone();
            // A table without an input of its own reads what the aggregate of its stream writes, wherever that is.
            let writer = defaults.iter().find(|t| t.kind == Kind::Aggregate && t.topic(Role::Events) == default.topic(Role::Events));
            if default.kind == Kind::Table
                && !component.names_its_input()
                && let Some(writer) = writer
                && let Some(name) = settings.topology(writer.clone()).topic(Role::Events)
            {
                topology.set_topic(Role::Events, name);
            }
            Part { topology: settings.topology(topology), component: component.clone() }
        };
        Ok(defaults.iter().zip(&self.components).map(part).collect())
    }

    /// The component of this name; without one, the only component.
    pub(crate) fn part(&self, name: Option<&str>) -> Result<Part, AppError> {
        let mut parts = self.parts()?;
        let names = parts.iter().map(|part| part.topology.component.clone()).collect::<Vec<_>>().join(", ");
        match name {
            Some(name) => parts.retain(|part| part.topology.component == name),
            None if parts.len() > 1 => {
                return Err(AppError::Setup(format!("say which component is meant, by `--component`: one of {names}")));
            }
            None => {}
        }
        parts.pop().ok_or_else(|| AppError::Setup(format!("there is no component `{}`: one of {names}", name.unwrap_or_default())))
    }

    /// The log: opened once, so that a log in memory is one and the same for all that is done with the application.
    pub(crate) fn connection(&self) -> Result<&Connection, AppError> {
        if let Some(connection) = self.connection.get() {
            return Ok(connection);
        }
        let connection = Connection::of(self.settings()?).map_err(AppError::Setup)?;
        Ok(self.connection.get_or_init(|| connection))
    }
}

/// The name of the executable.
#[cfg(feature = "cli")]
fn program_name() -> String {
    let path = std::env::args_os().next().map(std::path::PathBuf::from);
    path.and_then(|p| Some(p.file_stem()?.to_string_lossy().into_owned())).unwrap_or_else(|| "app".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Account, Balances};

    #[test]
    fn a_table_follows_its_aggregate_unless_an_input_is_named() {
        let input = |options: TableOptions, own: Option<&str>| {
            let mut settings = Settings::new("bank");
            settings.set("account.topics.events", "ledger").unwrap();
            if let Some(name) = own {
                settings.set("balances.topics.events", name).unwrap();
            }
            let app = App::with_settings(settings).table_with::<Balances>(options).aggregate::<Account>();
            app.parts().unwrap()[0].topology.topic(Role::Events).unwrap().to_owned()
        };
        assert_eq!(input(TableOptions::new(), None), "ledger");
        assert_eq!(input(TableOptions::new(), Some("mine")), "mine");
        assert_eq!(input(TableOptions::new().topic("account-events"), None), "account-events");
    }
}
