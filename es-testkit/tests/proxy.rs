//! The proxy between a client and a broker of a few lines, both made of plain sockets.

use es_testkit::proxy::{Action, Api, Choice, CopyAnswer, Deed, Direction, ErrorCode, Proxy, Rules, Strike, StrikeHandle, When};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);
const PRODUCER: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 9, 0, 4];

/// A broker that answers everything with "no error", and keeps what it got.
struct Broker {
    address: SocketAddr,
    got: Arc<(Mutex<Vec<Got>>, Condvar)>,
}

/// A request that reached the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    connection: usize,
    bytes: Vec<u8>,
}

impl Broker {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let broker = Broker { address: listener.local_addr().unwrap(), got: Arc::default() };
        let got = broker.got.clone();
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let got = got.clone();
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    while let Ok(bytes) = read(&mut stream) {
                        got.0.lock().unwrap().push(Got { connection, bytes: bytes.clone() });
                        got.1.notify_all();
                        // The correlation, and zeros: no throttling, no error, no topics.
                        if write(&mut stream, &[&bytes[4..8], &[0; 16]].concat()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        broker
    }

    /// What it has got, once these are so many requests.
    fn got(&self, count: usize) -> Vec<Got> {
        let (got, _) = self.got.1.wait_timeout_while(self.got.0.lock().unwrap(), LONG, |got| got.len() < count).unwrap();
        assert_eq!(got.len(), count, "{got:?}");
        got.clone()
    }
}

struct Client(TcpStream);

impl Client {
    fn new(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Client(stream)
    }

    fn send(&mut self, request: &[u8]) {
        write(&mut self.0, request).unwrap();
    }

    /// The next answer: its correlation, and the error behind the throttle time.
    fn answer(&mut self) -> (i32, i16) {
        let answer = read(&mut self.0).unwrap();
        (i32::from_be_bytes(answer[..4].try_into().unwrap()), i16::from_be_bytes(answer[8..10].try_into().unwrap()))
    }

    /// That the connection is cut before another answer.
    fn assert_cut(&mut self) {
        let read = read(&mut self.0);
        let error = read.expect_err("the connection was not cut");
        assert!(!matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "the connection was not cut: {error}");
    }
}

fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(&[&(bytes.len() as u32).to_be_bytes(), bytes].concat())
}

fn request(api: Api, version: i16, correlation: i32, body: &[&[u8]]) -> Vec<u8> {
    let header = [&api.0.to_be_bytes()[..], &version.to_be_bytes(), &correlation.to_be_bytes(), &[0, 2, b'm', b'e']];
    [&header.concat(), &body.concat()[..]].concat()
}

/// EndTxn of the transactional id `shop`.
fn end(correlation: i32) -> Vec<u8> {
    request(Api::END_TXN, 1, correlation, &[&[0, 4], b"shop", &PRODUCER, &[1]])
}

/// Produce of the transactional id `shop`, without records.
fn produce(correlation: i32) -> Vec<u8> {
    request(Api::PRODUCE, 7, correlation, &[&[0, 4], b"shop", &[0; 10]])
}

fn start() -> (Broker, Proxy) {
    let broker = Broker::start();
    let proxy = Proxy::start(0, broker.address, 7).unwrap();
    (broker, proxy)
}

/// A strike against the next EndTxn of `shop`.
fn strike(proxy: &Proxy, action: Action) -> StrikeHandle {
    proxy.strike(Strike::next(Choice::of(Api::END_TXN).transaction("shop").commits(), action))
}

#[test]
fn what_no_rule_means_passes_in_its_order_byte_for_byte() {
    let (broker, proxy) = start();
    let mut client = Client::new(&proxy);
    let requests = [end(1), request(Api(3), 12, 2, &[&[7; 100_000]]), produce(3), end(4)];
    requests.iter().for_each(|request| client.send(request));
    let answers: Vec<i32> = requests.iter().map(|_| client.answer().0).collect();
    assert_eq!(answers, [1, 2, 3, 4]);
    let got: Vec<Vec<u8>> = broker.got(4).into_iter().map(|got| got.bytes).collect();
    assert_eq!(got, requests);
    let counts: Vec<_> = proxy.counts().into_iter().collect();
    assert_eq!(counts, [((Api::PRODUCE, Deed::Passed), 1), ((Api(3), Deed::Passed), 1), ((Api::END_TXN, Deed::Passed), 2)]);
}

