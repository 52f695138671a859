//! One process of the application: started, killed, started again, and its words kept.

use crate::plan::Kind;
use crate::world::World;
use es_testkit::disk_faults::DiskFaults;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The settings that change from round to round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) headers: &'static str,
    pub(crate) changelog: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) standbys: u16,
    /// Whether the processes watch and evict each other. They do in streams groups only.
    pub(crate) evicts: bool,
}

/// They come in turn, all on the same log and the same stores.
pub(crate) const VARIANTS: [Variant; 6] = [
    Variant { headers: "full", changelog: "each-commit", protocol: "classic", standbys: 1, evicts: true },
    Variant { headers: "compact", changelog: "checkpoint:5", protocol: "consumer", standbys: 0, evicts: false },
    Variant { headers: "full", changelog: "off", protocol: "classic", standbys: 0, evicts: true },
    Variant { headers: "compact", changelog: "each-commit", protocol: "consumer", standbys: 0, evicts: true },
    Variant { headers: "full", changelog: "checkpoint:5", protocol: "classic", standbys: 1, evicts: false },
    Variant { headers: "compact", changelog: "off", protocol: "consumer", standbys: 0, evicts: true },
];

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Variant { headers, changelog, protocol, standbys, evicts } = self;
        let evictions = if *evicts { "evictions" } else { "no evictions" };
        write!(f, "{headers} headers, changelog {changelog}, {protocol} group, {standbys} standbys, {evictions}")
    }
}

/// A process and its folder.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) disk: DiskFaults,
    child: Option<Child>,
    log: PathBuf,
    /// How much of the log was looked at.
    read: u64,
    /// The end of a line that was not whole yet.
    rest: String,
    /// Since when it has been down, until it processes again.
    pub(crate) away: Option<Instant>,
    pub(crate) processing: bool,
    /// Stopped by SIGSTOP.
    pub(crate) paused: bool,
    /// Asked to end by SIGTERM, and when.
    pub(crate) stopping: Option<Instant>,
    /// The last lines that it wrote, over all its lives.
    pub(crate) tail: VecDeque<String>,
    lives: u32,
    /// How long it stays away once it has ended as asked.
    pub(crate) absence: Duration,
    /// Where it answers queries.
    pub(crate) endpoint: Option<String>,
    /// How often it has evicted another one.
    pub(crate) evictions: u64,
}

/// What became of a process.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

impl App {
    /// A process that does not run yet.
    pub(crate) fn new(number: usize, world: &World) -> Result<Self, String> {
        let name = format!("p{}", number + 1);
        let folder = world.folder.join("state").join(&name);
        let disk = fs::create_dir_all(&folder).and_then(|()| DiskFaults::build(&world.folder.join("tools").join(&name), &folder));
        let disk = disk.map_err(|e| format!("no faults of disks: {e}"))?;
        Ok(App {
            folder,
            disk,
            log: world.folder.join("logs").join(format!("{name}.log")),
            name,
            child: None,
            read: 0,
            rest: String::new(),
            away: None,
            processing: false,
            paused: false,
            stopping: None,
            tail: VecDeque::new(),
            lives: 0,
            absence: Duration::ZERO,
            endpoint: None,
            evictions: 0,
        })
    }

    /// Whether there is a process.
    pub(crate) fn lives(&self) -> bool {
        self.child.is_some()
    }

    /// Starts it.
    pub(crate) fn start(&mut self, world: &World, variant: Variant) -> Result<(), String> {
        let failed = |e: &dyn std::fmt::Display| format!("{} cannot be started: {e}", self.name);
        self.lives += 1;
        let log = File::options().create(true).append(true).open(&self.log).map_err(|e| failed(&e))?;
        let mut command = command(world, &self.folder, variant, &["run"]);
        // The log of its writes would be of use for power losses alone.
        command.envs(self.disk.environment()).env("ES_DISK_FAULTS_LOG", "/dev/null");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().map_err(|e| failed(&e))?;
        self.child = Some(child);
        self.away.get_or_insert_with(Instant::now);
        (self.processing, self.paused, self.stopping) = (false, false, None);
        Ok(())
    }

