//! An application on the in-memory broker, in one line: the production loop, without threads and without waiting.

use crate::broker::{Client, ClientConfig, Cluster, OwnedRecord};
use crate::store::{MemoryDisk, MemoryStore};
use es_core::clock::Clock;
use es_core::envelope::{Envelope, Outcome, header};
use es_core::partition::partition_of;
use es_core::record::{Place, RecordBatch, Role};
use es_core::runner::{Phase, Runner, RunnerError, Settings, Stats};
use es_core::state_store::StateStore;
use es_core::task::entry::Entry;
use es_core::task::layout::{self, Position};
use es_core::task::{BadRows, Commands, Logic, Rows};
use es_core::{Aggregate, Command, Decide, Millis, Topology};
use std::time::Duration;

/// An application with one component, its broker and its disk.
///
/// Nothing happens in the background: [`settle`](TestApp::settle), which `send` calls, repeats the loop's step until nothing is left to do.
///
/// ```
/// # use es_core::{Aggregate, Command, Context, Decide, Decision, emit, event};
/// # use serde::{Deserialize, Serialize};
/// # #[event(aggregate = "account")]
/// # #[derive(Clone, Debug, PartialEq)]
/// # pub enum AccountEvent { Deposited { amount: u64 } }
/// # #[derive(Command, Clone, Debug, PartialEq)]
/// # pub enum AccountCommand { Deposit { amount: u64 } }
/// # #[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
/// # #[aggregate(id = String, event = AccountEvent, version = 1)]
/// # pub struct Account { #[fold(Deposited => add(amount))] pub balance: u64 }
/// # impl Decide for Account {
/// #     type Command = AccountCommand;
/// #     type Rejection = ();
/// #     fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Decision<Self> {
/// #         let AccountCommand::Deposit { amount } = *command;
/// #         emit(Deposited { amount })
/// #     }
/// # }
/// use es_testkit::TestApp;
///
/// let mut app = TestApp::<Account>::start();
/// app.send("acct-1", &AccountCommand::Deposit { amount: 5 });
/// assert_eq!(app.events("acct-1"), [AccountEvent::Deposited { amount: 5 }]);
/// app.lose_disk();
/// app.restart();
/// assert_eq!(app.state("acct-1").unwrap().balance, 5);
/// ```
pub struct TestApp<A: Aggregate, L: Logic<State = A> = Commands<A>> {
    cluster: Cluster,
    disk: MemoryDisk,
    topology: Topology,
    settings: Settings,
    logic: fn() -> L,
    instance: u32,
    runner: Option<Runner<L, Client, MemoryStore, VirtualClock>>,
}

/// The cluster's virtual time.
#[derive(Debug, Clone)]
pub struct VirtualClock(pub Cluster);

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        self.0.now()
    }
}

/// Repeats the step of several processes in turn until all of them are idle.
///
/// # Errors
/// Why one of them stopped.
///
/// # Panics
/// When they do not come to rest.
pub fn settle_all<A: Aggregate, L: Logic<State = A>>(apps: &mut [&mut TestApp<A, L>]) -> Result<(), RunnerError> {
    let mut idle = 0;
    for _ in 0..1_000_000 {
        let mut all_idle = true;
        for app in apps.iter_mut() {
            let Some(runner) = app.runner.as_mut() else { continue };
            if !runner.step(Duration::ZERO) {
                return Err(runner.error().cloned().expect("it stops by itself only for an error"));
            }
            all_idle &= runner.is_idle() && runner.tasks().count() > 0;
        }
        idle = if all_idle { idle + 1 } else { 0 };
        if idle > 8 {
            return Ok(());
        }
        apps[0].cluster.advance(Duration::from_millis(1));
    }
    panic!("the applications do not come to rest");
}

/// Partitions of the topics that a [`TestApp`] creates.
pub const PARTITIONS: i32 = 4;

impl<A: Decide> TestApp<A, Commands<A>> {
    /// Starts an aggregate on a new cluster.
    pub fn start() -> Self {
        Self::start_with(Settings::default())
    }

