//! Benches of the parts. `cargo bench -p es-benches` runs them all; quote ratios and medians of one run, not single times.
