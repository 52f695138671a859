//! The clock port.

use std::time::Duration;

/// Time that only moves forward, for time-outs and cadences; never for results.
pub trait Clock {
    /// The time since some fixed moment.
    fn now(&self) -> Duration;
}
