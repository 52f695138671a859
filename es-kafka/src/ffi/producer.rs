//! A producer whose callbacks are served by its own calls.

use super::{GroupMetadata, NativeError, log_line, text};
use crate::client::Logs;
use es_core::record::RecordRef;
use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::bindings::{
    RD_KAFKA_MSG_F_COPY, RD_KAFKA_PURGE_F_INFLIGHT, RD_KAFKA_PURGE_F_QUEUE, rd_kafka_abort_transaction, rd_kafka_begin_transaction,
    rd_kafka_commit_transaction, rd_kafka_conf_set_closesocket_cb, rd_kafka_conf_set_dr_msg_cb, rd_kafka_conf_set_log_cb,
    rd_kafka_header_add, rd_kafka_headers_destroy, rd_kafka_headers_new, rd_kafka_init_transactions, rd_kafka_message_t, rd_kafka_metadata,
    rd_kafka_metadata_destroy, rd_kafka_opaque, rd_kafka_outq_len, rd_kafka_poll, rd_kafka_produceva, rd_kafka_purge, rd_kafka_resp_err_t,
    rd_kafka_send_offsets_to_transaction, rd_kafka_t, rd_kafka_topic_destroy, rd_kafka_topic_new, rd_kafka_topic_t, rd_kafka_vtype_t,
    rd_kafka_vu_s__bindgen_ty_1 as Value, rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 as Memory, rd_kafka_vu_t,
};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::types::RDKafkaType;
use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the wait for a first connection may last.
const CONNECT: Duration = Duration::from_secs(1);

/// A record to write: where to, and what.
pub(crate) struct Outgoing<'a> {
    /// The topic's number, as given to [`Producer::new`].
    pub topic: usize,
    /// Its partition.
    pub partition: i32,
    /// Key, headers, value and timestamp.
    pub record: RecordRef<'a>,
}

/// What a delivery report says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    /// The topic's number, as given to [`Producer::new`].
    pub topic: usize,
    /// Its partition.
    pub partition: i32,
    /// The record's offset, or why it was not written.
    pub result: Result<i64, RDKafkaErrorCode>,
}

/// A producer of librdkafka. It belongs to one thread: delivery reports come in during its calls.
pub(crate) struct Producer {
    topics: Vec<*mut rd_kafka_topic_t>,
    // After the topics: they must be freed before the client is.
    client: Client<Reports>,
}

/// What the callbacks leave for the producer's thread.
struct Reports {
    logs: Logs,
    deliveries: Mutex<Vec<Delivery>>,
    /// The partition that the broker has refused to add to a transaction, as librdkafka logs it: its error does not name it.
    refused: Mutex<Option<String>>,
    closed_connections: Arc<AtomicU64>,
}

// SAFETY: the topic handles may be used from any thread, but are used through `&self` of one owner only.
unsafe impl Send for Producer {}

impl Producer {
    /// Creates a producer for these topics; it connects in the background.
    pub(crate) fn new(config: &ClientConfig, topics: &[&str]) -> KafkaResult<Self> {
        let native = config.create_native_config()?;
        // SAFETY: the configuration is alive, and the callbacks match what `Client::new` sets as opaque: the context.
        unsafe {
            rd_kafka_conf_set_dr_msg_cb(native.ptr(), Some(delivered));
            rd_kafka_conf_set_closesocket_cb(native.ptr(), Some(close_socket));
            rd_kafka_conf_set_log_cb(native.ptr(), Some(log));
        }
        let reports = Reports { logs: Logs, deliveries: Mutex::default(), refused: Mutex::default(), closed_connections: Arc::default() };
        let client = Client::new(config, native, RDKafkaType::RD_KAFKA_PRODUCER, reports)?;
        let mut producer = Producer { topics: Vec::with_capacity(topics.len()), client };
        for topic in topics {
            let name = CString::new(*topic).map_err(KafkaError::Nul)?;
            // SAFETY: client and name live during the call; the handle is freed in `drop`, before the client.
            let handle = unsafe { rd_kafka_topic_new(producer.rk(), name.as_ptr(), ptr::null_mut()) };
            if handle.is_null() {
                return Err(KafkaError::ClientCreation(format!("{topic:?} is no name for a topic")));
            }
            producer.topics.push(handle);
        }
        Ok(producer)
    }

