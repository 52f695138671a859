//! OpenTelemetry: the engine's spans and what is measured, sent to a collector by OTLP over HTTP.
//!
//! A program of [`App::run`](crate::App::run) exports both when `OTEL_EXPORTER_OTLP_ENDPOINT` (or the same with `TRACES` or `METRICS` in it) names a collector; the
//! [standard variables](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/) tell the rest, such as `OTEL_SERVICE_NAME`,
//! `OTEL_TRACES_SAMPLER` and `OTEL_METRIC_EXPORT_INTERVAL`. The collector is one beside the program, as `http://localhost:4318`: TLS is its own affair.
//!
//! A program with a subscriber and exporters of its own gives its meter to [`observe`]; its OpenTelemetry layer gets the spans of the target
//! [`es_core::trace::TARGET`] if its filter lets them through at debug level.

use crate::metrics::{Family, Kind, Measure, Metrics, Sample, Value};
use es_core::trace::{TraceContext, Tracer};
use opentelemetry::metrics::{Histogram, Meter};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

#[cfg(feature = "cli")]
mod exporters;

#[cfg(feature = "cli")]
pub(crate) use exporters::Exporters;

/// Makes a caller's span the parent of one of the engine's, where the subscriber has an OpenTelemetry layer.
pub(crate) fn tracer() -> Tracer {
    Tracer(adopt)
}

fn adopt(span: &Span, caller: TraceContext<'_>) -> Option<String> {
    span.set_parent(Context::new().with_remote_span_context(context_of(caller)?)).ok()?;
    let context = span.context();
    let own = context.span().span_context().clone();
    // What is not recorded hands the caller's context on as it came.
    (own.is_valid() && own.is_sampled()).then(|| format!("00-{}-{}-{:02x}", own.trace_id(), own.span_id(), own.trace_flags().to_u8()))
}

fn context_of(caller: TraceContext<'_>) -> Option<SpanContext> {
    let trace = TraceId::from_hex(&caller.parent[3..35]).ok()?;
    let span = SpanId::from_hex(&caller.parent[36..52]).ok()?;
    let flags = if caller.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let state = caller.state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    Some(SpanContext::new(trace, span, flags, true, state))
}

/// Makes an instrument of this meter for each metric. Names are the Prometheus ones with dots and without units: `es.commit.duration`, in seconds. They are looked
/// at when the meter's reader collects.
pub fn observe(metrics: &Metrics, meter: &Meter) {
    let distributions = Distributions::new(metrics, meter);
    for (at, Family { name, help, unit, kind, .. }) in metrics.families().into_iter().enumerate() {
        let source = metrics.clone();
        let samples = move || source.families().into_iter().nth(at).map(|family| family.samples).unwrap_or_default();
        // The first instrument that is asked at a collection records the distributions too: the API asks nobody for those.
        let distributions = (at == 0).then(|| distributions.clone());
        match kind {
            Kind::Counter => {
                let counter = meter.u64_observable_counter(named(name)).with_description(help).with_unit(unit_of(unit));
                counter.with_callback(move |observer| each(samples(), |value, labels| observer.observe(value, labels))).build();
            }
            Kind::Gauge => {
                let gauge = meter.u64_observable_gauge(named(name)).with_description(help).with_unit(unit_of(unit));
                let observe = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
                    distributions.iter().for_each(|distributions| distributions.record());
                    each(samples(), |value, labels| observer.observe(value, labels));
                };
                gauge.with_callback(observe).build();
            }
            Kind::Histogram => {}
        }
    }
}

fn each(samples: Vec<Sample>, mut observe: impl FnMut(u64, &[KeyValue])) {
    for Sample { labels, value } in samples {
        if let Value::Number(value) = value {
            observe(value, &key_values(&labels));
        }
    }
}

/// Histograms of the meter, and what they have been told already.
#[derive(Clone)]
struct Distributions {
    metrics: Metrics,
    instruments: Arc<BTreeMap<&'static str, Histogram<f64>>>,
    told: Arc<Mutex<BTreeMap<Key, Told>>>,
}

/// A metric and its labels.
type Key = (&'static str, Vec<(&'static str, String)>);

/// Counts by bucket, and the sum.
#[derive(Default)]
struct Told {
    counts: Vec<u64>,
    sum: f64,
}

