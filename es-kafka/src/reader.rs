//! Reads a log from beside the engine, through the broker port: for tools, whose loop may wait.

use es_core::broker::{Appetite, Broker, BrokerError, BrokerEvent, Completion, Description, ErrorKind, Extent, Token};
use es_core::record::{Place, RecordRef};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How long nothing more may come of a partition before what was read counts as all that is readable: a transaction may be open.
const SILENCE: Duration = Duration::from_secs(5);
/// One wait for the port.
const WAIT: Duration = Duration::from_millis(50);

/// A reader of one component's topics.
pub(crate) struct Reader {
    broker: Box<dyn Broker>,
}

impl Reader {
    /// Reads through this port, which must not be a member of a group.
    pub(crate) fn new(broker: impl Broker + 'static) -> Self {
        Reader { broker: Box::new(broker) }
    }

    /// The cluster and the component's topics.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    pub(crate) fn describe(&mut self) -> Result<Description, BrokerError> {
        let token = self.broker.describe();
        match self.answer(token)? {
            Completion::Described(result) => result,
            other => Err(unexpected(&other)),
        }
    }

    /// The first and the next offset of a partition.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    pub(crate) fn extent(&mut self, place: Place) -> Result<Extent, BrokerError> {
        let token = self.broker.extents(vec![place]);
        match self.answer(token)? {
            Completion::Extents(result) => {
                result?.pop().ok_or_else(|| BrokerError::new(ErrorKind::Fatal, "the broker told no extent of a partition"))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Reads the committed records of a partition, from `from` on (or the oldest that is kept) up to the end as it is now, or until `each`
    /// breaks. Returns the offset behind the last thing read.
    ///
    /// # Errors
    /// When the broker cannot be read.
    pub(crate) fn read(
        &mut self,
        place: Place,
        from: i64,
        mut each: impl FnMut(&RecordRef<'_>) -> ControlFlow<()>,
    ) -> Result<i64, BrokerError> {
        let extent = self.extent(place)?;
        let mut next = from.max(extent.start);
        if next >= extent.end {
            return Ok(next);
        }
        self.broker.fetch(place, next);
        let mut heard = Instant::now();
        'reading: while next < extent.end && heard.elapsed() < SILENCE {
            match self.broker.poll(WAIT, Appetite::All) {
                Some(BrokerEvent::Fetched(fetched)) if fetched.place == place => {
                    heard = Instant::now();
                    for record in fetched.records.iter() {
                        if record.offset >= extent.end {
                            break 'reading;
                        }
                        next = record.offset + 1;
                        if each(&record).is_break() {
                            break 'reading;
                        }
                    }
                    next = next.max(fetched.next);
                }
                Some(BrokerEvent::Failed(error)) => return Err(error),
                _ => {}
            }
        }
        self.broker.stop_fetch(place);
        Ok(next)
    }

    fn answer(&mut self, token: Token) -> Result<Completion, BrokerError> {
        let asked = Instant::now();
        while asked.elapsed() < ANSWER {
            match self.broker.poll(WAIT, Appetite::All) {
                Some(BrokerEvent::Done(done, completion)) if done == token => return Ok(completion),
                Some(BrokerEvent::Failed(error)) => return Err(error),
                _ => {}
            }
        }
        let message = format!("the broker has not answered within {} s: is it running, and is its address right?", ANSWER.as_secs());
        Err(BrokerError::new(ErrorKind::Fatal, message))
    }
}

fn unexpected(completion: &Completion) -> BrokerError {
    BrokerError::new(ErrorKind::Fatal, format!("the broker port answered another question: {completion:?}"))
}