    /// Puts a copy of the record into the queue.
    ///
    /// # Errors
    /// [`RDKafkaErrorCode::QueueFull`]: [`poll`](Self::poll) and try again.
    pub(crate) fn produce(&self, out: &Outgoing<'_>) -> Result<(), NativeError> {
        let (record, headers) = (&out.record, out.record.raw_headers());
        let memory = |bytes: Option<&[u8]>| Value { mem: bytes.map_or(Memory { ptr: ptr::null_mut(), size: 0 }, memory_of) };
        let mut arguments = [
            argument(rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT, Value { rkt: self.topics[out.topic] }),
            argument(rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION, Value { i32_: out.partition }),
            argument(rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS, Value { i: RD_KAFKA_MSG_F_COPY }),
            argument(rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP, Value { i64_: record.timestamp }),
            argument(rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY, memory(record.key)),
            argument(rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE, memory(record.value)),
            argument(rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE, Value { ptr: ptr::without_provenance_mut(out.topic) }),
            argument(rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS, Value { headers: ptr::null_mut() }),
        ];
        let count = arguments.len() - usize::from(headers.len() == 0);
        // SAFETY: key and value are copied (MSG_F_COPY), so they need to live only during the call. The headers are librdkafka's
        // once the record is taken, else ours to destroy.
        unsafe {
            let mut list = ptr::null_mut();
            if headers.len() > 0 {
                list = rd_kafka_headers_new(headers.len());
                for (name, value) in headers {
                    rd_kafka_header_add(list, name.as_ptr().cast(), name.len() as isize, value.as_ptr().cast(), value.len() as isize);
                }
                arguments[count - 1].u.headers = list;
            }
            let taken = NativeError::check(rd_kafka_produceva(self.rk(), arguments.as_ptr(), count));
            if taken.is_err() && !list.is_null() {
                rd_kafka_headers_destroy(list);
            }
            taken
        }
    }

    /// Serves the callbacks; returns at the first that came, or after `wait`.
    pub(crate) fn poll(&self, wait: Duration) {
        // SAFETY: the client lives as long as `self`.
        unsafe { rd_kafka_poll(self.rk(), millis(wait)) };
    }

    /// The number of records whose delivery is not reported yet.
    pub(crate) fn in_flight(&self) -> usize {
        // SAFETY: as above.
        unsafe { rd_kafka_outq_len(self.rk()) as usize }
    }