impl Distributions {
    fn new(metrics: &Metrics, meter: &Meter) -> Self {
        let mut instruments = BTreeMap::new();
        for Family { name, help, unit, samples, .. } in metrics.families() {
            if let Some(Sample { value: Value::Distribution { buckets, .. }, .. }) = samples.first() {
                let bounds = buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite()).collect();
                let histogram = meter.f64_histogram(named(name)).with_description(help).with_unit(unit_of(unit)).with_boundaries(bounds);
                instruments.insert(name, histogram.build());
            }
        }
        Distributions { metrics: metrics.clone(), instruments: Arc::new(instruments), told: Arc::default() }
    }

    /// Tells the histograms what has come since the last time. They take single values, and the engine has counted by bucket: each is told so many values of each
    /// bucket, laid so that they add up to the true sum.
    fn record(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for Family { name, samples, .. } in self.metrics.families() {
            let Some(histogram) = self.instruments.get(name) else { continue };
            for Sample { labels, value } in samples {
                let Value::Distribution { sum, buckets } = value else { continue };
                let attributes = key_values(&labels);
                let before = told.entry((name, labels)).or_default();
                before.counts.resize(buckets.len(), 0);
                let new: Vec<(f64, u64)> =
                    buckets.iter().zip(&before.counts).map(|((b, count), old)| (*b, count.saturating_sub(*old))).collect();
                for (value, times) in laid(&new, sum - before.sum) {
                    (0..times).for_each(|_| histogram.record(value, &attributes));
                }
                *before = Told { counts: buckets.into_iter().map(|(_, count)| count).collect(), sum };
            }
        }
    }
}

/// For each bucket, by its upper bound, a value that lies in it, so that all of them add up to `sum`.
fn laid(buckets: &[(f64, u64)], sum: f64) -> Vec<(f64, u64)> {
    let below: Vec<f64> = std::iter::once(0.0).chain(buckets.iter().map(|(bound, _)| *bound)).collect();
    let least: f64 = buckets.iter().zip(&below).map(|((_, count), low)| low * *count as f64).sum();
    let above = (sum - least).max(0.0);
    let ranges =
        buckets.iter().zip(&below).map(|((bound, count), low)| (*low, if bound.is_finite() { *bound } else { low + above }, *count));
    let ranges: Vec<_> = ranges.collect();
    let room: f64 = ranges.iter().map(|(low, high, count)| (high - low) * *count as f64).sum();
    let part = if room > 0.0 { (above / room).clamp(0.0, 1.0) } else { 0.0 };
    ranges.into_iter().filter(|(_, _, count)| *count > 0).map(|(low, high, count)| (low + part * (high - low), count)).collect()
}

fn key_values(labels: &[(&'static str, String)]) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| KeyValue::new(*name, value.clone())).collect()
}

fn named(name: &str) -> String {
    name.replace('_', ".")
}

fn unit_of(unit: Measure) -> &'static str {
    match unit {
        Measure::Count => "1",
        Measure::Seconds => "s",
        Measure::Bytes => "By",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_in_their_buckets_and_add_up() {
        let check = |buckets: &[(f64, u64)], sum: f64| {
            let values = laid(buckets, sum);
            assert!((values.iter().map(|(value, count)| value * *count as f64).sum::<f64>() - sum).abs() < 1e-9, "{values:?}");
            let mut low = 0.0;
            let mut values = values.into_iter();
            for (bound, count) in buckets {
                if *count > 0 {
                    let (value, times) = values.next().unwrap();
                    assert!(times == *count && value > low && value <= *bound, "{value} is not in {low}..={bound}");
                }
                low = *bound;
            }
        };
        check(&[(1.0, 2), (10.0, 1), (f64::INFINITY, 0)], 7.0);
        check(&[(1.0, 0), (10.0, 3), (f64::INFINITY, 2)], 60.0);
        check(&[(1.0, 4), (10.0, 0), (f64::INFINITY, 1)], 2.0 + 300.0);
        assert_eq!(laid(&[(1.0, 0), (f64::INFINITY, 0)], 0.0), []);
    }

    #[test]
    fn a_callers_context_is_a_remote_parent() {
        let caller = TraceContext::read(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(b"congo=t61")).unwrap();
        let context = context_of(caller).unwrap();
        assert!(context.is_remote() && context.is_sampled() && context.is_valid());
        assert_eq!(context.trace_state().get("congo"), Some("t61"));
    }
}
