//! A contestant's process: its start, what it costs, and its end.

use crate::Failure;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// The kernel's unit of CPU time in `/proc`, the same on every Linux (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that ends with this value and, should this process be killed, all the same: a small shell waits beside it for the end of a pipe
/// that this process holds.
pub struct Process {
    child: Child,
    guard: Child,
    /// What it has written, to both of its outputs.
    pub log: PathBuf,
    /// When it was started.
    pub started: Instant,
    /// The same by the clock on the wall, to which its log lines refer.
    pub started_at: SystemTime,
}

impl Process {
    /// Starts `command` with its output in `log`.
    pub fn start(command: &mut Command, log: PathBuf) -> Result<Self, Failure> {
        let out = File::create(&log).map_err(|e| Failure(format!("{} cannot be written: {e}", log.display())))?;
        let both = out.try_clone().map_err(|e| Failure(format!("{} cannot be written: {e}", log.display())))?;
        let (started, started_at) = (Instant::now(), SystemTime::now());
        let spawned = command.process_group(0).stdin(Stdio::null()).stdout(both).stderr(out).spawn();
        let mut child = spawned.map_err(|e| Failure(format!("{command:?} cannot be started: {e}")))?;
        let guard = Command::new("/bin/sh")
            .args(["-c", r#"read -r _; kill -9 "$1" 2>/dev/null"#, "guard"])
            .arg(child.id().to_string())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match guard {
            Ok(guard) => Ok(Process { child, guard, log, started, started_at }),
            Err(error) => {
                end(&mut child);
                Err(Failure(format!("/bin/sh cannot be started: {error}")))
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// When it has ended by itself, with the end of its log.
    pub fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failure(&format!("the process has ended with {status}"))),
            Err(error) => Err(Failure(format!("the process is lost: {error}"))),
        }
    }

    /// A failure with the end of the log.
    pub fn failure(&self, what: &str) -> Failure {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(20)..].join("\n");
        Failure(format!("{what}; its log ends with\n{end}"))
    }

    /// Lets it stand still (SIGSTOP) until [`go_on`](Process::go_on).
    pub fn stand_still(&self) -> Result<(), Failure> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    pub fn go_on(&self) -> Result<(), Failure> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| Failure("the process has no id".into()))?;
        kill_process(id, signal).map_err(|e| Failure(format!("{signal:?} cannot be sent: {e}")))
    }

    /// Asks it to end (SIGTERM), and kills it when it has not ended by itself within `limit`.
    pub fn stop(mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        self.end(limit)
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// When it has not ended by itself within `limit`.
    pub fn end(&mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        // It fails only when the process has already ended.
        let _ = self.signal(Signal::TERM);
        let until = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
                _ => return Err(self.failure(&format!("the process did not end within {limit:?} of SIGTERM"))),
            }
        }
    }

    /// Kills it (SIGKILL).
    pub fn kill(self) {
        drop(self);
    }

    /// Kills it (SIGKILL), and waits until it has gone.
    pub fn kill_now(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The guard first: it must not outlive the id that it would kill.
        end(&mut self.guard);
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // Both fail only for a process that has already ended.
    let _ = child.kill();
    let _ = child.wait();
}

/// The CPU time that a process has used so far, in seconds: all its threads, and the children that it has waited for. 0 once it has ended.
pub fn cpu_seconds(process: u32) -> f64 {
    cpu_of(&fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default()).unwrap_or_default()
}

/// The CPU seconds in a line of `/proc/PID/stat`: the fields utime, stime, cutime and cstime (proc(5)).
fn cpu_of(stat: &str) -> Option<f64> {
    // The second field is the program's name in parentheses, and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// The largest amount of memory that a process has had resident so far, in MiB (VmHWM). 0 once it has ended.
pub fn peak_memory(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

/// The space that a folder takes on the disk, in MiB.
pub fn disk_usage(folder: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => disk_usage(&entry.path()),
        // The kernel counts in blocks of 512 bytes, whatever the file system's own are.
        Ok(data) => data.blocks() as f64 * 512.0 / 1_048_576.0,
        // It was deleted meanwhile.
        Err(_) => 0.0,
    };
    // Not `sum`, which is -0.0 of nothing.
    entries.map(of).fold(0.0, |all, one| all + one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_is_found_behind_whatever_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 25 75 20 0 9 0 1 1 1";
        assert_eq!(cpu_of(stat), Some(4.0));
        assert_eq!(cpu_of("42 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_used_memory() {
        assert!(peak_memory(std::process::id()) > 1.0);
        assert_eq!(peak_memory(u32::MAX), 0.0);
    }

    #[test]
    fn a_process_is_stopped_or_its_end_is_told_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let start = |script: &str| Process::start(Command::new("/bin/sh").args(["-c", script]), folder.path().join("log")).unwrap();
        let status = start("trap 'exit 7' TERM; while :; do sleep 0.01; done").stop(Duration::from_secs(10)).unwrap();
        assert!(status.code() == Some(7) || status.code().is_none(), "it ended before its trap was set, or by it: {status}");
        let mut ended = start("echo gone wrong; exit 3");
        let told = loop {
            match ended.check() {
                Ok(()) => std::thread::yield_now(),
                Err(Failure(text)) => break text,
            }
        };
        assert!(told.contains("exit status: 3") && told.ends_with("gone wrong"), "{told}");
    }
}
