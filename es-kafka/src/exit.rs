//! How a process ends.

use std::process::{ExitCode, Termination};

/// The end of a process, for `main` to return.
///
/// | code | meaning |
/// |---|---|
/// | 0 | all is well |
/// | 1 | it failed; the reason is on stderr |
/// | 2 | bad usage or configuration: nothing was started |
/// | 3 | a verification found a difference |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "return it from `main`"]
pub struct Exit(u8);

impl Exit {
    /// All is well.
    pub const OK: Exit = Exit(0);
    /// It failed.
    pub const FAILED: Exit = Exit(1);
    /// Bad usage or configuration.
    pub const USAGE: Exit = Exit(2);
    /// A verification found a difference.
    pub const DIFFERENCE: Exit = Exit(3);

    /// The process's exit code.
    pub fn code(self) -> u8 {
        self.0
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.0.into()
    }
}
