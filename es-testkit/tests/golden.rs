//! Golden files: made once, and read for ever.

use es_core::{Aggregate, event};
use es_testkit::laws::{Law, any_event, check_table};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[event(aggregate = "paper")]
#[derive(Clone, Debug, PartialEq)]
enum PaperEvent {
    #[event(version = 2, upcast(1 = WrittenV1))]
    Written {
        text: String,
        pages: Option<u32>,
    },
    Burnt,
}

#[derive(Deserialize)]
struct WrittenV1 {
    text: String,
}
impl From<WrittenV1> for Written {
    fn from(old: WrittenV1) -> Self {
        Written { text: old.text, pages: None }
    }
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = PaperEvent, version = 1)]
struct Paper {
    #[fold(Written => count, Burnt => set(0))]
    sheets: u32,
}
/// An empty directory of this test's own, and its `tests/golden/paper`.
fn crate_dir(test: &str) -> (String, PathBuf) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("golden-{test}"));
    let goldens = dir.join("tests/golden/paper");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&goldens).unwrap();
    (dir.to_str().unwrap().to_owned(), goldens)
}

fn law(crate_dir: &str) -> Result<(), String> {
    let panic = std::panic::catch_unwind(|| check_table::<Paper>(Law::EveryEventHasAGolden, crate_dir, any_event()));
    panic.map_err(|panic| *panic.downcast::<String>().expect("a formatted message"))
}

fn write_all(goldens: &Path) {
    for (file, json) in
        [("Written.v1.json", r#"{"text":"a"}"#), ("Written.v2.json", r#"{"text":"a","pages":3}"#), ("Burnt.v1.json", "{}\n")]
    {
        std::fs::write(goldens.join(file), json).unwrap();
    }
}

#[test]
fn what_is_missing_is_named_with_the_way_to_make_it() {
    let (dir, _) = crate_dir("missing");
    assert_eq!(
        law(&dir).unwrap_err(),
        "law broken: every event has a golden
`Written` version 1: tests/golden/paper/Written.v1.json is missing, and this program writes version 2 only. Take it from version control, or the value of such an event from the topic
`Written` version 2: tests/golden/paper/Written.v2.json is missing. Make it with `ES_UPDATE_GOLDENS=1 cargo test`, and commit it
`Burnt` version 1: tests/golden/paper/Burnt.v1.json is missing. Make it with `ES_UPDATE_GOLDENS=1 cargo test`, and commit it"
    );
}

#[test]
fn every_version_can_be_read() {
    let (dir, goldens) = crate_dir("complete");
    write_all(&goldens);
    assert_eq!(law(&dir), Ok(()));
}

#[test]
fn a_golden_that_cannot_be_read_or_loses_something_is_found() {
    let check = |test: &str, file: &str, json: &str, expected: &str| {
        let (dir, goldens) = crate_dir(test);
        write_all(&goldens);
        std::fs::write(goldens.join(file), json).unwrap();
        let finding = law(&dir).unwrap_err();
        assert!(finding.contains(&format!("tests/golden/paper/{file} {expected}")), "{finding}");
    };
    check("old", "Written.v1.json", r#"{"txt":"a"}"#, "cannot be read any more: `Written` cannot be read: missing field `text`");
    check(
        "renamed",
        "Written.v2.json",
        r#"{"text":"a","sheets":3}"#,
        "holds `sheets`, which is lost when the event is read and written again",
    );
    check("orphan", "Torn.v1.json", "{}", "holds an event that was written once and is not read any more");
}

#[test]
fn missing_files_are_made_when_asked() {
    let (dir, goldens) = crate_dir("made");
    std::fs::write(goldens.join("Written.v1.json"), r#"{"text":"a"}"#).unwrap();
    let made = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "the_law_in_a_process_of_its_own"])
        .env("ES_UPDATE_GOLDENS", "1")
        .env("CRATE_DIR", &dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    assert_eq!(law(&dir), Ok(()));
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(goldens.join("Written.v2.json")).unwrap()).unwrap();
    assert!(written["pages"].is_u64(), "the golden says as much as it can: {written}");
}

#[test]
#[ignore = "run by `missing_files_are_made_when_asked`, with its environment"]
fn the_law_in_a_process_of_its_own() {
    law(&std::env::var("CRATE_DIR").unwrap()).unwrap();
}
