//! What a killed process leaves behind: a prefix of its writes, with all that it had reported complete.

mod writing;

use std::time::{Duration, Instant};
use writing::{TASKS, Writing, open, prefix};

const ROUNDS: u64 = 5;

#[test]
fn kill_dash_nine_leaves_a_prefix_that_holds_all_that_was_complete() {
    let directory = writing::folder();
    let mut last = [0; TASKS];
    for round in 0..ROUNDS {
        let mut child = Writing::start(directory.path(), Vec::new());
        // The time starts with the first batch.
        assert!(child.until(|child| child.complete > [0; TASKS]), "{:?}", child.refusal);
        let kill_at = Instant::now() + Duration::from_millis(100 + 150 * round);
        child.until(|_| Instant::now() >= kill_at);
        let reported = child.kill().complete;
        let found = prefix(&open(directory.path(), false).unwrap()).unwrap();
        for task in 0..TASKS {
            assert!(found[task] >= reported[task], "batch {} was reported complete, and the store holds {}", reported[task], found[task]);
            assert!(reported[task] > last[task], "the child wrote nothing, so the kill proves nothing");
        }
        last = found;
    }
}

/// Not a test of its own: the test above starts it as another process, and kills it.
#[test]
#[ignore = "runs as the child of the kill test"]
fn the_child_that_writes() {
    writing::run_child();
}