    /// The same with settings.
    pub fn start_with(settings: Settings) -> Self {
        Self::on(Cluster::new("test"), Topology::aggregate::<A>("test"), settings, Commands::default)
    }

    /// Sends a command, and lets the application do all that follows.
    ///
    /// # Panics
    /// When the command cannot be written, or the application stops with an error.
    pub fn send(&mut self, id: &str, command: &A::Command) {
        self.send_with(id, command, &[]);
    }

    /// The same with headers: `ce_id`, say.
    ///
    /// # Panics
    /// As [`send`](TestApp::send).
    pub fn send_with(&mut self, id: &str, command: &A::Command, headers: &[(&str, &[u8])]) {
        let mut value = Vec::new();
        command.encode(&mut value).expect("a command can be written");
        let mut all = vec![(header::TYPE, command.name().as_bytes())];
        all.extend_from_slice(headers);
        self.cluster.produce(self.topic(Role::Commands), id, &all, value).expect("the commands topic exists");
        self.settle();
    }

    /// The outcomes of an aggregate's commands that left no event, oldest first: the command's id, and what it came to.
    pub fn outcomes(&self, id: &str) -> Vec<(String, Outcome<serde_json::Value>)> {
        let records = self.read(Role::Outcomes).into_iter().filter(|r| r.key.as_deref() == Some(id.as_bytes()));
        let read = |record: OwnedRecord| {
            let cause =
                record.headers.iter().find(|(name, _)| name == header::CAUSATION_ID).map(|(_, v)| String::from_utf8_lossy(v).into_owned());
            let outcome = serde_json::from_slice(record.value.as_deref().unwrap_or_default()).expect("an outcome is JSON");
            (cause.unwrap_or_default(), outcome)
        };
        records.map(read).collect()
    }
}

impl<T: Aggregate> TestApp<T, Rows<T>> {
    /// Starts a table on a new cluster; bad rows stop it.
    pub fn start_table() -> Self {
        Self::start_table_with(Settings::default(), || Rows::new(BadRows::Stop))
    }

    /// The same with settings and a policy.
    pub fn start_table_with(settings: Settings, logic: fn() -> Rows<T>) -> Self {
        Self::on(Cluster::new("test"), Topology::table::<T>("test"), settings, logic)
    }
}

impl<A: Aggregate, L: Logic<State = A>> TestApp<A, L> {
    /// Starts a component on a cluster, creating the topics that are missing.
    ///
    /// # Panics
    /// When the application stops with an error.
    pub fn on(cluster: Cluster, topology: Topology, settings: Settings, logic: fn() -> L) -> Self {
        Self::try_on(cluster, topology, settings, logic).unwrap_or_else(|error| panic!("the application stopped: {error}"))
    }

    /// The same, and the error with which it stops.
    ///
    /// # Errors
    /// Why the application stopped.
    ///
    /// # Panics
    /// When the topics cannot be created.
    pub fn try_on(cluster: Cluster, topology: Topology, settings: Settings, logic: fn() -> L) -> Result<Self, RunnerError> {
        cluster.create_topics(&topology, PARTITIONS).expect("the topics can be created");
        let mut app = TestApp { cluster, disk: MemoryDisk::default(), topology, settings, logic, instance: 0, runner: None };
        app.boot();
        app.try_settle()?;
        Ok(app)
    }

    /// Starts one more process of the same application, with a disk of its own. Use [`settle_all`] from then on: the two share the tasks.
    ///
    /// # Panics
    /// When the application has crashed.
    pub fn join(&self, instance: u32) -> Self {
        let (cluster, topology, settings) = (self.cluster.clone(), self.topology.clone(), self.settings.clone());
        let mut app = TestApp { cluster, disk: MemoryDisk::default(), topology, settings, logic: self.logic, instance, runner: None };
        app.boot();
        app
    }

