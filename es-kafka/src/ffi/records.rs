//! Records in bulk from a consumer's queue.

use super::{log_line, text};
use crate::client::Logs;
use rdkafka::bindings::{
    rd_kafka_consume_batch_queue, rd_kafka_header_get_all, rd_kafka_message_destroy, rd_kafka_message_errstr, rd_kafka_message_headers,
    rd_kafka_message_t, rd_kafka_message_timestamp, rd_kafka_queue_destroy, rd_kafka_queue_get_consumer, rd_kafka_queue_length,
    rd_kafka_queue_t, rd_kafka_resp_err_t, rd_kafka_set_logger, rd_kafka_topic_name, rd_kafka_topic_t,
};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::types::RDKafkaErrorCode;
use std::ffi::CStr;
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// The most that one call takes from the queue.
const BATCH: usize = 1024;

/// The queue of a consumer, read in batches.
pub(crate) struct Records {
    queue: NonNull<rd_kafka_queue_t>,
    messages: Box<[*mut rd_kafka_message_t; BATCH]>,
    // Held so that the queue's client is alive.
    _consumer: Arc<BaseConsumer<Logs>>,
}

// SAFETY: the queue may be used from any thread; the array is empty between two calls.
unsafe impl Send for Records {}

/// One thing from the queue.
pub(crate) enum Incoming<'a> {
    /// A record.
    Record(Record<'a>),
    /// All that is readable of a partition was delivered: topic, partition, the offset behind.
    End(&'a str, i32, i64),
    /// Reading failed: topic (empty when it concerns none), partition, code, text.
    Failed(&'a str, i32, RDKafkaErrorCode, String),
}

/// A record that lies in librdkafka's memory.
pub(crate) struct Record<'a>(&'a rd_kafka_message_t);

impl Records {
    /// The queue of this consumer.
    ///
    /// # Panics
    /// When the consumer has no `group.id`.
    pub(crate) fn of(consumer: Arc<BaseConsumer<Logs>>) -> Self {
        let rk = consumer.client().native_ptr();
        // SAFETY: the client is alive; the queue is freed in `drop`, before the consumer is. Log lines come over the queue to the
        // thread that reads it.
        let queue = unsafe {
            rd_kafka_set_logger(rk, Some(log_line));
            rd_kafka_queue_get_consumer(rk)
        };
        Records {
            queue: NonNull::new(queue).expect("a consumer with a group has a queue"),
            messages: Box::new([ptr::null_mut(); BATCH]),
            _consumer: consumer,
        }
    }

    /// Hands what lies in the queue to `take`, at most [`BATCH`] things, in their order; waits for nothing. Returns their number.
    pub(crate) fn read(&mut self, mut take: impl FnMut(Incoming<'_>)) -> usize {
        // SAFETY: the array has room for BATCH messages.
        let count = unsafe { rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, self.messages.as_mut_ptr(), BATCH) };
        let count = usize::try_from(count).unwrap_or(0);
        for slot in &mut self.messages[..count] {
            let message = Message(std::mem::replace(slot, ptr::null_mut()));
            // SAFETY: librdkafka filled the slot with a message that is ours until it is destroyed at the end of this turn.
            let message = unsafe { &*message.0 };
            // SAFETY: a message's topic lives as long as the message.
            let topic = unsafe { topic_name(message.rkt) };
            take(match message.err {
                rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Incoming::Record(Record(message)),
                rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => Incoming::End(topic, message.partition, message.offset),
                // SAFETY: the text is copied while the message is alive.
                code => Incoming::Failed(topic, message.partition, code.into(), unsafe { text(rd_kafka_message_errstr(message)) }),
            });
        }
        count
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // SAFETY: ours, and destroyed once; the consumer is still alive.
        unsafe { rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

impl<'a> Record<'a> {
    pub(crate) fn topic(&self) -> &'a str {
        // SAFETY: a message's topic lives as long as the message.
        unsafe { topic_name(self.0.rkt) }
    }

    pub(crate) fn partition(&self) -> i32 {
        self.0.partition
    }

    pub(crate) fn offset(&self) -> i64 {
        self.0.offset
    }

    pub(crate) fn timestamp(&self) -> i64 {
        // SAFETY: the message is alive; the kind of the timestamp is not asked for.
        unsafe { rd_kafka_message_timestamp(self.0, ptr::null_mut()) }
    }

    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: pointer and length are the message's own.
        unsafe { slice(self.0.key.cast(), self.0.key_len) }
    }

    pub(crate) fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: as above.
        unsafe { slice(self.0.payload.cast(), self.0.len) }
    }

    /// Hands name and value of each header to `take`; a null value reads as an empty one, a name that is not UTF-8 as an empty name.
    pub(crate) fn headers(&self, mut take: impl FnMut(&str, &[u8])) {
        let mut list = ptr::null_mut();
        // SAFETY: names and values live as long as the message; the loop ends at the first index without a header.
        unsafe {
            if rd_kafka_message_headers(self.0, &mut list) != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let mut index = 0;
            while rd_kafka_header_get_all(list, index, &mut name, &mut value, &mut size) == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                take(CStr::from_ptr(name).to_str().unwrap_or(""), slice(value.cast(), size).unwrap_or(&[]));
                index += 1;
            }
        }
    }
}

/// Whether nothing lies in the consumer's queue.
pub(crate) fn queue_is_empty<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> bool {
    // SAFETY: the client is alive; the queue's handle is freed at once.
    unsafe {
        let queue = rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        if queue.is_null() {
            return true;
        }
        let length = rd_kafka_queue_length(queue);
        rd_kafka_queue_destroy(queue);
        length == 0
    }
}

/// Destroys its message, whatever happens while it is looked at.
struct Message(*mut rd_kafka_message_t);

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: ours, and destroyed once.
        unsafe { rd_kafka_message_destroy(self.0) }
    }
}

/// # Safety
/// `topic` is null or a topic that lives for `'a`.
unsafe fn topic_name<'a>(topic: *mut rd_kafka_topic_t) -> &'a str {
    if topic.is_null() {
        return "";
    }
    // SAFETY: by the caller's word; Kafka's topic names are ASCII.
    unsafe { CStr::from_ptr(rd_kafka_topic_name(topic)) }.to_str().unwrap_or("")
}

/// # Safety
/// `start` is null or points to `len` bytes that live for `'a`.
unsafe fn slice<'a>(start: *const u8, len: usize) -> Option<&'a [u8]> {
    // SAFETY: by the caller's word.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start, len) })
}