#[test]
fn what_is_no_kafka_passes_untouched_too() {
    // The fake broker reads frames; so does this echo not.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = Proxy::start(0, listener.local_addr().unwrap(), 7).unwrap();
    let hello = [&[0x16, 3, 1, 0, 200][..], &[9; 200]].concat();
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = vec![0; 205];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let mut client = Client::new(&proxy);
    client.0.write_all(&hello).unwrap();
    let mut back = vec![0; hello.len()];
    client.0.read_exact(&mut back).unwrap();
    assert_eq!(back, hello);
    echo.join().unwrap();
}

#[test]
fn a_lost_request_never_arrives_and_its_connection_is_cut() {
    let (broker, proxy) = start();
    let strike = strike(&proxy, Action::LoseRequest);
    let mut client = Client::new(&proxy);
    client.send(&end(1));
    client.assert_cut();
    assert!(strike.struck(LONG));
    // The next one of the same kind passes: a strike is for one request.
    let mut client = Client::new(&proxy);
    client.send(&end(2));
    assert_eq!(client.answer(), (2, 0));
    assert_eq!(broker.got(1)[0].bytes, end(2));
    assert_eq!((proxy.count(Api::END_TXN, Deed::RequestLost), proxy.count(Api::END_TXN, Deed::Passed)), (1, 1));
}

#[test]
fn a_request_whose_answer_is_lost_arrives_and_its_connection_is_cut() {
    let (broker, proxy) = start();
    let strike = strike(&proxy, Action::LoseReply);
    let mut client = Client::new(&proxy);
    client.send(&end(1));
    client.assert_cut();
    assert_eq!(broker.got(1)[0].bytes, end(1));
    assert!(strike.struck(LONG));
    assert_eq!(strike.requests()[0].producer, Some((9, 4)));
    assert_eq!(proxy.counts().into_iter().collect::<Vec<_>>(), [((Api::END_TXN, Deed::ReplyLost), 1)]);
}

#[test]
fn a_duplicate_arrives_twice_on_two_connections_and_is_answered_once() {
    let (broker, proxy) = start();
    let strike = strike(&proxy, Action::Duplicate);
    let mut client = Client::new(&proxy);
    client.send(&end(1));
    assert_eq!(client.answer(), (1, 0));
    let got = broker.got(2);
    assert_eq!((&got[0].bytes, &got[1].bytes), (&end(1), &end(1)));
    assert_ne!(got[0].connection, got[1].connection);
    assert_eq!(strike.answer(LONG), Some(CopyAnswer::Code(ErrorCode::NONE)));
    client.send(&produce(2));
    assert_eq!(client.answer().0, 2);
    assert_eq!(proxy.count(Api::END_TXN, Deed::Duplicated), 1);
}

#[test]
fn what_is_delayed_holds_back_what_comes_behind_it() {
    let (broker, proxy) = start();
    let time = Duration::from_millis(300);
    for action in [Action::Delay(time), Action::DelayReply(time)] {
        let strike = strike(&proxy, action);
        let mut client = Client::new(&proxy);
        let begun = Instant::now();
        client.send(&end(1));
        client.send(&produce(2));
        assert_eq!((client.answer().0, client.answer().0), (1, 2));
        assert!(begun.elapsed() >= time, "{action:?} took {:?}", begun.elapsed());
        assert!(strike.struck(LONG));
    }
    assert_eq!(broker.got(4).iter().map(|got| &got.bytes).collect::<Vec<_>>(), [&end(1), &produce(2), &end(1), &produce(2)]);
    assert_eq!((proxy.count(Api::END_TXN, Deed::Delayed), proxy.count(Api::END_TXN, Deed::ReplyDelayed)), (1, 1));
}

#[test]
fn a_request_that_is_kept_arrives_after_its_retry_when_it_is_released() {
    let (broker, proxy) = start();
    let strike = strike(&proxy, Action::Late(When::Released));
    let mut client = Client::new(&proxy);
    client.send(&end(1));
    client.assert_cut();
    assert!(strike.struck(LONG));
    let mut client = Client::new(&proxy);
    client.send(&end(2));
    assert_eq!(client.answer(), (2, 0));
    broker.got(1);
    assert_eq!(strike.release(), [CopyAnswer::Code(ErrorCode::NONE)]);
    let got = broker.got(2);
    assert_eq!((&got[0].bytes, &got[1].bytes), (&end(2), &end(1)));
    assert_ne!(got[0].connection, got[1].connection);
    assert_eq!(strike.release(), []);
    assert_eq!((proxy.count(Api::END_TXN, Deed::Kept), proxy.count(Api::END_TXN, Deed::DeliveredLate)), (1, 1));
}

