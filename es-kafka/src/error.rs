//! From librdkafka's errors to what the runner does about them.

use crate::ffi::NativeError;
use es_core::broker::{BrokerError, ErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// The kind of an error of the producer, by its code where the code says more than the flags, else by the flags in the order that
/// librdkafka's header advises: fatal, abortable, retriable; an error without a flag is fatal.
pub(crate) fn kind_of(error: &NativeError) -> ErrorKind {
    match error.code {
        code if is_stale_member(code) => ErrorKind::StaleMember,
        code if is_fenced(code) => ErrorKind::Fenced,
        code if is_too_large(code) => ErrorKind::TooLarge,
        _ if error.fatal => ErrorKind::Fatal,
        _ if error.abortable => ErrorKind::Abortable,
        _ if error.retriable => ErrorKind::Retriable,
        _ => ErrorKind::Fatal,
    }
}

/// The broker knows of a newer state of the membership than the offsets were sent under.
pub(crate) fn is_stale_member(code: Code) -> bool {
    matches!(
        code,
        Code::IllegalGeneration | Code::UnknownMemberId | Code::FencedInstanceId | Code::StaleMemberEpoch | Code::FencedMemberEpoch
    )
}

/// Another producer has taken over the `transactional.id`, or the broker ended the transaction for its time-out.
pub(crate) fn is_fenced(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

/// A record or batch larger than client or broker take.
pub(crate) fn is_too_large(code: Code) -> bool {
    matches!(code, Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge)
}

/// What goes away by itself: a broker that is starting, moving or out of reach.
pub(crate) fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::MessageTimedOut
            | Code::Resolve
            | Code::WaitingForCoordinator
            | Code::WaitCache
            | Code::Retry
            | Code::Outdated
            | Code::BrokerDestroy
            | Code::InProgress
            | Code::PreviousInProgress
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::RequestTimedOut
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::NotController
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::KafkaStorageError
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
            | Code::UnstableOffsetCommit
            | Code::ConcurrentTransactions
            | Code::RebalanceInProgress
            | Code::ThrottlingQuotaExceeded
    )
}

/// An error of the producer, with `what` was being done.
pub(crate) fn producer_error(what: &str, error: &NativeError) -> BrokerError {
    with_kind(kind_of(error), what, error.code, &error.text)
}

/// An error of a call that changes nothing, with `what` was being done: what passes may be tried again.
pub(crate) fn request_error(what: &str, code: Code, text: &str) -> BrokerError {
    with_kind(if is_passing(code) { ErrorKind::Retriable } else { ErrorKind::Fatal }, what, code, text)
}

/// The error of this kind with a message for people.
pub(crate) fn with_kind(kind: ErrorKind, what: &str, code: Code, text: &str) -> BrokerError {
    let advice = match code {
        Code::TransactionalIdAuthorizationFailed => "; allow Write and Describe on the transactional id for this principal",
        Code::GroupAuthorizationFailed => "; allow Read on the group for this principal",
        Code::TopicAuthorizationFailed => {
            "; allow this principal Read, Write and DescribeConfigs on the topic, and Create where it is to be created"
        }
        Code::ClusterAuthorizationFailed => "; allow the operation on the cluster for this principal",
        Code::InvalidTransactionTimeout => "; lower `transaction.timeout` or raise the broker's `transaction.max.timeout.ms`",
        Code::InvalidSessionTimeout => {
            "; set the session time-out between the broker's group.min.session.timeout.ms and group.max.session.timeout.ms"
        }
        Code::FencedInstanceId => "; another living member has this group.instance.id: give each its own",
        Code::Authentication | Code::SaslAuthenticationFailed => "; check security.protocol, sasl.mechanism and the credentials",
        Code::UnsupportedVersion | Code::UnsupportedFeature => "; the broker is too old for this",
        _ => "",
    };
    BrokerError::new(kind, format!("{what}: {text} ({code:?}){advice}"))
}

/// The code of an error of the `rdkafka` crate; [`Code::Fail`] where it has none.
pub(crate) fn code_of(error: &KafkaError) -> Code {
    error.rdkafka_error_code().unwrap_or(Code::Fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fatal_is_asked_first_then_abortable_then_retriable_and_no_flag_is_fatal() {
        let flags = |fatal, abortable, retriable| NativeError { fatal, abortable, retriable, ..NativeError::plain(Code::Inconsistent) };
        assert_eq!(kind_of(&flags(true, true, true)), ErrorKind::Fatal);
        assert_eq!(kind_of(&flags(false, true, true)), ErrorKind::Abortable);
        assert_eq!(kind_of(&flags(false, false, true)), ErrorKind::Retriable);
        assert_eq!(kind_of(&flags(false, false, false)), ErrorKind::Fatal);
    }

    #[test]
    fn a_code_that_names_the_cause_counts_more_than_the_flags() {
        let check = |code, kind| {
            let error = NativeError { fatal: true, abortable: true, ..NativeError::plain(code) };
            assert_eq!(kind_of(&error), kind, "{code:?}");
        };
        for code in
            [Code::IllegalGeneration, Code::UnknownMemberId, Code::FencedInstanceId, Code::StaleMemberEpoch, Code::FencedMemberEpoch]
        {
            check(code, ErrorKind::StaleMember);
        }
        for code in [Code::Fenced, Code::ProducerFenced, Code::InvalidProducerEpoch] {
            check(code, ErrorKind::Fenced);
        }
        for code in [Code::MessageSizeTooLarge, Code::MessageBatchTooLarge] {
            check(code, ErrorKind::TooLarge);
        }
    }

    #[test]
    fn a_transaction_timeout_that_is_too_large_names_the_setting_and_the_brokers_limit() {
        let error = request_error("initialising the transactional id x", Code::InvalidTransactionTimeout, "refused");
        assert!(error.message.contains("`transaction.timeout`") && error.message.contains("`transaction.max.timeout.ms`"), "{error}");
    }

    #[test]
    fn a_message_says_what_was_done_what_happened_and_what_to_do() {
        let error = request_error("joining group bank", Code::GroupAuthorizationFailed, "Group authorization failed");
        assert_eq!(error.kind, ErrorKind::Fatal);
        assert_eq!(
            error.message,
            "joining group bank: Group authorization failed (GroupAuthorizationFailed); allow Read on the group for this principal"
        );
    }
}