    /// The delivery reports that came in since the last call.
    pub(crate) fn take_deliveries(&self) -> Vec<Delivery> {
        std::mem::take(&mut *self.client.context().deliveries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many connections of this producer were closed, by either side, since it was created. librdkafka repeats a request that was
    /// under way on a closed connection without telling.
    pub(crate) fn closed_connections(&self) -> u64 {
        self.client.context().closed_connections.load(Ordering::SeqCst)
    }

    /// The first fatal error of this producer.
    pub(crate) fn fatal_error(&self) -> Option<NativeError> {
        let (code, text) = self.client.fatal_error()?;
        Some(NativeError { code, text, fatal: true, retriable: false, abortable: false })
    }

    /// Acquires the producer's epoch, which ends what a former producer of this transactional id has left open.
    pub(crate) fn init_transactions(&self, wait: Duration) -> Result<(), NativeError> {
        self.connect(wait.min(CONNECT));
        // SAFETY: as above; the error is ours.
        unsafe { NativeError::check(rd_kafka_init_transactions(self.rk(), millis(wait))) }
    }

    /// Waits for a first connection: without one, librdkafka looks for the coordinator again only after half a second. Whatever is wrong with
    /// the brokers, the next call tells.
    fn connect(&self, wait: Duration) {
        let mut metadata = ptr::null();
        // SAFETY: as above; what is returned, of the topics that this producer knows, is destroyed once.
        unsafe {
            rd_kafka_metadata(self.rk(), 0, ptr::null_mut(), &mut metadata, millis(wait));
            if !metadata.is_null() {
                rd_kafka_metadata_destroy(metadata);
            }
        }
    }

    pub(crate) fn begin(&self) -> Result<(), NativeError> {
        // SAFETY: as above.
        unsafe { NativeError::check(rd_kafka_begin_transaction(self.rk())) }
    }

    /// Why the transaction that is open has failed, where it has. Beginning one in the midst of another changes nothing, and librdkafka refuses it with the cause.
    /// What a record of it comes back with is often only that it was dropped.
    pub(crate) fn failure(&self) -> Option<NativeError> {
        let mut error = self.begin().err().filter(|error| error.abortable || error.fatal)?;
        if let Some(refused) = self.client.context().refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
            error.text = format!("{}: {refused}", error.text);
        }
        Some(error)
    }

    /// Adds the offsets to the open transaction, in the name of the group's member that `group` shows.
    pub(crate) fn send_offsets(&self, offsets: &TopicPartitionList, group: &GroupMetadata, wait: Duration) -> Result<(), NativeError> {
        // SAFETY: all three live during the call.
        unsafe { NativeError::check(rd_kafka_send_offsets_to_transaction(self.rk(), offsets.ptr(), group.as_ptr(), millis(wait))) }
    }

    /// Commits. Call it with nothing in flight: else librdkafka flushes first, in ticks.
    pub(crate) fn commit(&self, wait: Duration) -> Result<(), NativeError> {
        // SAFETY: as above.
        unsafe { NativeError::check(rd_kafka_commit_transaction(self.rk(), millis(wait))) }
    }

    pub(crate) fn abort(&self, wait: Duration) -> Result<(), NativeError> {
        // SAFETY: as above.
        unsafe { NativeError::check(rd_kafka_abort_transaction(self.rk(), millis(wait))) }
    }

    fn rk(&self) -> *mut rd_kafka_t {
        self.client.native_ptr()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // SAFETY: the client is alive until after this; each handle is freed once. What is still in flight is given up, so that
        // nothing waits for a broker.
        unsafe {
            rd_kafka_purge(self.rk(), RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
            rd_kafka_poll(self.rk(), 0);
            self.topics.drain(..).for_each(|topic| rd_kafka_topic_destroy(topic));
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, line: &str) {
        self.logs.log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.logs.error(error, reason);
    }
}

unsafe extern "C" fn delivered(_: *mut rd_kafka_t, message: *const rd_kafka_message_t, opaque: *mut c_void) {
    // SAFETY: `opaque` is the client's context, which outlives the client; the message lives during the call, and its private field
    // is the number that `produce` put there.
    let (message, reports) = unsafe { (&*message, &*opaque.cast::<Reports>()) };
    let failed = message.err != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    let result = if failed { Err(message.err.into()) } else { Ok(message.offset) };
    let delivery = Delivery { topic: message._private.addr(), partition: message.partition, result };
    let mut deliveries = reports.deliveries.lock().unwrap_or_else(PoisonError::into_inner);
    match deliveries.last_mut() {
        // Reports of a partition come in the order of its records: only the last is wanted.
        Some(last) if !failed && last.result.is_ok() && (last.topic, last.partition) == (delivery.topic, delivery.partition) => {
            *last = delivery
        }
        _ => deliveries.push(delivery),
    }
}

/// Notes which partition was refused, and passes the line on.
unsafe extern "C" fn log(client: *const rd_kafka_t, level: c_int, facility: *const c_char, line: *const c_char) {
    // SAFETY: `opaque` is the client's context, set before the client began to log, and outlives it; librdkafka passes two C strings that live during the call.
    unsafe {
        let opaque = rd_kafka_opaque(client).cast::<Reports>();
        if !opaque.is_null() && text(facility) == "ADDPARTS" {
            let line = text(line);
            if let Some(at) = line.find("Failed to add partition").filter(|_| !line.contains("Operation not attempted")) {
                *(*opaque).refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(line[at..].to_owned());
            }
        }
        log_line(client, level, facility, line);
    }
}

unsafe extern "C" fn close_socket(socket: c_int, opaque: *mut c_void) -> c_int {
    // SAFETY: `opaque` as above. librdkafka gives the socket up with this call, so closing it is ours.
    unsafe {
        (*opaque.cast::<Reports>()).closed_connections.fetch_add(1, Ordering::SeqCst);
        drop(OwnedFd::from_raw_fd(socket));
    }
    0
}

fn argument(vtype: rd_kafka_vtype_t, u: Value) -> rd_kafka_vu_t {
    rd_kafka_vu_t { vtype, u }
}

/// Empty is not absent: an empty key or value keeps a pointer that is not null.
fn memory_of(bytes: &[u8]) -> Memory {
    Memory { ptr: bytes.as_ptr().cast_mut().cast(), size: bytes.len() }
}

/// Rounded up, so that a short wait never becomes none.
fn millis(wait: Duration) -> c_int {
    c_int::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX)
}