    /// Ends the process, and lets the next one find the same disk and another cluster, with new topics.
    pub fn move_to(&mut self, cluster: Cluster) {
        self.crash(0);
        cluster.create_topics(&self.topology, PARTITIONS).expect("the topics can be created");
        self.cluster = cluster;
    }

    /// Starts again without letting anything happen yet.
    pub fn boot_again(&mut self) {
        self.boot();
    }

    /// Whether it owns the task of this key, and the task runs.
    pub fn owns(&self, id: &str) -> bool {
        self.runner.as_ref().is_some_and(|r| r.entry(id).is_ok())
    }

    /// The brokers.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What the application has done since its last start.
    pub fn stats(&self) -> Stats {
        *self.runner().stats()
    }

    /// The loop itself.
    ///
    /// # Panics
    /// When the application has crashed.
    pub fn runner(&self) -> &Runner<L, Client, MemoryStore, VirtualClock> {
        self.runner.as_ref().expect("the application has crashed or was stopped: call `restart` first")
    }

    /// The component.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// From its next start on the component is this one.
    pub fn set_topology(&mut self, topology: Topology) {
        self.topology = topology;
    }

    /// The name of a topic.
    ///
    /// # Panics
    /// When the component has no such topic.
    pub fn topic(&self, role: Role) -> &str {
        self.topology.topic(role).expect("the component has this topic")
    }

    /// Ends the process at once, as kill -9 does; of the store's writes that were under way the first `keep` survive.
    pub fn crash(&mut self, keep: usize) {
        self.runner = None;
        self.disk.crash(keep);
        // The dead member's session and transaction end by their time-outs.
        self.cluster.advance(Duration::from_secs(61));
    }

    /// Loses the disk too.
    pub fn lose_disk(&mut self) {
        self.crash(0);
        self.disk = MemoryDisk::default();
    }

    /// Starts again, from what disk and cluster hold.
    ///
    /// # Panics
    /// When the application stops with an error.
    pub fn restart(&mut self) {
        self.boot();
        self.settle();
    }

