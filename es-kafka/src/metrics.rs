//! What is measured of a running application, in Prometheus' text format.
//!
//! The engine counts in plain numbers, once per batch; each lane publishes them with its status some twenty times a second. What is here looks at them only when
//! it is asked, so that measuring costs the lanes nothing. [`Family`] is one metric, whatever it is rendered for.
//!
//! Names are those of [Prometheus' conventions](https://prometheus.io/docs/practices/naming/): base units, and `_total` for what only grows.
//!
//! ```no_run
//! # fn serve(running: &es_kafka::Running) {
//! let metrics = running.metrics();
//! // Whoever serves `/metrics` answers with this, on any thread and also after the application has stopped.
//! let (content_type, body) = (es_kafka::metrics::CONTENT_TYPE, metrics.render());
//! # }
//! ```

mod details;
mod families;
mod process;

pub use details::LaneDetails;

use crate::settings::Settings;
use crate::status::LaneStatus;
use es_store::DiskUse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The media type of what [`Metrics::render`] returns.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Looks at what an application measures. Clones share it; it holds nothing of the application alive but its last numbers.
#[derive(Clone)]
pub struct Metrics(Arc<Sources>);

struct Sources {
    app: String,
    memory_limit: u64,
    lanes: Vec<Arc<Mutex<LaneStatus>>>,
    disk: Option<DiskUse>,
}

/// The values at one moment.
pub(crate) struct Snapshot {
    pub(crate) app: String,
    pub(crate) lanes: Vec<LaneStatus>,
    /// The bytes of the state folder's database; `None` where there is none, or it is not open.
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) memory_limit: u64,
    /// The memory that the process holds, in bytes; `None` where the system does not tell.
    pub(crate) resident_bytes: Option<u64>,
}

/// One metric, with a sample for each set of labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Its name without the suffixes of unit and kind: `es_commit_duration`.
    pub name: &'static str,
    /// What it tells.
    pub help: &'static str,
    /// What its values are measured in.
    pub unit: Measure,
    /// Whether and how its values may go down.
    pub kind: Kind,
    /// The values.
    pub samples: Vec<Sample>,
}

/// What values are measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Things, which the name names.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// Whether and how values may go down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They never do while the process lives.
    Counter,
    /// They do.
    Gauge,
    /// Each is a distribution, whose counts never do.
    Histogram,
}

/// One value of a [`Family`].
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Names and values of its labels.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: Value,
}

/// The value of a [`Sample`].
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// A distribution.
    Distribution {
        /// The sum of all values, in the family's unit.
        sum: f64,
        /// Upper bounds, ascending, the last one infinite, and how many values lie below each and above the one before.
        buckets: Vec<(f64, u64)>,
    },
}

impl Metrics {
    pub(crate) fn new(settings: &Settings, lanes: Vec<Arc<Mutex<LaneStatus>>>, disk: Option<DiskUse>) -> Self {
        Metrics(Arc::new(Sources { app: settings.app.clone(), memory_limit: settings.memory_limit, lanes, disk }))
    }

    /// All metrics in Prometheus' text format, version 0.0.4.
    pub fn render(&self) -> String {
        render(self.families())
    }

    /// All metrics as they are now.
    pub fn families(&self) -> Vec<Family> {
        families::of(&self.snapshot())
    }

    fn snapshot(&self) -> Snapshot {
        let Sources { app, memory_limit, lanes, disk } = &*self.0;
        Snapshot {
            app: app.clone(),
            lanes: lanes.iter().map(|lane| lane.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect(),
            disk_bytes: disk.as_ref().and_then(DiskUse::bytes),
            memory_limit: *memory_limit,
            resident_bytes: process::resident_bytes(),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("app", &self.0.app).field("lanes", &self.0.lanes.len()).finish_non_exhaustive()
    }
}

pub(crate) fn render(families: Vec<Family>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("a string takes all");
    text
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, unit, kind, samples } in &self.0 {
            let unit = match unit {
                Measure::Count => None,
                Measure::Seconds => Some(Unit::Seconds),
                Measure::Bytes => Some(Unit::Bytes),
            };
            let metric_type = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), metric_type)?;
            for Sample { labels, value } in samples {
                let labels = labels.as_slice();
                let mut sample = family.encode_family(&labels)?;
                match (kind, value) {
                    (Kind::Counter, Value::Number(value)) => sample.encode_counter::<NoLabelSet, _, f64>(value, None)?,
                    (_, Value::Number(value)) => sample.encode_gauge(value)?,
                    (_, Value::Distribution { sum, buckets }) => {
                        let count = buckets.iter().map(|(_, count)| count).sum();
                        sample.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