#[test]
fn a_request_that_is_kept_arrives_before_the_answer_to_the_next_records() {
    let (broker, proxy) = start();
    let strike = strike(&proxy, Action::Late(When::NextProduced));
    let mut client = Client::new(&proxy);
    client.send(&end(1));
    client.assert_cut();
    let mut client = Client::new(&proxy);
    client.send(&end(2));
    assert_eq!(client.answer(), (2, 0));
    let other = request(Api::PRODUCE, 7, 3, &[&[0, 3], b"tea", &[0; 10]]);
    client.send(&other);
    assert_eq!(client.answer().0, 3);
    assert_eq!(broker.got(2)[1].bytes, other);
    client.send(&produce(4));
    assert_eq!(client.answer().0, 4);
    // It was there before the client had its answer.
    let got: Vec<Vec<u8>> = broker.got(4).into_iter().map(|got| got.bytes).collect();
    assert_eq!(got, [end(2), other, produce(4), end(1)]);
    assert_eq!(strike.answer(Duration::ZERO), Some(CopyAnswer::Code(ErrorCode::NONE)));
}

#[test]
fn a_request_that_is_kept_arrives_after_its_time() {
    let (broker, proxy) = start();
    let time = Duration::from_millis(200);
    let strike = strike(&proxy, Action::Late(When::After(time)));
    let mut client = Client::new(&proxy);
    let begun = Instant::now();
    client.send(&end(1));
    client.assert_cut();
    assert!(begun.elapsed() < time, "cutting took {:?}", begun.elapsed());
    assert_eq!(strike.answer(LONG), Some(CopyAnswer::Code(ErrorCode::NONE)));
    assert!(begun.elapsed() >= time);
    assert_eq!(broker.got(1)[0].bytes, end(1));
}

#[test]
fn a_falsified_answer_comes_from_the_broker_and_a_refusal_does_not() {
    let (broker, proxy) = start();
    let mut client = Client::new(&proxy);
    strike(&proxy, Action::Falsify(ErrorCode::CONCURRENT_TRANSACTIONS));
    client.send(&end(1));
    assert_eq!(client.answer(), (1, ErrorCode::CONCURRENT_TRANSACTIONS.0));
    broker.got(1);
    strike(&proxy, Action::Refuse(ErrorCode::NOT_COORDINATOR));
    client.send(&end(2));
    assert_eq!(client.answer(), (2, ErrorCode::NOT_COORDINATOR.0));
    client.send(&end(3));
    assert_eq!(client.answer(), (3, 0));
    assert_eq!(broker.got(2)[1].bytes, end(3));
    // Of an answer that is not understood nothing is changed, and that is told.
    proxy.strike(Strike::next(Choice::of(Api(3)), Action::Falsify(ErrorCode::NOT_COORDINATOR)));
    client.send(&request(Api(3), 1, 4, &[]));
    assert_eq!(client.answer(), (4, 0));
    let counts: Vec<_> = proxy.counts().into_iter().collect();
    let expected = [((Api(3), Deed::Passed), 1), ((Api::END_TXN, Deed::Passed), 1)];
    assert_eq!(counts[..2], expected);
    assert_eq!((proxy.count(Api::END_TXN, Deed::Falsified), proxy.count(Api::END_TXN, Deed::Refused)), (1, 1));
}

