//! What fuzzing looks for holds for all that it has found so far, and for its seeds. `ES_UPDATE_CORPUS=1` writes the seeds anew.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, missing_docs)]
mod properties;

use properties::{PROPERTIES, seeds};
use std::fs;
use std::path::Path;

#[test]
fn every_property_holds_for_its_corpus() {
    for (name, property) in PROPERTIES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        for file in files {
            let bytes = fs::read(&file).unwrap();
            let outcome = std::panic::catch_unwind(|| property(&bytes));
            assert!(outcome.is_ok(), "`{name}` does not hold for {}", file.display());
        }
    }
}

#[test]
fn the_seeds_are_those_that_are_made() {
    let update = std::env::var("ES_UPDATE_CORPUS").is_ok_and(|value| value == "1");
    for (property, name, bytes) in seeds() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(property).join(name);
        if update {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, &bytes).unwrap();
        }
        let found = fs::read(&file).unwrap_or_default();
        assert!(found == bytes, "{} is another; ES_UPDATE_CORPUS=1 writes it anew", file.display());
    }
}
