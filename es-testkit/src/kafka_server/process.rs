//! The broker's process, and the guard that ends it when its owner cannot.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A process that ends with this value and, should this process be killed, all the same.
///
/// A destructor does not run when a test process exits, aborts or is killed. So a small shell waits beside the guarded process for the end of
/// a pipe that this process holds: the kernel closes it whatever happens. Both run in process groups of their own, which a Ctrl-C on the
/// terminal does not reach.
#[derive(Debug)]
pub(super) struct GuardedProcess {
    child: Child,
    guard: Child,
}

impl GuardedProcess {
    /// Starts `command` with its output in `log`; `folder` is deleted when the guard has to step in.
    pub(super) fn spawn(command: &mut Command, log: &Path, folder: &Path) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let mut child = command.process_group(0).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn()?;
        let guard = Command::new("/bin/sh")
            .args(["-c", r#"read -r _; kill -9 "$1" 2>/dev/null; sleep 0.2; rm -rf "$2""#, "guard"])
            .arg(child.id().to_string())
            .arg(folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match guard {
            Ok(guard) => Ok(GuardedProcess { child, guard }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// The status with which the process ended by itself, if it did.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// The process's id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for GuardedProcess {
    /// Kills the process (SIGKILL) and waits for its end.
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
