//! What a program does once: exporters as the standard variables say, a layer for its subscriber, and a last export at its end.

use super::observe;
use crate::metrics::Metrics;
use es_core::trace::TARGET;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

const NAME: &str = "es-kafka";

/// The exporters of a program. Dropping them exports what is left, for as long as the exporters' own time-outs say.
#[derive(Default)]
pub(crate) struct Exporters {
    spans: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
}

impl Exporters {
    /// Those that the environment names a collector for.
    ///
    /// # Errors
    /// What is wrong with a variable.
    pub(crate) fn from_environment(app: &str) -> Result<Self, String> {
        let resource = || {
            // The variables OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before the application's name.
            let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
                || std::env::var("OTEL_RESOURCE_ATTRIBUTES")
                    .is_ok_and(|all| all.split(',').any(|one| one.trim().starts_with("service.name=")));
            let resource = Resource::builder();
            if named { resource.build() } else { resource.with_service_name(app.to_owned()).build() }
        };
        let spans = wanted("TRACES").then(|| {
            let exporter = SpanExporter::builder().with_http().build().map_err(|e| format!("the exporter of spans: {e}"))?;
            Ok::<_, String>(SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter).build())
        });
        let metrics = wanted("METRICS").then(|| {
            let exporter = MetricExporter::builder().with_http().build().map_err(|e| format!("the exporter of metrics: {e}"))?;
            Ok::<_, String>(SdkMeterProvider::builder().with_resource(resource()).with_periodic_exporter(exporter).build())
        });
        Ok(Exporters { spans: spans.transpose()?, metrics: metrics.transpose()? })
    }

    /// A layer that takes the engine's spans, and nothing else.
    pub(crate) fn layer<S: tracing::Subscriber + for<'a> LookupSpan<'a>>(&self) -> Option<impl Layer<S> + use<S>> {
        let tracer = self.spans.as_ref()?.tracer(NAME);
        let layer =
            tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false).with_tracked_inactivity(false);
        Some(layer.with_filter(Targets::new().with_target(TARGET, LevelFilter::DEBUG)))
    }

    /// Exports what is measured from now on.
    pub(crate) fn observe(&self, metrics: &Metrics) {
        if let Some(provider) = &self.metrics {
            observe(metrics, &provider.meter(NAME));
        }
    }
}

impl Drop for Exporters {
    fn drop(&mut self) {
        let ends = [self.spans.take().map(|spans| spans.shutdown()), self.metrics.take().map(|metrics| metrics.shutdown())];
        for error in ends.into_iter().flatten().filter_map(Result::err) {
            tracing::warn!(%error, "the last export to the collector failed");
        }
    }
}

/// Whether a collector is named for this signal, and nothing switches it off.
fn wanted(signal: &str) -> bool {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable(&format!("OTEL_{signal}_EXPORTER")).is_some_and(|value| value == "none");
    let named = variable("OTEL_EXPORTER_OTLP_ENDPOINT").or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")));
    named.is_some() && !off
}
