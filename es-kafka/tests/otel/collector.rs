//! A collector that keeps what it is sent: OTLP over HTTP/1.1, as binary protobuf.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// What has been sent: all spans, and each metric as it was last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) spans: Vec<Span>,
    pub(crate) metrics: BTreeMap<String, Metric>,
    pub(crate) services: Vec<String>,
}

pub(crate) struct Collector {
    address: SocketAddr,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Collector { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let seen = collector.seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let seen = seen.clone();
                // A connection that its client closes has ended.
                std::thread::spawn(move || while serve(&stream, &seen).is_some() {});
            }
        });
        collector
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.0.lock().unwrap().clone()
    }

    /// Waits until what has been sent is so.
    #[track_caller]
    pub(crate) fn wait_until(&self, limit: Duration, is_so: impl Fn(&Seen) -> bool) {
        let (seen, changed) = &*self.seen;
        let (begun, mut seen) = (Instant::now(), seen.lock().unwrap());
        while !is_so(&seen) {
            let left = limit.saturating_sub(begun.elapsed());
            assert!(!left.is_zero(), "not sent within {limit:?}: {} spans, and of metrics {:?}", seen.spans.len(), seen.metrics.keys());
            seen = changed.wait_timeout(seen, left).unwrap().0;
        }
    }
}

impl Seen {
    /// The sum of all points of a metric.
    pub(crate) fn number(&self, metric: &str) -> Option<u64> {
        Some(self.points(metric)?.iter().map(value).sum())
    }

    /// The sum of those points of a metric that have this label.
    pub(crate) fn numbers(&self, metric: &str, label: &str, is: &str) -> Option<u64> {
        let has = |point: &&NumberDataPoint| {
            point.attributes.iter().any(|found| found.key == label && text(found.value.as_ref().and_then(|v| v.value.as_ref())) == Some(is))
        };
        Some(self.points(metric)?.iter().filter(has).map(value).sum())
    }

    fn points(&self, metric: &str) -> Option<&[NumberDataPoint]> {
        match self.metrics.get(metric)?.data.as_ref()? {
            Data::Sum(sum) => Some(&sum.data_points),
            Data::Gauge(gauge) => Some(&gauge.data_points),
            _ => None,
        }
    }
}

fn value(point: &NumberDataPoint) -> u64 {
    match point.value {
        Some(number_data_point::Value::AsInt(value)) => value as u64,
        Some(number_data_point::Value::AsDouble(value)) => value as u64,
        None => 0,
    }
}

fn text(value: Option<&Value>) -> Option<&str> {
    match value {
        Some(Value::StringValue(text)) => Some(text),
        _ => None,
    }
}

/// Takes one request; `None` when there are no more.
fn serve(stream: &TcpStream, seen: &(Mutex<Seen>, Condvar)) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|bytes| *bytes > 0)?;
        let Some((name, value)) = header.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (all, changed) = seen;
    let mut all = all.lock().unwrap();
    match path.as_str() {
        "/v1/traces" => {
            for sent in ExportTraceServiceRequest::decode(&*body).unwrap().resource_spans {
                all.services.extend(service(sent.resource.as_ref()));
                all.spans.extend(sent.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        "/v1/metrics" => {
            for sent in ExportMetricsServiceRequest::decode(&*body).unwrap().resource_metrics {
                all.services.extend(service(sent.resource.as_ref()));
                all.metrics
                    .extend(sent.scope_metrics.into_iter().flat_map(|scope| scope.metrics).map(|metric| (metric.name.clone(), metric)));
            }
        }
        other => panic!("nothing is sent to {other}"),
    }
    changed.notify_all();
    drop(all);
    let mut out = stream;
    out.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").ok()
}

fn service(resource: Option<&Resource>) -> Option<String> {
    let named = resource?.attributes.iter().find(|found| found.key == "service.name")?;
    text(named.value.as_ref()?.value.as_ref()).map(str::to_owned)
}
