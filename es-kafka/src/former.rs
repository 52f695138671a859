//! Producers that are no more: of the process's former life, and of lanes that have failed. Their `transactional.id` is initialised once more, which
//! ends the transaction that each may have left open and fences whatever it has sent that is still on its way.

use crate::broker::{BrokerError, ErrorKind};
use crate::config::{KafkaConfig, client_error};
use crate::connection::Connection;
use crate::error::{is_passing, kind_of, producer_error};
use crate::ffi::Producer;
use crate::settings::Settings;
use es_core::record::Role;
use std::thread;
use std::time::{Duration, Instant};

/// How long initialising one id may take, tries included.
const WAIT: Duration = Duration::from_secs(30);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);
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

fn initialise(settings: &Settings, id: &str) -> Result<(), BrokerError> {
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
            return Err(producer_error(&format!("ending what the former producer with the transactional id {id} has left"), &error));
        }
        drop(producer);
        thread::sleep(PAUSE);
    }
}
