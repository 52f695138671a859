//! Reads events by the offsets that the index of their aggregate tells, and nothing of the log besides, but what lies between two that are near.

use super::problem::Problem;
use crate::connection::Connection;
use crate::reader::Reader;
use crate::settings::Settings;
use axum::http::StatusCode;
use es_core::broker::BrokerError;
use es_core::envelope::Headers;
use es_core::record::{Place, RecordRef, Role};
use es_core::topology::Topology;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Two events that are no further apart are read in one go.
const NEAR: i64 = 200;
/// So many histories may wait to be read.
const QUEUE: usize = 64;

/// Reads events of one component on a thread of its own, which starts with the first history that is asked for: a connection to Kafka is bound to its thread.
pub(crate) struct Historian {
    settings: Settings,
    connection: Connection,
    topology: Topology,
    wanted: Mutex<Option<SyncSender<Wanted>>>,
}

/// Events of an aggregate that somebody wants to see.
struct Wanted {
    place: Place,
    id: String,
    places: Vec<(u64, i64)>,
    answer: oneshot::Sender<Result<Vec<Value>, Problem>>,
}

impl Historian {
    pub(crate) fn new(settings: &Settings, connection: &Connection, topology: &Topology) -> Self {
        Historian { settings: settings.clone(), connection: connection.clone(), topology: topology.clone(), wanted: Mutex::default() }
    }

    /// The events of these numbers and offsets, as JSON.
    ///
    /// # Errors
    /// When the log cannot be read, or has other events there.
    pub(crate) async fn read(&self, partition: i32, id: &str, places: Vec<(u64, i64)>) -> Result<Vec<Value>, Problem> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let (answer, answered) = oneshot::channel();
        self.hand_over(Wanted { place: Place::new(Role::Events, partition), id: id.to_owned(), places, answer })?;
        answered.await.unwrap_or_else(|_| Err(failed("the thread that reads histories has ended")))
    }

    fn hand_over(&self, wanted: Wanted) -> Result<(), Problem> {
        let mut thread = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = match thread.take() {
            Some(sender) => sender,
            None => self.start()?,
        };
        match sender.try_send(wanted) {
            Ok(()) => {
                *thread = Some(sender);
                Ok(())
            }
            Err(TrySendError::Full(_)) => {
                *thread = Some(sender);
                Err(Problem::too_many(format!("{QUEUE} histories wait to be read: ask again, more slowly")))
            }
            // The next one starts it anew.
            Err(TrySendError::Disconnected(_)) => Err(Problem::unavailable("unreachable", "the log could not be read: ask again")),
        }
    }

    fn start(&self) -> Result<SyncSender<Wanted>, Problem> {
        let (sender, wanted) = sync_channel(QUEUE);
        let (settings, connection, topology) = (self.settings.clone(), self.connection.clone(), self.topology.clone());
        let thread = thread::Builder::new().name(format!("history-{}", topology.component));
        let started = thread.spawn(move || match connection.reader(&settings, &topology) {
            Ok(reader) => serve(reader, &wanted),
            Err(error) => tracing::error!(component = topology.component, %error, "histories cannot be read"),
        });
        started.map(|_| sender).map_err(|e| failed(format!("the system starts no thread for histories: {e}")))
    }
}

fn serve(mut reader: Reader, wanted: &Receiver<Wanted>) {
    while let Ok(Wanted { place, id, places, answer }) = wanted.recv() {
        let events = read(&mut reader, place, &id, &places);
        let broken = events.is_err();
        // Nobody listens any more when the client has gone.
        let _ = answer.send(events.unwrap_or_else(|error| Err(Problem::unavailable("unreachable", error.message))));
        if broken {
            return;
        }
    }
}

/// Reads from event to event: those that are near each other in one go.
fn read(reader: &mut Reader, place: Place, id: &str, places: &[(u64, i64)]) -> Result<Result<Vec<Value>, Problem>, BrokerError> {
    let (mut events, mut before) = (Vec::with_capacity(places.len()), -1);
    while events.len() < places.len() {
        let (_, from) = places[events.len()];
        let found = events.len();
        go_through(reader, place, from, id, places, &mut events, &mut before, NEAR)?;
        if events.len() == found {
            // It lies before its place, where a writer that was fenced since had written between.
            go_through(reader, place, before + 1, id, places, &mut events, &mut before, i64::MAX)?;
        }
        if events.len() == found {
            let (sequence, offset) = places[found];
            let what = format!(
                "event {sequence} of `{}` is not at offset {offset} or before, or is hidden by an open transaction: ask again",
                id.escape_debug()
            );
            return Ok(Err(Problem::unavailable("unreachable", what)));
        }
    }
    Ok(Ok(events))
}

/// Reads on from an offset, taking the events that are wanted, until one is not at its place or the next is further than `near`.
#[allow(clippy::too_many_arguments)]
fn go_through(
    reader: &mut Reader,
    place: Place,
    from: i64,
    id: &str,
    places: &[(u64, i64)],
    events: &mut Vec<Value>,
    before: &mut i64,
    near: i64,
) -> Result<(), BrokerError> {
    let found = events.len();
    reader.read(place, from, |record| {
        let Some((sequence, offset)) = places.get(events.len()) else { return ControlFlow::Break(()) };
        if let Some(event) = show(record, id, *sequence) {
            events.push(event);
            *before = record.offset;
        } else if record.offset >= *offset {
            return ControlFlow::Break(());
        }
        match places.get(events.len()) {
            // Whoever had to go back has found it.
            _ if near == i64::MAX && events.len() > found => ControlFlow::Break(()),
            Some((_, next)) if next.saturating_sub(record.offset) <= near => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    })?;
    Ok(())
}

/// An event as it is answered, if it is that of this number.
fn show(record: &RecordRef<'_>, id: &str, sequence: u64) -> Option<Value> {
    let headers = Headers::read(record).ok().filter(|headers| headers.sequence == sequence && record.key == Some(id.as_bytes()))?;
    let time = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(record.timestamp.max(0) as u64));
    let value = record.value.unwrap_or_default();
    let payload = serde_json::from_slice(value).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(value).into_owned()));
    Some(json!({
        "sequence": sequence,
        "offset": record.offset,
        "time": time.to_string(),
        "id": headers.id,
        "type": headers.name,
        "version": headers.version,
        "causation_id": headers.causation_id,
        "event": payload,
    }))
}

fn failed(why: impl Into<String>) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", why)
}
