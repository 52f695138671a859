//! Violations that no port can plant: patches of the engine, in `patches/`.
//!
//! An ordinary run only checks that each patch still fits the engine. What finds each, and after how many seeds, is looked for with
//!
//! ```sh
//! ES_MUTANTS_PATCHES=1000 cargo test -p es-testkit --test mutants patches -- --nocapture
//! ```
//!
//! which builds a copy of the sources with each patch, in a folder of its own that it removes, and runs the simulation, and where that finds nothing
//! the engine's other tests; a minute or so for each. With `ES_MUTANTS_ONLY`, names between commas, it does so
//! for these alone.

use crate::recorded::{HOW, Record, Row};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One patch: a line `Rule <number>: <what it does>`, and a unified diff whose line numbers do not count.
struct Patch {
    name: String,
    rule: u8,
    /// A file below the repository's root, the lines there, and those that replace them.
    hunks: Vec<(String, String, String)>,
}

impl Patch {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a patch can be read");
        let name = path.file_stem().expect("a patch has a name").to_string_lossy().into_owned();
        let rule = text.strip_prefix("Rule ").and_then(|rest| rest.split_once(':')).and_then(|(rule, _)| rule.parse().ok());
        let mut hunks: Vec<(String, String, String)> = Vec::new();
        let mut file = "";
        let mut is_in_hunk = false;
        for line in text.split_inclusive('\n') {
            if let Some(path) = line.strip_prefix("+++ b/") {
                (file, is_in_hunk) = (path.trim_end(), false);
            } else if line.starts_with("@@") {
                hunks.push((file.to_owned(), String::new(), String::new()));
                is_in_hunk = true;
            } else if line.starts_with("--- a/") {
                is_in_hunk = false;
            } else if let (true, Some((_, old, new))) = (is_in_hunk, hunks.last_mut()) {
                let (sign, rest) = line.split_at(1);
                if sign != "+" {
                    old.push_str(rest);
                }
                if sign != "-" {
                    new.push_str(rest);
                }
            }
        }
        assert!(!hunks.is_empty(), "{} changes nothing", path.display());
        Patch { rule: rule.unwrap_or_else(|| panic!("{} does not begin with `Rule <number>:`", path.display())), name, hunks }
    }

    /// The changed files below this root, with their texts.
    fn apply(&self, root: &Path) -> Vec<(PathBuf, String)> {
        let mut changed: Vec<(PathBuf, String)> = Vec::new();
        for (file, old, new) in &self.hunks {
            let path = root.join(file);
            if changed.iter().all(|(known, _)| *known != path) {
                changed.push((path.clone(), fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))));
            }
            let (_, text) = changed.iter_mut().find(|(known, _)| *known == path).expect("it was just read");
            assert_eq!(
                text.matches(old.as_str()).count(),
                1,
                "the patch `{}` does not fit {file} any more: make it anew\n{old}",
                self.name
            );
            *text = text.replacen(old.as_str(), new, 1);
        }
        changed
    }
}

fn patches() -> Vec<Patch> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mutants/patches");
    let files = fs::read_dir(folder).expect("the patches are there").map(|file| file.expect("the folder can be read").path());
    let mut patches: Vec<Patch> =
        files.filter(|path| path.extension().is_some_and(|e| e == "patch")).map(|path| Patch::read(&path)).collect();
    patches.sort_by(|one, other| (one.rule, &one.name).cmp(&(other.rule, &other.name)));
    patches
}

fn record(patches: &[Patch]) -> Record {
    let mutants = patches.iter().map(|patch| (patch.rule, patch.name.clone())).collect();
    Record { file: "patches/recorded.txt", table: "patches", mutants }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in its workspace").to_owned()
}

#[test]
fn every_patch_fits_the_engine_and_is_in_the_record() {
    if std::env::var_os("ES_MUTANTS_PATCHES").is_some() {
        return;
    }
    let patches = patches();
    patches.iter().for_each(|patch| drop(patch.apply(&root())));
    let record = record(&patches);
    record.check();
    for row in record.read() {
        assert_ne!(row.checker, NOTHING, "nothing finds `{}`; {HOW}", row.name);
    }
}

