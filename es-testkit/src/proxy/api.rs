//! The requests of Kafka's protocol that the proxy knows by name, and the errors that it puts into answers.

use std::fmt;

/// A kind of request: its `api key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Api(pub i16);

macro_rules! apis {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $key:literal, $flexible:literal;)*) => {
        impl Api {
            $($(#[$doc])* pub const $name: Api = Api($key);)*

            /// The first version whose header and body end in tagged fields (KIP-482), where the proxy knows the request.
            pub(super) fn first_flexible(self) -> Option<i16> {
                match self { $(Api::$name => Some($flexible),)* _ => None }
            }

            fn name(self) -> Option<&'static str> {
                match self { $(Api::$name => Some($text),)* _ => None }
            }
        }
    };
}

apis! {
    /// Writes records.
    PRODUCE, "Produce", 0, 9;
    /// Reads records.
    FETCH, "Fetch", 1, 12;
    /// Reads committed offsets.
    OFFSET_FETCH, "OffsetFetch", 9, 6;
    /// Asks for the coordinator of a group or of a transactional id.
    FIND_COORDINATOR, "FindCoordinator", 10, 3;
    /// Joins a classic group.
    JOIN_GROUP, "JoinGroup", 11, 6;
    /// Stays in a classic group.
    HEARTBEAT, "Heartbeat", 12, 4;
    /// Leaves a classic group.
    LEAVE_GROUP, "LeaveGroup", 13, 4;
    /// Gets the assignment in a classic group.
    SYNC_GROUP, "SyncGroup", 14, 4;
    /// Initialises a producer, and ends what its predecessor left open.
    INIT_PRODUCER_ID, "InitProducerId", 22, 2;
    /// Adds partitions to a transaction.
    ADD_PARTITIONS_TO_TXN, "AddPartitionsToTxn", 24, 3;
    /// Adds a group's offsets to a transaction.
    ADD_OFFSETS_TO_TXN, "AddOffsetsToTxn", 25, 3;
    /// Commits or aborts a transaction.
    END_TXN, "EndTxn", 26, 3;
    /// Writes offsets within a transaction.
    TXN_OFFSET_COMMIT, "TxnOffsetCommit", 28, 3;
    /// Joins, stays in and leaves a group of KIP-848.
    CONSUMER_GROUP_HEARTBEAT, "ConsumerGroupHeartbeat", 68, 0;
    /// Joins, stays in and leaves a streams group (KIP-1071).
    STREAMS_GROUP_HEARTBEAT, "StreamsGroupHeartbeat", 88, 0;
    /// Writes offsets outside of any transaction.
    OFFSET_COMMIT, "OffsetCommit", 8, 8;
}

impl Api {
    /// No request: what was done to whole connections is counted under it.
    pub const CONNECTION: Api = Api(-1);

    pub(super) fn is_flexible(self, version: i16) -> bool {
        self.first_flexible().is_some_and(|first| version >= first)
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None if *self == Api::CONNECTION => f.write_str("connection"),
            None => write!(f, "api {}", self.0),
        }
    }
}

/// An error as Kafka numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub i16);

impl ErrorCode {
    /// No error.
    pub const NONE: ErrorCode = ErrorCode(0);
    /// REQUEST_TIMED_OUT
    pub const REQUEST_TIMED_OUT: ErrorCode = ErrorCode(7);
    /// COORDINATOR_LOAD_IN_PROGRESS
    pub const COORDINATOR_LOADING: ErrorCode = ErrorCode(14);
    /// COORDINATOR_NOT_AVAILABLE
    pub const COORDINATOR_NOT_AVAILABLE: ErrorCode = ErrorCode(15);
    /// NOT_COORDINATOR
    pub const NOT_COORDINATOR: ErrorCode = ErrorCode(16);
    /// ILLEGAL_GENERATION
    pub const ILLEGAL_GENERATION: ErrorCode = ErrorCode(22);
    /// UNKNOWN_MEMBER_ID
    pub const UNKNOWN_MEMBER_ID: ErrorCode = ErrorCode(25);
    /// REBALANCE_IN_PROGRESS
    pub const REBALANCE_IN_PROGRESS: ErrorCode = ErrorCode(27);
    /// OUT_OF_ORDER_SEQUENCE_NUMBER
    pub const OUT_OF_ORDER_SEQUENCE: ErrorCode = ErrorCode(45);
    /// INVALID_PRODUCER_EPOCH
    pub const INVALID_PRODUCER_EPOCH: ErrorCode = ErrorCode(47);
    /// INVALID_TXN_STATE
    pub const INVALID_TXN_STATE: ErrorCode = ErrorCode(48);
    /// CONCURRENT_TRANSACTIONS
    pub const CONCURRENT_TRANSACTIONS: ErrorCode = ErrorCode(51);
    /// PRODUCER_FENCED
    pub const PRODUCER_FENCED: ErrorCode = ErrorCode(90);
    /// FENCED_MEMBER_EPOCH
    pub const FENCED_MEMBER_EPOCH: ErrorCode = ErrorCode(110);
}
