//! Producers that are no more: of the process's former life, and of lanes that have failed. Their `transactional.id` is initialised once more, which
//! ends the transaction that each may have left open and fences whatever it has sent that is still on its way.

use crate::broker::{BrokerError, ErrorKind};
use crate::config::{GroupProtocol, KafkaConfig, client_error};
use crate::connection::Connection;
use crate::error::{is_passing, kind_of, producer_error, request_error};
use crate::ffi::Producer;
use crate::settings::{GroupChoice, Settings};
use crate::streams::{CallError, Coordinator, Limit, Security, codes};
use es_core::record::Role;
use rdkafka::error::RDKafkaErrorCode as Code;
use std::thread;
use std::time::{Duration, Instant};

/// How long initialising one id may take, tries included.
const WAIT: Duration = Duration::from_secs(30);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// The same while the broker ends a transaction, which takes it a few milliseconds.
const BRIEF: Duration = Duration::from_millis(5);
/// How long one exchange with the coordinator may take.
const EXCHANGE: Duration = Duration::from_secs(5);
/// So many at a time: each has a client of its own meanwhile.
const AT_ONCE: usize = 16;

/// Ends the transactions of these ids, and fences their producers. Once it returns, nothing that was sent under one of them takes effect any more.
///
/// # Errors
/// When the broker refuses one of them, or does not answer within half a minute.
pub(crate) fn end(connection: &Connection, settings: &Settings, ids: &[String]) -> Result<(), BrokerError> {
    match connection {
        Connection::Kafka => ids.chunks(AT_ONCE).try_for_each(|ids| {
            thread::scope(|scope| {
                let each: Vec<_> = ids.iter().map(|id| scope.spawn(|| initialise(settings, id))).collect();
                each.into_iter().try_for_each(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
        }),
        #[cfg(feature = "embedded")]
        Connection::Embedded(embedded) => {
            for id in ids {
                embedded.cluster().init_producer(id, settings.transaction_timeout);
            }
            Ok(())
        }
    }
}

/// Over our own connection where there can be one: librdkafka asks only each half second while the broker ends a transaction, and that is how long partitions would
/// stand still whose owner has died.
fn initialise(settings: &Settings, id: &str) -> Result<(), BrokerError> {
    match settings.group_protocol {
        GroupChoice::Is(GroupProtocol::Streams) => initialise_ourselves(settings, id),
        _ => initialise_by_librdkafka(settings, id),
    }
}

fn initialise_ourselves(settings: &Settings, id: &str) -> Result<(), BrokerError> {
    let until = Instant::now() + WAIT;
    let mut coordinator = Coordinator::of_transactions(&settings.bootstrap_servers, Security::of(&settings.kafka)?, id)?;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let answer = coordinator.init_producer(settings.transaction_timeout, Limit::of(left.min(EXCHANGE)));
        let (why, pause) = match verdict(answer) {
            Verdict::Done => return Ok(()),
            Verdict::Again(why, pause) => (why, pause),
            Verdict::Refused(code, text) => return Err(request_error(&what(id), code, &text)),
        };
        if Instant::now() + pause >= until {
            return Err(BrokerError::new(ErrorKind::Retriable, format!("{}: {why}", what(id))));
        }
        thread::sleep(pause);
    }
}

/// What an answer to the request for a producer means.
#[derive(Debug, PartialEq)]
enum Verdict {
    Done,
    Again(String, Duration),
    Refused(Code, String),
}

fn verdict(answer: Result<i16, CallError>) -> Verdict {
    match answer {
        Ok(codes::NONE) => Verdict::Done,
        Ok(codes::CONCURRENT_TRANSACTIONS) => Verdict::Again("the broker is still ending its transaction".to_owned(), BRIEF),
        // Of the last two somebody else is doing the same.
        Ok(
            code @ (codes::COORDINATOR_LOADING
            | codes::COORDINATOR_NOT_AVAILABLE
            | codes::NOT_COORDINATOR
            | codes::REQUEST_TIMED_OUT
            | codes::INVALID_PRODUCER_EPOCH
            | codes::PRODUCER_FENCED),
        ) => Verdict::Again(format!("the coordinator is not ready (error {code})"), PAUSE),
        Ok(codes::TRANSACTIONAL_ID_AUTHORIZATION_FAILED) => {
            Verdict::Refused(Code::TransactionalIdAuthorizationFailed, "it is not allowed".to_owned())
        }
        Ok(codes::INVALID_TRANSACTION_TIMEOUT) => {
            Verdict::Refused(Code::InvalidTransactionTimeout, "the broker does not take the time-out of transactions".to_owned())
        }
        Ok(code) => Verdict::Refused(Code::Fail, format!("it was refused (error {code})")),
        // Another producer than the first does no harm.
        Err(CallError::NotSent(why) | CallError::NoAnswer(why)) => Verdict::Again(why, PAUSE),
        Err(CallError::Forbidden(why)) => Verdict::Refused(Code::TransactionalIdAuthorizationFailed, why),
        Err(CallError::Unsupported(why)) => Verdict::Refused(Code::UnsupportedVersion, why),
    }
}

fn what(id: &str) -> String {
    format!("ending what the former producer with the transactional id {id} has left")
}

fn initialise_by_librdkafka(settings: &Settings, id: &str) -> Result<(), BrokerError> {
    let mut config = KafkaConfig::new(&settings.bootstrap_servers, "former", id, Role::Commands);
    config.transaction_timeout = settings.transaction_timeout;
    config.extra = settings.kafka.clone();
    let until = Instant::now() + WAIT;
    loop {
        let producer = Producer::new(&config.producer(usize::MAX), &[]).map_err(|error| client_error(&error))?;
        let left = until.saturating_duration_since(Instant::now());
        let Err(error) = producer.init_transactions(left.max(PAUSE)) else { return Ok(()) };
        let may_pass = is_passing(error.code) || matches!(kind_of(&error), ErrorKind::Retriable | ErrorKind::Fenced);
        if !may_pass || Instant::now() >= until {
            return Err(producer_error(&what(id), &error));
        }
        drop(producer);
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_is_being_ended_is_asked_for_again_at_once_and_a_refusal_is_told() {
        assert_eq!(verdict(Ok(codes::NONE)), Verdict::Done);
        assert!(matches!(verdict(Ok(codes::CONCURRENT_TRANSACTIONS)), Verdict::Again(_, BRIEF)));
        for passing in [codes::NOT_COORDINATOR, codes::COORDINATOR_LOADING, codes::INVALID_PRODUCER_EPOCH] {
            assert!(matches!(verdict(Ok(passing)), Verdict::Again(_, PAUSE)), "{passing}");
        }
        assert!(matches!(verdict(Err(CallError::NoAnswer("lost".into()))), Verdict::Again(..)));
        let forbidden = verdict(Err(CallError::Forbidden("no".into())));
        assert_eq!(forbidden, Verdict::Refused(Code::TransactionalIdAuthorizationFailed, "no".into()));
        let Verdict::Refused(code, text) = verdict(Ok(codes::TRANSACTIONAL_ID_AUTHORIZATION_FAILED)) else { panic!("it is allowed") };
        let error = request_error(&what("bank-x-account-0"), code, &text);
        assert!(
            error.kind == ErrorKind::Fatal && error.message.contains("bank-x-account-0") && error.message.contains("allow Write"),
            "{error}"
        );
    }
}
