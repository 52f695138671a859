//! The program, and event logs to feed it.

#![allow(dead_code, unreachable_pub)]

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// The life of an application that is granted: 12 entries.
pub const GRANTED: [(&str, &str); 12] = [
    ("A_SUBMITTED", "COMPLETE"),
    ("A_PARTLYSUBMITTED", "COMPLETE"),
    ("A_PREACCEPTED", "COMPLETE"),
    ("W_Completeren aanvraag", "SCHEDULE"),
    ("W_Completeren aanvraag", "START"),
    ("A_ACCEPTED", "COMPLETE"),
    ("A_FINALIZED", "COMPLETE"),
    ("O_SELECTED", "COMPLETE"),
    ("O_CREATED", "COMPLETE"),
    ("O_SENT", "COMPLETE"),
    ("W_Completeren aanvraag", "COMPLETE"),
    ("O_ACCEPTED", "COMPLETE"),
];

/// The life of an application that is declined at once: 3 entries.
pub const DECLINED: [(&str, &str); 3] = [("A_SUBMITTED", "COMPLETE"), ("A_PARTLYSUBMITTED", "COMPLETE"), ("A_DECLINED", "COMPLETE")];

/// A log of these applications, each asking for 1000.
pub fn log<'a>(lives: impl IntoIterator<Item = &'a [(&'a str, &'a str)]>) -> String {
    let mut log = String::from("<?xml version=\"1.0\"?>\n<log>\n");
    for (case, life) in lives.into_iter().enumerate() {
        writeln!(log, "<trace><string key=\"concept:name\" value=\"{case}\"/><string key=\"AMOUNT_REQ\" value=\"1000\"/>").unwrap();
        for (second, (activity, transition)) in life.iter().enumerate() {
            writeln!(
                log,
                "<event><string key=\"concept:name\" value=\"{activity}\"/><string key=\"lifecycle:transition\" value=\"{transition}\"/>\
                 <date key=\"time:timestamp\" value=\"2012-01-01T10:00:{second:02}.000+01:00\"/></event>"
            )
            .unwrap();
        }
        log.push_str("</trace>\n");
    }
    log.push_str("</log>\n");
    log
}

/// The program with this log, in an environment without settings.
pub fn loans(log: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loans"));
    command.env_clear().arg("--xes").arg(log);
    command
}

/// Panics unless the table has these rows.
#[track_caller]
pub fn has_rows(output: &str, rows: &[&str]) {
    let shown: Vec<String> = output.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for row in rows {
        assert!(shown.iter().any(|line| line == row), "`{row}` is missing from\n{output}");
    }
}
