//! How far a partition's log reaches, as the consumer has heard it with its last fetch.

use rdkafka::bindings::rd_kafka_get_watermark_offsets;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::types::RDKafkaRespErr;
use std::ffi::CString;

/// The offset that the next record of this partition will get, as far as the consumer has heard; `None` where it reads nothing of it, or has heard nothing yet.
/// Nobody is asked.
pub(crate) fn end_heard<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str, partition: i32) -> Option<i64> {
    let topic = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client lives during the call, the name ends with a zero byte, and both offsets are ours to be written.
    let code = unsafe { rd_kafka_get_watermark_offsets(consumer.client().native_ptr(), topic.as_ptr(), partition, &mut low, &mut high) };
    (code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}
