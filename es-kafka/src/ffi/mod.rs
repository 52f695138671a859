//! The librdkafka calls that the `rdkafka` crate does not wrap, or wraps in a way that costs too much on the fast path; and one of mimalloc's.
//!
//! This is the only module with `unsafe` code. What is here and why:
//!
//! | what | why not the crate's own |
//! |---|---|
//! | [`Producer`] | its `poll` sits out its time-out, its `flush` ticks at 100 ms, it tells no closed connection, and offsets can only be sent with a consumer's present metadata |
//! | [`Records`] | batches without an allocation for each record; the end of a partition with topic and offset |
//! | [`GroupMetadata`] | generation and member can be read |
//! | [`end_heard`] | the offset that was heard with the last fetch; the crate's own asks the broker |
//! | [`give_back_freed_memory`] | an option of mimalloc's, for which there is no other call |
//! | [`describe`] | topic ids and incremental changes of settings are not wrapped, and settings that the broker refuses to tell read as none |
//!
//! Every type here is a safe interface: it holds what it points to, and frees it exactly once.

#![allow(unsafe_code)]

#[cfg(feature = "mimalloc")]
mod allocator;
pub(crate) mod describe;
mod group;
mod producer;
mod records;
mod watermarks;

#[cfg(feature = "mimalloc")]
pub(crate) use allocator::give_back_freed_memory;
pub(crate) use group::GroupMetadata;
pub(crate) use producer::{Outgoing, Producer};
pub(crate) use records::{Incoming, Record, Records, queue_is_empty};
pub(crate) use watermarks::end_heard;

use rdkafka::bindings::{
    rd_kafka_error_code, rd_kafka_error_destroy, rd_kafka_error_is_fatal, rd_kafka_error_is_retriable, rd_kafka_error_string,
    rd_kafka_error_t, rd_kafka_error_txn_requires_abort, rd_kafka_t,
};
use rdkafka::types::RDKafkaErrorCode;
use std::ffi::{CStr, c_char, c_int};

/// An error of librdkafka with its flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NativeError {
    /// Its code.
    pub code: RDKafkaErrorCode,
    /// What happened, for people.
    pub text: String,
    /// The client can do nothing more.
    pub fatal: bool,
    /// The identical call may be made again.
    pub retriable: bool,
    /// The transaction must be aborted.
    pub abortable: bool,
}

impl NativeError {
    /// An error without flags.
    pub(crate) fn plain(code: RDKafkaErrorCode) -> Self {
        NativeError { code, text: code.to_string(), fatal: false, retriable: false, abortable: false }
    }

    /// Takes over and frees an error that librdkafka returned; null is success.
    ///
    /// # Safety
    /// `error` is null or an error that nobody else frees.
    unsafe fn check(error: *mut rd_kafka_error_t) -> Result<(), NativeError> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the error is alive until it is destroyed below, and its text is copied before.
        unsafe {
            let told = NativeError {
                code: rd_kafka_error_code(error).into(),
                text: text(rd_kafka_error_string(error)),
                fatal: rd_kafka_error_is_fatal(error) != 0,
                retriable: rd_kafka_error_is_retriable(error) != 0,
                abortable: rd_kafka_error_txn_requires_abort(error) != 0,
            };
            rd_kafka_error_destroy(error);
            Err(told)
        }
    }
}

/// Copies a C string; null reads as an empty one.
///
/// # Safety
/// `chars` is null or ends with a zero byte.
unsafe fn text(chars: *const c_char) -> String {
    if chars.is_null() {
        return String::new();
    }
    // SAFETY: by the caller's word.
    unsafe { CStr::from_ptr(chars) }.to_string_lossy().into_owned()
}

/// librdkafka's log lines, for clients whose queue is not polled through the `rdkafka` crate.
unsafe extern "C" fn log_line(_: *const rd_kafka_t, level: c_int, facility: *const c_char, line: *const c_char) {
    // SAFETY: librdkafka passes two C strings that live during the call.
    let (facility, line) = unsafe { (text(facility), text(line)) };
    crate::client::log(level, &facility, &line);
}
