//! A streaming reader of event logs in XES, the format of IEEE 1849, plain or compressed by gzip.
//!
//! One trace is in memory at a time. What an attribute nests, and what stands around the traces (extensions, globals, classifiers, statistics),
//! is passed over.

mod lines;
mod time;

#[cfg(test)]
mod tests;

pub use time::parse_time;

use es_kafka::Millis;
use flate2::bufread::MultiGzDecoder;
use lines::Lines;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event as Xml};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

/// A trace: the events of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The line on which it starts.
    pub line: u64,
    /// `concept:name`: the case's id.
    pub name: String,
    /// Its other attributes, as they are written.
    pub attributes: BTreeMap<String, String>,
    /// Its events, in the order of the file.
    pub events: Vec<Event>,
}

/// An event of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The line on which it starts.
    pub line: u64,
    /// `concept:name`: the activity.
    pub name: String,
    /// `lifecycle:transition`.
    pub transition: Option<String>,
    /// `org:resource`: who did it.
    pub resource: Option<String>,
    /// `time:timestamp`.
    pub time: Millis,
}

/// A log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum XesError {
    /// The file cannot be opened or read.
    #[error("line {line}: the file cannot be read: {cause}")]
    Io {
        /// Where.
        line: u64,
        /// Why.
        cause: io::Error,
    },
    /// It is not XML.
    #[error("line {line}: not well-formed XML: {cause}")]
    Xml {
        /// Where.
        line: u64,
        /// Why.
        cause: String,
    },
    /// It is XML, and no event log.
    #[error("line {line}: {what}")]
    Log {
        /// Where.
        line: u64,
        /// What is wrong.
        what: String,
    },
}

/// Reads the traces of a log one by one. It ends with the first error.
pub struct Reader<R: BufRead> {
    xml: quick_xml::Reader<Lines<R>>,
    buffer: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    BeforeLog,
    /// The line on which the log starts.
    InLog(u64),
    Ended,
}

/// Opens a log; whether it is compressed is seen from its first bytes.
///
/// # Errors
/// When the file cannot be opened or read.
pub fn open(path: &Path) -> io::Result<Reader<Box<dyn BufRead>>> {
    from_bytes(BufReader::with_capacity(1 << 16, File::open(path)?))
}

/// Reads a log from anything; whether it is compressed is seen from its first bytes.
///
/// # Errors
/// When the first bytes cannot be read.
pub fn from_bytes<'a>(mut bytes: impl BufRead + 'a) -> io::Result<Reader<Box<dyn BufRead + 'a>>> {
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    let compressed = bytes.fill_buf()?.starts_with(&GZIP);
    Ok(Reader::new(if compressed { Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(bytes))) } else { Box::new(bytes) }))
}

impl<R: BufRead> Reader<R> {
    /// Reads a log that is not compressed.
    pub fn new(bytes: R) -> Self {
        let mut xml = quick_xml::Reader::from_reader(Lines::new(bytes));
        xml.config_mut().expand_empty_elements = true;
        Reader { xml, buffer: Vec::new(), state: State::BeforeLog }
    }

    fn line(&self) -> u64 {
        self.xml.get_ref().line()
    }

    fn wrong<T>(&self, line: u64, what: impl Into<String>) -> Result<T, XesError> {
        Err(XesError::Log { line, what: what.into() })
    }

    /// The next start or end of an element; `None` at the end of the file.
    fn tag(&mut self) -> Result<Option<Tag>, XesError> {
        loop {
            self.buffer.clear();
            let before = self.line();
            match self.xml.read_event_into(&mut self.buffer) {
                Ok(Xml::Start(element)) => {
                    let line = self.xml.get_ref().line();
                    let start = Start::read(&element).map_err(|cause| XesError::Xml { line, cause })?;
                    return Ok(Some(Tag::Start(start)));
                }
                Ok(Xml::End(_)) => return Ok(Some(Tag::End)),
                Ok(Xml::Eof) => return Ok(None),
                Ok(_) => {}
                Err(quick_xml::Error::Io(cause)) => {
                    let cause = io::Error::new(cause.kind(), cause.to_string());
                    return Err(XesError::Io { line: before, cause });
                }
                Err(error) => return Err(XesError::Xml { line: before, cause: error.to_string() }),
            }
        }
    }

