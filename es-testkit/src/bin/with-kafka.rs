//! Runs a command beside a real Kafka: `with-kafka -- cargo test`.
//!
//! Starts one broker, tells the command of it through `ES_TEST_BOOTSTRAP_SERVERS` and `ES_KAFKA_HOME`, and ends it after the command, whose exit
//! code it passes on. SIGINT, SIGTERM and SIGHUP end the command, with all that it started in its process group, and the broker.

use es_testkit::kafka_server::{KafkaError, Server, ServerOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

/// How long a command may take to end after a signal.
const GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).skip_while(|argument| argument == "--");
    let Some(program) = arguments.next() else {
        eprintln!(
            "usage: with-kafka -- COMMAND [ARGUMENT]...\nRuns COMMAND beside a Kafka broker, whose address is in ES_TEST_BOOTSTRAP_SERVERS."
        );
        return ExitCode::from(2);
    };
    let mut signals = match Signals::new([SIGHUP, SIGINT, SIGTERM]) {
        Ok(signals) => signals,
        Err(error) => return refuse(format_args!("cannot listen to signals: {error}")),
    };
    let mut command = Command::new(&program);
    // A group of its own, so that a signal reaches what the command itself starts.
    command.args(arguments).process_group(0);
    let server = match Server::start(ServerOptions::default()) {
        Ok(server) => {
            eprintln!("with-kafka: Kafka listens at {}", server.bootstrap_servers());
            command.env("ES_TEST_BOOTSTRAP_SERVERS", server.bootstrap_servers()).env("ES_KAFKA_HOME", server.home());
            Some(server)
        }
        Err(KafkaError::Missing(what)) if std::env::var("ES_REQUIRE_BROKER").as_deref() != Ok("1") => {
            eprintln!("with-kafka: no Kafka: {what}.\nwith-kafka: the command runs without it.");
            None
        }
        Err(error) => return refuse(format_args!("no Kafka: {error}")),
    };
    let code = match command.spawn() {
        Ok(child) => wait(child, &mut signals),
        Err(error) => refuse(format_args!("cannot run {}: {error}", program.display())),
    };
    drop(server);
    code
}

fn refuse(why: std::fmt::Arguments) -> ExitCode {
    eprintln!("with-kafka: {why}");
    ExitCode::FAILURE
}

/// Waits for the command's end, or ends it after a signal.
fn wait(mut child: Child, signals: &mut Signals) -> ExitCode {
    let mut signalled: Option<(i32, Instant)> = None;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return signalled.map_or_else(|| exit_code(status), |(signal, _)| ExitCode::from(128 + signal as u8)),
            Ok(None) => {}
            Err(error) => return refuse(format_args!("lost the command: {error}")),
        }
        if let Some(signal) = signals.pending().next() {
            signal_group(&child, signal);
            signalled.get_or_insert((signal, Instant::now()));
        }
        if signalled.is_some_and(|(_, since)| since.elapsed() > GRACE) {
            signal_group(&child, 9);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends a signal to the command and to what it started.
fn signal_group(child: &Child, signal: i32) {
    // The shell's own kill: the standard library has none for groups. It fails only when the group has already ended.
    let _ = Command::new("/bin/sh").args(["-c", &format!("kill -{signal} -{}", child.id())]).status();
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.unwrap_or(1) as u8)
}