    /// Sends it a signal, by the name that kill(1) has for it.
    pub(crate) fn signal(&mut self, name: &str) {
        let Some(child) = &self.child else { return };
        // The child is not waited for yet, so that the number is still its own.
        let _ = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).stderr(Stdio::null()).status();
        match name {
            "STOP" => self.paused = true,
            "CONT" => self.paused = false,
            "TERM" => self.stopping = Some(Instant::now()),
            _ => {}
        }
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It fails only for one that has ended.
            let _ = child.kill();
            let _ = child.wait();
            self.listen();
            self.ended();
        }
    }

    /// How it ended, if it has.
    pub(crate) fn poll(&mut self) -> Option<Ended> {
        let status: ExitStatus = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        self.listen();
        self.ended();
        Some(Ended { code: status.code(), signal: status.signal() })
    }

    fn ended(&mut self) {
        self.away.get_or_insert_with(Instant::now);
        (self.processing, self.paused, self.stopping) = (false, false, None);
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.note(rest);
        }
    }

    /// Reads what it has written since. Returns how long it was away when it now processes again.
    pub(crate) fn listen(&mut self) -> Option<Duration> {
        let mut text = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.read_to_end(&mut text)
        });
        self.read += read.unwrap_or(0) as u64;
        let text = std::mem::take(&mut self.rest) + &String::from_utf8_lossy(&text);
        let mut back = None;
        for line in text.split_inclusive('\n') {
            let Some(line) = line.strip_suffix('\n') else {
                self.rest = line.to_owned();
                break;
            };
            if line.contains("processing partitions=") {
                self.processing = true;
                back = self.away.take().map(|since| since.elapsed()).or(back);
            }
            if let Some((_, endpoint)) = line.split_once("queries are answered at http://") {
                self.endpoint = endpoint.split_whitespace().next().map(str::to_owned);
            }
            self.evictions += u64::from(line.contains("is taken for dead and evicted"));
            self.note(line.to_owned());
        }
        back
    }

    fn note(&mut self, line: String) {
        if self.tail.len() == 60 {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// What its last life said at its end, without what only informs.
    pub(crate) fn last_words(&self) -> String {
        let is_error = |line: &&String| line.starts_with("error:") || line.contains(" ERROR ");
        let words = self.tail.iter().rev().take(12).find(is_error).or(self.tail.back());
        words.cloned().unwrap_or_default()
    }

    /// Damages the store of a process that is down. Returns what was done, or `None` when there was nothing to damage.
    pub(crate) fn damage(&self, what: Kind, other: &Path, draw: u64) -> Option<String> {
        let database = self.folder.join("db");
        match what {
            Kind::FolderDeleted => fs::remove_dir_all(&self.folder).ok().map(|()| "deleted".into()),
            Kind::StoreTorn => {
                let files = files(&database);
                let file = files.get((draw >> 8) as usize % files.len().max(1))?;
                let length = fs::metadata(file).ok()?.len();
                let kept = (draw >> 16) % length.max(1);
                File::options().write(true).open(file).and_then(|f| f.set_len(kept)).ok()?;
                Some(format!("{} cut from {length} to {kept} bytes", file.strip_prefix(&self.folder).unwrap_or(file).display()))
            }
            Kind::StoreOlder => {
                let kept = self.folder.with_extension("older");
                let had = kept.exists();
                if had {
                    let _ = fs::remove_dir_all(&database);
                    copy(&kept, &database)?;
                }
                // The next time it is this one that comes back.
                if !had || draw.is_multiple_of(2) {
                    let _ = fs::remove_dir_all(&kept);
                    copy(&database, &kept)?;
                }
                had.then(|| "an older copy put back".into())
            }
            Kind::StoreForeign => {
                let foreign = other.join("db");
                if other == self.folder || !foreign.exists() {
                    return None;
                }
                let _ = fs::remove_dir_all(&database);
                copy(&foreign, &database)?;
                Some(format!("that of {} put in, copied while that ran", other.file_name().unwrap_or_default().to_string_lossy()))
            }
            _ => None,
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A call of the application's program with its settings.
pub(crate) fn command(world: &World, folder: &Path, variant: Variant, arguments: &[&str]) -> Command {
    let mut command = Command::new(&world.app);
    command.arg0("bank").args(arguments).stdin(Stdio::null()).process_group(world.group());
    command
        .env("ES_BOOTSTRAP_SERVERS", world.proxied())
        .env("ES_STATE_DIR", folder)
        .env("ES_HEADERS", variant.headers)
        .env("ES_CHANGELOG", variant.changelog)
        .env("ES_GROUP_PROTOCOL", variant.protocol)
        .env("ES_NUM_STANDBY_REPLICAS", variant.standbys.to_string())
        .env("ES_LISTEN", "127.0.0.1:0")
        .env("ES_EVICTION", if variant.evicts { "on" } else { "off" })
        .env("ES_SESSION_TIMEOUT", format!("{}s", world.session.as_secs()))
        // It is also how long a classic group waits for members that its coordinator takes for alive after a restart.
        .env("ES_MAX_POLL_INTERVAL", "20s")
        .env("ES_TRANSACTION_TIMEOUT", "8s")
        .env("ES_COMMIT_INTERVAL", "40ms")
        .env("ES_BATCH_MAX_RECORDS", "1000")
        .env("ES_COMMAND_MEMORY", format!("{}s", world.command_memory.as_secs()))
        .env("ES_MAX_COMMAND_BYTES", crate::load::MAX_COMMAND.to_string())
        .env("ES_SHUTDOWN_TIMEOUT", "10s")
        .env("ES_LOG", "info,es_core=debug,es_core::task::step=error,es_kafka::broker=debug,fjall=warn,lsm_tree=warn");
    command
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if entry.metadata().is_ok_and(|m| m.len() > 0) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Copies a folder; what vanishes meanwhile is left out.
pub(crate) fn copy(from: &Path, to: &Path) -> Option<()> {
    fs::create_dir_all(to).ok()?;
    for entry in fs::read_dir(from).ok()?.flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            let _ = fs::copy(&path, &target);
        }
    }
    Some(())
}
