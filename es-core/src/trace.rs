//! Traces: the engine takes the caller's trace context from a command's headers, gives it to what the command leaves, and makes spans.
//!
//! [W3C trace context](https://www.w3.org/TR/trace-context/): `traceparent` names a trace and the span that caused the command, and whether the trace is
//! recorded. Spans are those of the `tracing` crate, target [`TARGET`], level debug:
//!
//! - `batch`: from its first input to its commit, or until it was given up;
//! - `command`: the same for a command whose trace is recorded. The batch follows from each of them.
//!
//! Without a subscriber that wants them neither is made, and the caller's context is handed on as it came. A [`Tracer`] ties a command's span to the caller's
//! trace, which `tracing` itself does not know, and hands on the span's own context instead: so what reads the events goes on below the command.

use tracing::Span;
use tracing::field::Empty;

/// The target of the engine's spans.
pub const TARGET: &str = "es_core::trace";

/// A longer `tracestate` is not handed on: vendors need carry no more.
const LONGEST_STATE: usize = 512;

/// A trace context, valid by its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext<'a> {
    /// `traceparent`: `00-<trace id>-<span id>-<flags>`.
    pub parent: &'a str,
    /// `tracestate`.
    pub state: Option<&'a str>,
}

impl<'a> TraceContext<'a> {
    /// Reads both headers; `None` when `traceparent` is not valid. A `tracestate` that is not ASCII or longer than 512 bytes is left out.
    pub fn read(parent: &'a [u8], state: Option<&'a [u8]>) -> Option<Self> {
        let parent = std::str::from_utf8(parent).ok()?;
        let [version, trace, span, flags] = fields(parent)?;
        let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let zero = |text: &str| text.bytes().all(|b| b == b'0');
        if ![version, trace, span, flags].into_iter().all(hex) || version == "ff" || zero(trace) || zero(span) {
            return None;
        }
        // A later version may have more behind; what this one knows is kept.
        if parent.len() > 55 && (version == "00" || parent.as_bytes()[55] != b'-') {
            return None;
        }
        let state = state.filter(|state| state.len() <= LONGEST_STATE && state.is_ascii());
        Some(TraceContext { parent: &parent[..55], state: state.and_then(|state| std::str::from_utf8(state).ok()) })
    }

    /// Whether the caller records this trace.
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(&self.parent[53..55], 16).is_ok_and(|flags| flags & 1 == 1)
    }
}

fn fields(parent: &str) -> Option<[&str; 4]> {
    let dashes = parent.is_ascii() && parent.len() >= 55 && [2, 35, 52].into_iter().all(|at| parent.as_bytes()[at] == b'-');
    dashes.then(|| [&parent[..2], &parent[3..35], &parent[36..52], &parent[53..55]])
}

/// Ties spans to the traces of callers. By default it does not.
#[derive(Debug, Clone, Copy)]
pub struct Tracer(pub fn(&Span, TraceContext<'_>) -> Option<String>);

impl Default for Tracer {
    fn default() -> Self {
        Tracer(|_, _| None)
    }
}

impl Tracer {
    /// Makes the caller's span the parent of this one, and returns this one's `traceparent`; `None` where nothing records it.
    pub fn adopt(&self, span: &Span, caller: TraceContext<'_>) -> Option<String> {
        (self.0)(span, caller)
    }
}

/// The spans of a batch that is not committed yet.
#[derive(Debug)]
pub(crate) struct BatchSpans {
    batch: Span,
    commands: Vec<Span>,
}

impl BatchSpans {
    pub(crate) fn none() -> Self {
        BatchSpans { batch: Span::none(), commands: Vec::new() }
    }

    /// The first input of a batch is about to be processed.
    pub(crate) fn begin(component: &str, number: u64) -> Self {
        let batch = tracing::debug_span!(
            target: TARGET,
            parent: None,
            "batch",
            component,
            number,
            inputs = Empty,
            outcome = Empty,
            cause = Empty,
            otel.kind = "internal",
            otel.status_code = Empty,
        );
        BatchSpans { batch, commands: Vec::new() }
    }

    /// Takes over the spans of commands that were processed for it.
    pub(crate) fn take(&mut self, commands: &mut Vec<Span>) {
        commands.iter().for_each(|command| {
            self.batch.follows_from(command);
        });
        self.commands.append(commands);
    }

    /// It was committed.
    pub(crate) fn committed(self, inputs: usize) {
        self.batch.record("inputs", inputs);
        self.end("committed", None);
    }

    /// It was given up, for this cause; its inputs are processed again.
    pub(crate) fn given_up(self, outcome: &'static str, cause: &'static str) {
        self.end(outcome, Some(cause));
    }

    fn end(self, outcome: &'static str, cause: Option<&'static str>) {
        for span in self.commands.iter().chain([&self.batch]) {
            span.record("outcome", outcome);
            if let Some(cause) = cause {
                span.record("cause", cause);
                span.record("otel.status_code", "ERROR");
            }
        }
    }
}

/// The span of a command whose trace is recorded; a disabled one where nobody wants it.
pub(crate) fn command(topic: &str, partition: i32, offset: i64, aggregate_id: &str) -> Span {
    tracing::debug_span!(
        target: TARGET,
        parent: None,
        "command",
        messaging.system = "kafka",
        messaging.operation.type = "process",
        messaging.destination.name = topic,
        messaging.destination.partition.id = partition,
        messaging.kafka.offset = offset,
        messaging.kafka.message.key = aggregate_id,
        command_id = Empty,
        result = Empty,
        outcome = Empty,
        cause = Empty,
        otel.kind = "consumer",
        otel.status_code = Empty,
    )
}

/// The command became a dead letter, for this cause.
pub(crate) fn failed(span: &Span, cause: &'static str) {
    span.record("result", cause);
    span.record("otel.status_code", "ERROR");
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_context_is_read_and_tells_whether_it_is_recorded() {
        let read =
            |text: &'static str| TraceContext::read(text.as_bytes(), Some(b"congo=t61")).map(|c| (c.parent, c.state, c.is_sampled()));
        assert_eq!(read(TRACE), Some((TRACE, Some("congo=t61"), true)));
        let plain = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02";
        assert_eq!(read(plain), Some((plain, Some("congo=t61"), false)));
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-more";
        assert_eq!(read(later), Some((&later[..55], Some("congo=t61"), true)));
    }

    #[test]
    fn what_is_no_context_is_none() {
        for text in [
            "",
            "00-1-2-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e47\u{e9}-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::read(text.as_bytes(), None), None, "{text}");
        }
        assert_eq!(TraceContext::read(&[0xff; 55], None), None);
    }

    #[test]
    fn a_state_that_is_too_long_or_no_text_is_left_out() {
        let state = |state: &[u8]| TraceContext::read(TRACE.as_bytes(), Some(state)).unwrap().state.map(str::len);
        assert_eq!((state(&[b'a'; 512]), state(&[b'a'; 513]), state(b"\xff=1")), (Some(512), None, None));
    }
}