/// In the record, the place of the checker for a patch that no test notices.
const NOTHING: &str = "nothing";

#[test]
fn every_patch_is_found() {
    let Some(seeds) = crate::variable("ES_MUTANTS_PATCHES") else { return };
    let only = std::env::var("ES_MUTANTS_ONLY").ok();
    let is_wanted = |patch: &&Patch| only.as_ref().is_none_or(|names| names.split(',').any(|name| name == patch.name));
    let copy = Copy::make();
    let patches = patches();
    let mut missed = Vec::new();
    for patch in patches.iter().filter(is_wanted) {
        let originals = copy.patch(patch);
        let (checker, seed) = copy.find(seeds);
        copy.restore(&originals);
        println!("{}: found by {checker}, seed {seed:?}", patch.name);
        if checker == NOTHING {
            missed.push(&*patch.name);
        }
        record(&patches).write(Row { rule: patch.rule, name: patch.name.clone(), checker, seed });
    }
    assert!(missed.is_empty(), "nothing finds {missed:?}");
}

/// A copy of the sources that can be patched; removed when it is dropped.
struct Copy(PathBuf);

impl Copy {
    fn make() -> Self {
        let to = std::env::temp_dir().join(format!("es-mutants-{}", std::process::id()));
        copy(&root(), &to);
        Copy(to)
    }

    /// Patches it, and returns what was there.
    fn patch(&self, patch: &Patch) -> Vec<(PathBuf, String)> {
        let changed = patch.apply(&self.0);
        let originals = changed.iter().map(|(path, _)| (path.clone(), fs::read_to_string(path).expect("it was just read"))).collect();
        self.restore(&changed);
        originals
    }

    fn restore(&self, files: &[(PathBuf, String)]) {
        files.iter().for_each(|(path, text)| fs::write(path, text).expect("the copy can be written"));
    }

    /// The checker that finds what is planted in it, and after which seed; or the test.
    fn find(&self, seeds: u64) -> (String, Option<u64>) {
        let simulation = self.test(&["--package=es-testkit", "--test=mutants", "--", "--exact", "nothing_planted"], seeds);
        if let Some((_, found)) = simulation.split_once("found by seed ") {
            let mut fields = found.splitn(3, ": ");
            let seed = fields.next().and_then(|seed| seed.parse().ok());
            return (fields.next().unwrap_or_default().to_owned(), seed);
        }
        for tests in [&["--package=es-testkit", "--test=engine", "--test=task"][..], &["--package=es-core", "--lib"]] {
            let output = self.test(tests, seeds);
            if let Some(failed) = output.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED")) {
                return (format!("the test `{failed}`"), None);
            }
        }
        (NOTHING.to_owned(), None)
    }

    /// What `cargo test` says.
    fn test(&self, arguments: &[&str], seeds: u64) -> String {
        let output = Command::new(env!("CARGO"))
            .current_dir(&self.0)
            .args(["test", "--no-fail-fast", "--config", "profile.dev.opt-level=1", "--config", "profile.dev.debug=false"])
            .args(arguments)
            .env("CARGO_TARGET_DIR", self.0.join("target"))
            .env("ES_MUTANTS_PATCHED", seeds.to_string())
            .env("RUST_BACKTRACE", "0")
            .env_remove("ES_MUTANTS_PATCHES")
            .output()
            .expect("cargo can be started");
        let text = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("could not compile"), "the patched engine does not compile:\n{text}");
        text
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What is left lies among the temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies sources: all but what is built, and hidden files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a temporary folder can be made");
    for file in fs::read_dir(from).expect("the sources can be read") {
        let path = file.expect("the sources can be read").path();
        let name = path.file_name().expect("a file has a name");
        if name == "target" || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).expect("a file can be copied")),
        }
    }
}
