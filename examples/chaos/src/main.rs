//! Chaos on a real broker: processes of the bank against a Kafka of their own, killed, stopped and cut off in every way that a seed makes up, and
//! audited round by round. See `--help`, and the report that it writes.

mod chaos;
mod check;
mod evidence;
mod exits;
mod faults;
mod forgotten;
mod load;
mod logs;
mod options;
mod plan;
mod process;
mod progress;
mod reads;
mod report;
mod watch;
mod world;

use chaos::{Chaos, Stop};
use clap::Parser;
use options::Options;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn main() -> ExitCode {
    let options = Options::parse();
    quiet_audit();
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        // A second signal ends the process at once; the guards then end what it has started.
        let registered = signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())
            .and_then(|_| signal_hook::flag::register(signal, interrupted.clone()));
        if let Err(error) = registered {
            eprintln!("chaos: cannot listen to signals: {error}");
            return ExitCode::from(2);
        }
    }
    let path = options.report.clone();
    let mut chaos = match Chaos::start(options, interrupted) {
        Ok(chaos) => chaos,
        Err(Stop::Interrupted) => return ExitCode::from(130),
        Err(Stop::Failed(why)) => {
            eprintln!("chaos: {why}");
            return ExitCode::from(2);
        }
    };
    let outcome = chaos.run();
    chaos.report.stopped = match &outcome {
        Ok(()) => None,
        Err(Stop::Interrupted) => Some("it was interrupted".into()),
        Err(Stop::Failed(why)) => Some(why.clone()),
    };
    let text = chaos.report().markdown();
    if let Err(error) = std::fs::write(&path, &text) {
        eprintln!("chaos: the report cannot be written to {}: {error}", path.display());
        println!("{text}");
    }
    let violated = chaos.report().is_violated();
    drop(chaos);
    eprintln!("chaos: {}; the report is {}", if violated { "VIOLATED" } else { "nothing was violated" }, path.display());
    match outcome {
        _ if violated => ExitCode::from(1),
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Interrupted) => ExitCode::from(130),
        Err(Stop::Failed(why)) => {
            eprintln!("chaos: ended early: {why}");
            ExitCode::from(2)
        }
    }
}

/// The audit folds what must panic, such as an overflow: nobody needs to be told.
fn quiet_audit() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() != Some("audit") {
            usual(info);
        }
    }));
}
