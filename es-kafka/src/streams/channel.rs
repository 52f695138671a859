//! The bytes' way: TCP, or TLS over it, with an end to every wait.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How often a wait looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// How long something may take.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    until: Instant,
    /// Ends it at once when set.
    cancel: Option<Arc<AtomicBool>>,
}

impl Limit {
    /// For as long as this.
    pub(crate) fn of(time: Duration) -> Self {
        Limit { until: Instant::now() + time, cancel: None }
    }

    /// For as long as this, and no longer than until `cancel` is set.
    pub(crate) fn unless(time: Duration, cancel: &Arc<AtomicBool>) -> Self {
        Limit { until: Instant::now() + time, cancel: Some(cancel.clone()) }
    }

    /// What is left of it.
    ///
    /// # Errors
    /// When nothing is.
    fn left(&self) -> io::Result<Duration> {
        if self.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::SeqCst)) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the client is being closed"));
        }
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")) } else { Ok(left) }
    }
}

/// A TCP connection whose reads and writes end when their [`Limit`] does.
#[derive(Debug)]
pub(crate) struct Tcp {
    stream: TcpStream,
    pub(crate) limit: Limit,
}

impl Tcp {
    /// Connects to `host:port`, to whichever of the name's addresses answers first in their order.
    ///
    /// # Errors
    /// When the name is unknown, or nobody answers.
    pub(crate) fn connect(host: &str, port: u16, family: Family, limit: Limit) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in resolve(host, port, &limit)?.into_iter().filter(|address| family.takes(address)) {
            match TcpStream::connect_timeout(&address, limit.left()?) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(LOOK))?;
                    stream.set_write_timeout(Some(LOOK))?;
                    return Ok(Tcp { stream, limit });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// librdkafka's `broker.address.family`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Family {
    #[default]
    Any,
    V4,
    V6,
}

impl Family {
    fn takes(self, address: &SocketAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        }
    }
}

/// The system's resolver has no time limit: it is asked on a thread of its own, which is left to itself when it takes too long.
fn resolve(host: &str, port: u16, limit: &Limit) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (found, answer) = mpsc::channel();
    let name = host.to_owned();
    std::thread::Builder::new().name("kafka-resolve".into()).spawn(move || {
        // Nobody waits any more when it took too long.
        let _ = found.send((name.as_str(), port).to_socket_addrs().map(Vec::from_iter));
    })?;
    loop {
        match answer.recv_timeout(limit.left()?.min(LOOK)) {
            Ok(addresses) => return addresses,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(io::Error::other("the resolver has failed")),
        }
    }
}

impl Read for Tcp {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.limit.left()?;
            match self.stream.read(buffer) {
                Err(error) if is_look(&error) => {}
                read => return read,
            }
        }
    }
}

impl Write for Tcp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.limit.left()?;
            match self.stream.write(bytes) {
                Err(error) if is_look(&error) => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn is_look(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// A connection, secured or not.
pub(crate) enum Channel {
    Plain(Tcp),
    #[cfg(feature = "_tls")]
    Tls(openssl::ssl::SslStream<Tcp>),
}

impl Channel {
    /// With what reads and writes end.
    pub(crate) fn limit(&self) -> Limit {
        match self {
            Channel::Plain(tcp) => tcp.limit.clone(),
            #[cfg(feature = "_tls")]
            Channel::Tls(tls) => tls.get_ref().limit.clone(),
        }
    }

    /// From now on reads and writes end with this limit.
    pub(crate) fn set_limit(&mut self, limit: Limit) {
        match self {
            Channel::Plain(tcp) => tcp.limit = limit,
            #[cfg(feature = "_tls")]
            Channel::Tls(tls) => tls.get_mut().limit = limit,
        }
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Channel::Plain(tcp) => tcp.read(buffer),
            #[cfg(feature = "_tls")]
            Channel::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Channel::Plain(tcp) => tcp.write(bytes),
            #[cfg(feature = "_tls")]
            Channel::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Channel::Plain(tcp) => tcp.flush(),
            #[cfg(feature = "_tls")]
            Channel::Tls(tls) => tls.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair(limit: Limit) -> (Tcp, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let tcp = Tcp::connect("localhost", port, Family::V4, limit).unwrap();
        (tcp, listener.accept().unwrap().0)
    }

    #[test]
    fn a_read_that_nobody_answers_ends_with_its_limit() {
        let (mut tcp, _silent) = pair(Limit::of(Duration::from_millis(300)));
        let begun = Instant::now();
        assert_eq!(tcp.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_read_ends_when_it_is_cancelled() {
        let cancel = Arc::new(AtomicBool::new(false));
        let (mut tcp, _silent) = pair(Limit::unless(Duration::from_secs(60), &cancel));
        cancel.store(true, Ordering::SeqCst);
        assert_eq!(tcp.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::Interrupted);
    }

    #[test]
    fn a_write_that_nobody_reads_ends_with_its_limit() {
        let (mut tcp, _deaf) = pair(Limit::of(Duration::from_millis(300)));
        let written = tcp.write_all(&vec![0; 64 << 20]);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
