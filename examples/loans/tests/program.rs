//! The program on the broker in memory.

#![allow(missing_docs)]

mod common;

use common::{DECLINED, GRANTED, has_rows, loans, log};
use std::io::Write;
use std::path::Path;
use std::process::Output;

fn run(text: &str) -> Output {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    loans(file.path()).output().unwrap()
}

#[test]
fn a_log_is_fed_and_counted() {
    let output = run(&log([&GRANTED[..], &DECLINED[..], &GRANTED[..]]));
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{table}\n{}", String::from_utf8_lossy(&output.stderr));
    has_rows(
        &table,
        &[
            "traces (applications) 3",
            "events 27",
            "COMPLETE 23",
            "START 2",
            "SCHEDULE 2",
            "distinct sequences of (activity, transition) 2",
            "A_DECLINED 1",
            "O_ACCEPTED 2",
            "W_Completeren aanvraag 6",
            "sum of AMOUNT_REQ 3,000",
            "open work items 0",
            "No event is there twice, none is missing, and the store is the fold of the log.",
        ],
    );
}

#[test]
fn an_entry_that_breaks_a_rule_is_rejected_and_counted() {
    let mut illegal = GRANTED;
    illegal.swap(8, 9);
    let output = run(&log([&illegal[..], &DECLINED[..]]));
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{table}");
    has_rows(&table, &["events 11", "O_SENT 0", "WRONG: 4 entries of the file are not in the events topic"]);
}

#[test]
fn rubbish_is_refused_with_file_and_line() {
    for (text, message) in [
        ("rubbish".to_owned(), "line 1: there is no <log>"),
        (log([&DECLINED[..]]).replace("A_DECLINED", "A_LOST"), "line 6: trace `0`: `A_LOST` is no activity"),
        (log([&DECLINED[..]]).replace("</log>", ""), "the file ends within the <log>"),
        (log([&DECLINED[..], &DECLINED[..]]).replace("value=\"1\"", "value=\"0\""), "line 8: a second trace is named `0`"),
    ] {
        let output = run(&text);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("error: /") && error.contains(message), "{error}");
    }
    let error = String::from_utf8(loans(Path::new("/nowhere.xes")).output().unwrap().stderr).unwrap();
    assert!(error.contains("/nowhere.xes"), "{error}");
}