    /// Starts again and returns the error with which the application stops.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn restart_to_fail(&mut self) -> RunnerError {
        self.boot();
        self.settle_to_fail()
    }

    /// Starts again, with other settings.
    ///
    /// # Panics
    /// As [`restart`](TestApp::restart).
    pub fn restart_with(&mut self, settings: Settings) {
        self.settings = settings;
        self.restart();
    }

    fn boot(&mut self) {
        if self.runner.take().is_some() {
            self.disk.crash(0);
            self.cluster.advance(Duration::from_secs(61));
        }
        let id = format!("{}-{}-{}", self.topology.app, self.instance, self.topology.component);
        let mut config = ClientConfig::of(&self.topology, id);
        config.guarantee = self.settings.guarantee;
        let client = Client::new(&self.cluster, config);
        let clock = VirtualClock(self.cluster.clone());
        let store = MemoryStore::new(&self.disk);
        self.runner = Some(Runner::new((self.logic)(), self.topology.clone(), self.settings.clone(), client, store, clock));
    }

    /// Repeats the loop's step until nothing is left to do.
    ///
    /// # Panics
    /// When the application stops with an error, or does not come to rest.
    #[track_caller]
    pub fn settle(&mut self) {
        if let Err(error) = self.try_settle() {
            panic!("the application stopped: {error}");
        }
    }

    /// Repeats the loop's step until the application stops, and returns its error.
    ///
    /// # Panics
    /// When it does not stop.
    #[track_caller]
    pub fn settle_to_fail(&mut self) -> RunnerError {
        match self.try_settle() {
            Err(error) => error,
            Ok(()) => panic!("the application has not stopped"),
        }
    }

    /// Repeats the loop's step until nothing is left to do.
    ///
    /// # Errors
    /// Why the application stopped.
    ///
    /// # Panics
    /// When it neither stops nor comes to rest.
    pub fn try_settle(&mut self) -> Result<(), RunnerError> {
        let runner = self.runner.as_mut().expect("the application has crashed or was stopped: call `restart` first");
        let mut idle = 0;
        for _ in 0..1_000_000 {
            if !runner.step(Duration::ZERO) {
                return Err(runner.error().cloned().expect("it stops by itself only for an error"));
            }
            idle = if runner.is_idle() && runner.tasks().count() > 0 { idle + 1 } else { 0 };
            if idle > 8 {
                return Ok(());
            }
            self.cluster.advance(Duration::from_millis(1));
        }
        panic!("the application does not come to rest: {:?}, {:?}", runner.phase(), runner.tasks().map(|t| t.state()).collect::<Vec<_>>());
    }

    /// Stops in good order.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn stop(&mut self) {
        let runner = self.runner.as_mut().expect("the application has crashed or was stopped: call `restart` first");
        runner.stop();
        for _ in 0..100_000 {
            if !runner.step(Duration::ZERO) {
                assert_eq!(runner.phase(), Phase::Stopped);
                self.runner = None;
                return;
            }
            self.cluster.advance(Duration::from_millis(1));
        }
        panic!("the application does not stop: {:?}", runner.phase());
    }

    /// The committed state of a key; `None` where there is none.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn state(&self, id: &str) -> Option<A> {
        self.entry(id).filter(|e| e.present).map(|e| e.state)
    }

    /// The committed entry of a key: state, number of events, and memory.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn entry(&self, id: &str) -> Option<Entry<A>> {
        self.runner().entry(id).expect("the state can be read")
    }

    /// The position that the disk has of this key's task; the application must not run.
    ///
    /// # Panics
    /// When the disk cannot be read.
    pub fn stored_position(&self, id: &str) -> Option<Position> {
        let mut store = MemoryStore::new(&self.disk);
        let task = partition_of(id.as_bytes(), PARTITIONS);
        store.open(task).expect("the disk can be read");
        let value = store.get(task, layout::POSITION).expect("the disk can be read")?;
        Some(layout::read(value.as_ref()).expect("a position can be read"))
    }

    /// The events of a key, oldest first.
    ///
    /// # Panics
    /// When a record of the events topic is none.
    pub fn events(&self, id: &str) -> Vec<A::Event> {
        self.history(id).into_iter().map(|e| e.event).collect()
    }

    /// The events of a key with their envelopes, oldest first.
    ///
    /// # Panics
    /// When a record of the events topic is none.
    pub fn history(&self, id: &str) -> Vec<Envelope<A::Event>> {
        let mut batch = RecordBatch::new();
        for record in self.read(Role::Events).into_iter().filter(|r| r.key.as_deref() == Some(id.as_bytes())) {
            let mut copy = batch.push(Place::new(Role::Events, record.partition), record.timestamp);
            copy.offset(record.offset).key(id.as_bytes());
            for (name, value) in &record.headers {
                copy.header(name, value);
            }
            if let Some(value) = &record.value {
                copy.value(value);
            }
        }
        batch.iter().map(|r| Envelope::read(&r).expect("the events topic holds events")).collect()
    }

    /// All committed records of a topic, partition by partition.
    ///
    /// # Panics
    /// When the topic does not exist.
    pub fn read(&self, role: Role) -> Vec<OwnedRecord> {
        self.cluster.read_committed(self.topic(role)).expect("the topic exists")
    }

    /// The dead letters' causes and details, partition by partition.
    pub fn dead_letters(&self) -> Vec<(String, String)> {
        use es_core::dead_letter::header::{CAUSE, DETAIL};
        let text = |record: &OwnedRecord, name: &str| {
            record.headers.iter().find(|(n, _)| n == name).map(|(_, v)| String::from_utf8_lossy(v).into_owned()).unwrap_or_default()
        };
        self.read(Role::DeadLetters).iter().map(|r| (text(r, CAUSE), text(r, DETAIL))).collect()
    }

    /// The next write to the store fails, as on a full disk.
    pub fn fail_next_store_write(&self) {
        self.disk.fail_next_write();
    }

    /// Sets the timestamp of what is sent from now on.
    pub fn at(&self, time: Millis) {
        self.cluster.set_timestamp(time);
    }
}
