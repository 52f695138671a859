//! What each fault does.

use crate::chaos::{Act, Chaos};
use crate::exits::Struck;
use crate::plan::{Fault, Kind};
use crate::process::App;
use es_testkit::proxy::{Api, Choice, Proxy, Strike, StrikeHandle};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// A kill that waits for its commit.
pub(crate) struct Aimed {
    pub(crate) app: usize,
    pub(crate) strike: StrikeHandle,
    pub(crate) until: Instant,
    pub(crate) down: Duration,
}

impl Chaos {
    /// Lets a fault strike. One whose target is not there at the moment comes a little later.
    pub(crate) fn strike(&mut self, kind: Kind, fault: Fault) {
        let wanted: fn(&App) -> bool = match fault {
            Fault::Pause { .. } | Fault::KillInCommit { .. } => |app| app.processing && !app.paused && app.stopping.is_none(),
            Fault::Restart { .. } => |app| app.lives() && !app.paused && app.stopping.is_none(),
            _ => App::lives,
        };
        let now = Instant::now();
        let mut target = |app: usize| {
            let found = (0..self.apps.len()).map(|i| (app + i) % self.apps.len()).find(|i| wanted(&self.apps[*i]));
            if found.is_none() {
                self.later(Duration::from_millis(700), Act::Strike(kind, fault.clone()));
            }
            found
        };
        match fault.clone() {
            Fault::Kill { app, down } => {
                let Some(app) = target(app) else { return };
                self.kill(app, down);
                self.struck(kind, Some(app), Duration::ZERO, format!("killed, down for {down:?}"));
            }
            Fault::KillInCommit { app, held, down } => {
                let Some((app, id)) = target(app).and_then(|app| Some((app, self.transactional_id(app)?))) else { return };
                let strike = self.proxy().strike(Strike::next(Choice::of(Api::END_TXN).transaction(&id).commits(), held));
                self.aimed.push(Aimed { app, strike, until: now + Duration::from_secs(10), down });
            }
            Fault::Restart { app, away } => {
                let Some(app) = target(app) else { return };
                self.apps[app].absence = away;
                self.apps[app].signal("TERM");
                self.struck(kind, Some(app), Duration::from_secs(1), format!("asked to end, away for {away:?}"));
            }
            Fault::Pause { app, time } => {
                let Some(app) = target(app) else { return };
                self.apps[app].signal("STOP");
                self.later(time, Act::Continue(app));
                self.struck(kind, Some(app), time, format!("stopped for {time:?}"));
            }
            Fault::BrokerKill { down } => {
                if !self.world.broker.kill(down) {
                    self.later(Duration::from_secs(3), Act::Strike(kind, fault));
                    return;
                }
                self.broker_killed = Some(now);
                self.struck(kind, None, down + Duration::from_secs(6), format!("the broker is killed, down for {down:?}"));
            }
            Fault::Request { api, commits, action } => {
                let heartbeat = match self.variant().protocol {
                    "classic" => Api::HEARTBEAT,
                    "consumer" => Api::CONSUMER_GROUP_HEARTBEAT,
                    _ => Api::STREAMS_GROUP_HEARTBEAT,
                };
                let api = if kind == Kind::Heartbeat { heartbeat } else { api };
                let choice = match commits {
                    Some(true) => Choice::of(api).commits(),
                    Some(false) => Choice::of(api).aborts(),
                    None => Choice::of(api),
                };
                let strike = self.proxy().strike(Strike::next(choice, action));
                self.strikes.push((kind, format!("the next {api}: {action:?}"), strike));
            }
            Fault::Cut => {
                let count: usize = self.world.proxies.iter().map(Proxy::cut_all).sum();
                self.struck(kind, None, Duration::ZERO, format!("{count} connections cut"));
            }
            Fault::BlackHole { direction, time } => {
                self.proxy().black_hole(direction, time);
                self.struck(kind, None, time, format!("nothing passes, {direction:?}, for {time:?}"));
            }
            Fault::Fence { app } => {
                let Some((app, id)) = target(app).and_then(|app| Some((app, self.transactional_id(app)?))) else { return };
                fence(self.world.broker.bootstrap_servers.clone(), id.clone());
                self.struck(kind, Some(app), Duration::from_secs(5), format!("{id} is fenced"));
            }
            Fault::Disk { app, fault, time } => {
                let Some(app) = target(app) else { return };
                self.apps[app].disk.set(fault);
                self.later(time, Act::Mend(app));
                self.struck(kind, Some(app), time, format!("its disk: {fault:?} for {time:?}"));
            }
            Fault::Store { app, other, what, draw } => {
                let Some(app) = target(app) else { return };
                self.kill(app, Duration::from_millis(200));
                let other = self.apps[other].folder.clone();
                match self.apps[app].damage(what, &other, draw) {
                    Some(done) => self.struck(kind, Some(app), Duration::ZERO, format!("killed, its store: {done}")),
                    None => self.struck(Kind::Kill, Some(app), Duration::ZERO, "killed".into()),
                }
            }
        }
    }

    /// Kills a process and has it started again later.
    pub(crate) fn kill(&mut self, app: usize, down: Duration) {
        self.apps[app].kill();
        self.kills += 1;
        self.later(down, Act::Start(app));
    }

    /// Looks after the faults that wait for a request.
    pub(crate) fn aim(&mut self) {
        let (due, waiting) = std::mem::take(&mut self.aimed)
            .into_iter()
            .partition(|aimed| aimed.strike.struck(Duration::ZERO) || aimed.until < Instant::now());
        self.aimed = waiting;
        let due: Vec<Aimed> = due;
        for Aimed { app, strike, down, .. } in due {
            if strike.struck(Duration::ZERO) && self.apps[app].lives() {
                self.kill(app, down);
                self.struck(
                    Kind::KillInCommit,
                    Some(app),
                    Duration::ZERO,
                    format!("killed while its commit was on the way, down for {down:?}"),
                );
            } else {
                strike.withdraw();
            }
        }
        let (hit, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.strikes).into_iter().partition(|(.., s)| s.struck(Duration::ZERO));
        self.strikes = waiting;
        for (kind, text, _) in hit {
            self.struck(kind, None, Duration::from_secs(4), text);
        }
    }

    /// Notes that a fault struck, and how long it lasts.
    pub(crate) fn struck(&mut self, kind: Kind, app: Option<usize>, lasts: Duration, text: String) {
        let at = Instant::now();
        self.report.struck(kind);
        self.struck.push(Struck { at, until: at + lasts, kind, app, text });
    }

    /// The proxy before some broker.
    fn proxy(&mut self) -> &Proxy {
        let number = self.random.below(self.world.proxies.len() as u64) as usize;
        &self.world.proxies[number]
    }

    /// The id that one of a process's lanes writes its transactions with, once it has any.
    fn transactional_id(&mut self, app: usize) -> Option<String> {
        let kept = fs::read_to_string(self.apps[app].folder.join("transactional-ids")).ok()?;
        let ids: Vec<&str> = kept.lines().collect();
        (!ids.is_empty()).then(|| self.random.pick(&ids).to_owned())
    }
}

/// Takes a `transactional.id` over, as a second process with the same identity would.
fn fence(bootstrap_servers: String, id: String) {
    thread::spawn(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap_servers).set("transactional.id", id).set("log_level", "0");
        let producer: Result<BaseProducer, _> = config.create();
        if let Ok(producer) = producer {
            // When the broker is away nobody is fenced.
            let _ = producer.init_transactions(Duration::from_secs(4));
        }
    });
}