    /// The next start within an element that started on line `since`; `None` at its end.
    fn inside(&mut self, element: &str, since: u64) -> Result<Option<Start>, XesError> {
        match self.tag()? {
            Some(Tag::Start(start)) => Ok(Some(start)),
            Some(Tag::End) => Ok(None),
            None => self.wrong(self.line(), format!("the file ends within the <{element}> of line {since}: it was cut off")),
        }
    }

    /// Passes over what is left of the element that has just started.
    fn skip(&mut self, element: &str) -> Result<(), XesError> {
        let since = self.line();
        let mut depth = 1;
        while depth > 0 {
            match self.inside(element, since)? {
                Some(_) => depth += 1,
                None => depth -= 1,
            }
        }
        Ok(())
    }

    fn next_trace(&mut self) -> Result<Option<Trace>, XesError> {
        if self.state == State::BeforeLog {
            match self.tag()? {
                Some(Tag::Start(start)) if start.name == "log" => self.state = State::InLog(self.line()),
                Some(Tag::Start(start)) => {
                    return self.wrong(self.line(), format!("an event log in XES starts with <log>, this with <{}>", start.name));
                }
                Some(Tag::End) | None => return self.wrong(self.line(), "there is no <log>: this is not an event log in XES"),
            }
        }
        if let State::InLog(since) = self.state {
            while let Some(start) = self.inside("log", since)? {
                if start.name == "trace" {
                    return self.trace().map(Some);
                }
                self.skip(&start.name)?;
            }
            self.state = State::Ended;
        }
        Ok(None)
    }

    /// The trace that has just started.
    fn trace(&mut self) -> Result<Trace, XesError> {
        let line = self.line();
        let mut attributes = BTreeMap::new();
        let mut events = Vec::new();
        while let Some(start) = self.inside("trace", line)? {
            if start.name == "event" {
                events.push(self.event()?);
            } else {
                attributes.extend(start.attribute);
                self.skip(&start.name)?;
            }
        }
        match attributes.remove("concept:name") {
            Some(name) if !name.is_empty() => Ok(Trace { line, name, attributes, events }),
            _ => self.wrong(line, "the trace has no `concept:name`, which names its case"),
        }
    }

    /// The event that has just started.
    fn event(&mut self) -> Result<Event, XesError> {
        let line = self.line();
        let mut attributes = BTreeMap::new();
        while let Some(start) = self.inside("event", line)? {
            attributes.extend(start.attribute);
            self.skip(&start.name)?;
        }
        let Some(name) = attributes.remove("concept:name") else {
            return self.wrong(line, "the event has no `concept:name`, which names its activity");
        };
        let Some(time) = attributes.remove("time:timestamp") else {
            return self.wrong(line, "the event has no `time:timestamp`");
        };
        let Some(time) = parse_time(&time) else {
            return self.wrong(line, format!("`{time}` is no time such as 2011-10-01T00:38:44.546+02:00"));
        };
        let (transition, resource) = (attributes.remove("lifecycle:transition"), attributes.remove("org:resource"));
        Ok(Event { line, name, transition, resource, time })
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Trace, XesError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_trace();
        if next.is_err() {
            self.state = State::Ended;
        }
        next.transpose()
    }
}

/// The start or the end of an element.
enum Tag {
    Start(Start),
    End,
}

/// The start of an element.
struct Start {
    /// The element's name, without its namespace.
    name: String,
    /// Its `key` and `value`, where it has both.
    attribute: Option<(String, String)>,
}

impl Start {
    fn read(element: &BytesStart<'_>) -> Result<Self, String> {
        let (mut key, mut value) = (None, None);
        for attribute in element.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let slot = match attribute.key.as_ref() {
                "key" => &mut key,
                "value" => &mut value,
                _ => continue,
            };
            *slot = Some(attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?.into_owned());
        }
        Ok(Start { name: element.local_name().as_ref().to_owned(), attribute: key.zip(value) })
    }
}