#[test]
fn nothing_passes_a_black_hole_and_afterwards_all_arrives() {
    let (broker, proxy) = start();
    let mut client = Client::new(&proxy);
    let far = Duration::from_secs(600);
    for (direction, arrives) in [(Direction::ToBroker, false), (Direction::Both, false), (Direction::ToClient, true)] {
        let before = broker.got.0.lock().unwrap().len();
        proxy.black_hole(direction, far);
        client.send(&end(1));
        if arrives {
            broker.got(before + 1);
        }
        client.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        client.0.read_exact(&mut [0]).expect_err("an answer out of a black hole");
        assert_eq!(broker.got.0.lock().unwrap().len(), before + usize::from(arrives));
        client.0.set_read_timeout(Some(LONG)).unwrap();
        proxy.heal();
        assert_eq!(client.answer(), (1, 0));
    }
    assert!(proxy.count(Api::END_TXN, Deed::Held) >= 3);
    // It ends by itself; and what a client that has given up has sent, arrives all the same.
    let before = broker.got.0.lock().unwrap().len();
    proxy.black_hole(Direction::Both, Duration::from_millis(200));
    client.send(&end(5));
    drop(client);
    assert_eq!(broker.got(before + 1)[before].bytes, end(5));
}

#[test]
fn all_connections_are_cut_at_once_and_new_ones_are_taken() {
    let (_broker, proxy) = start();
    let mut clients: Vec<Client> = (0..3).map(|_| Client::new(&proxy)).collect();
    for client in &mut clients {
        client.send(&end(1));
        client.answer();
    }
    assert_eq!(proxy.cut_all(), 3);
    clients.iter_mut().for_each(Client::assert_cut);
    assert_eq!(proxy.count(Api::CONNECTION, Deed::Cut), 3);
    let mut client = Client::new(&proxy);
    client.send(&end(2));
    assert_eq!(client.answer(), (2, 0));
}

#[test]
fn a_throttled_connection_takes_its_time() {
    let (_broker, proxy) = start();
    let mut client = Client::new(&proxy);
    proxy.throttle(Some(100_000));
    let begun = Instant::now();
    client.send(&request(Api(3), 1, 1, &[&[0; 30_000]]));
    client.send(&end(2));
    assert_eq!((client.answer().0, client.answer().0), (1, 2));
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    proxy.throttle(None);
    client.send(&end(3));
    assert_eq!(client.answer(), (3, 0));
}

#[test]
fn rules_strike_by_chance_and_strikes_win_over_them() {
    let (_broker, proxy) = start();
    proxy.set_rules(Rules::default().rule(Choice::of(Api::END_TXN), 0.5, Action::Falsify(ErrorCode::REQUEST_TIMED_OUT)));
    let mut client = Client::new(&proxy);
    strike(&proxy, Action::Falsify(ErrorCode::NOT_COORDINATOR));
    let errors: Vec<i16> = (0..200)
        .map(|i| {
            client.send(&end(i));
            client.answer().1
        })
        .collect();
    assert_eq!(errors[0], ErrorCode::NOT_COORDINATOR.0);
    let timed_out = errors.iter().filter(|error| **error == ErrorCode::REQUEST_TIMED_OUT.0).count();
    assert!((60..140).contains(&timed_out), "{timed_out}");
    assert_eq!(proxy.count(Api::END_TXN, Deed::Falsified), timed_out as u64 + 1);
    assert_eq!(proxy.count(Api::END_TXN, Deed::Passed), 199 - timed_out as u64);
    // The same seed draws the same.
    let (_broker, again) = start();
    again.set_rules(Rules::default().rule(Choice::of(Api::END_TXN), 0.5, Action::Falsify(ErrorCode::REQUEST_TIMED_OUT)));
    let mut client = Client::new(&again);
    let second: Vec<i16> = (0..199)
        .map(|i| {
            client.send(&end(i));
            client.answer().1
        })
        .collect();
    assert_eq!(second, errors[1..]);
}

#[test]
fn without_a_broker_clients_are_disconnected_at_once_and_later_it_works_again() {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let proxy = Proxy::start(0, address, 7).unwrap();
    let begun = Instant::now();
    Client::new(&proxy).assert_cut();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let listener = TcpListener::bind(address).unwrap();
    let mut client = Client::new(&proxy);
    client.send(&end(1));
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(read(&mut stream).unwrap(), end(1));
    // It goes down again.
    drop((stream, listener));
    client.assert_cut();
}

#[test]
fn a_dropped_proxy_cuts_its_connections_and_frees_its_port() {
    let (broker, proxy) = start();
    let mut client = Client::new(&proxy);
    client.send(&end(1));
    client.answer();
    let port = proxy.address().port();
    drop(proxy);
    client.assert_cut();
    let again = Proxy::start(port, broker.address, 7).unwrap();
    let mut client = Client::new(&again);
    client.send(&end(2));
    assert_eq!(client.answer(), (2, 0));
}
