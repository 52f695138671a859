//! A snapshot of a consumer's place in its group.

use super::text;
use rdkafka::bindings::{
    rd_kafka_consumer_group_metadata, rd_kafka_consumer_group_metadata_destroy, rd_kafka_consumer_group_metadata_generation_id,
    rd_kafka_consumer_group_metadata_member_id, rd_kafka_consumer_group_metadata_new_with_genid, rd_kafka_consumer_group_metadata_t,
};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use std::ffi::CString;
use std::fmt;
use std::ptr::{self, NonNull};

/// Group, generation (or member epoch), member and instance of a consumer at one moment. With it, offsets are sent to a transaction,
/// and the broker refuses them once the generation has passed.
pub(crate) struct GroupMetadata(NonNull<rd_kafka_consumer_group_metadata_t>);

// SAFETY: the snapshot is never changed after its creation.
unsafe impl Send for GroupMetadata {}
// SAFETY: as above.
unsafe impl Sync for GroupMetadata {}

impl GroupMetadata {
    /// The present metadata of this consumer; `None` when it has no group.
    pub(crate) fn of<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<Self> {
        // SAFETY: the client lives during the call, and the result is ours to destroy.
        NonNull::new(unsafe { rd_kafka_consumer_group_metadata(consumer.client().native_ptr()) }).map(GroupMetadata)
    }

    /// That of this member of this group at this generation or epoch; `None` when a name holds a zero byte.
    pub(crate) fn new(group: &str, generation: i32, member: &str) -> Option<Self> {
        let (group, member) = (CString::new(group).ok()?, CString::new(member).ok()?);
        // SAFETY: the names live during the call, which copies them, and the result is ours to destroy. Null: no static member.
        NonNull::new(unsafe { rd_kafka_consumer_group_metadata_new_with_genid(group.as_ptr(), generation, member.as_ptr(), ptr::null()) })
            .map(GroupMetadata)
    }

    /// The generation of a classic group, the member epoch of a KIP-848 group; not positive without membership.
    pub(crate) fn generation(&self) -> i32 {
        // SAFETY: the snapshot lives as long as `self`.
        unsafe { rd_kafka_consumer_group_metadata_generation_id(self.0.as_ptr()) }
    }

    /// The member's id; empty without membership.
    pub(crate) fn member(&self) -> String {
        // SAFETY: as above; the string is copied.
        unsafe { text(rd_kafka_consumer_group_metadata_member_id(self.0.as_ptr())) }
    }

    /// Whether it stands for a member at all: generations and epochs of members count from 1 (a KIP-848 client has an id of its own making
    /// and epoch 0 before it is in). Kafka takes offsets under empty metadata *unfenced*, whoever the members are.
    pub(crate) fn is_member(&self) -> bool {
        self.generation() > 0 && !self.member().is_empty()
    }

    pub(super) fn as_ptr(&self) -> *const rd_kafka_consumer_group_metadata_t {
        self.0.as_ptr()
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: it is ours, and destroyed once.
        unsafe { rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

impl PartialEq for GroupMetadata {
    fn eq(&self, other: &Self) -> bool {
        self.generation() == other.generation() && self.member() == other.member()
    }
}

impl fmt::Debug for GroupMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {} at generation {}", self.member(), self.generation())
    }
}
