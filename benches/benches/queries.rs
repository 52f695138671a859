//! Point queries a second and their times, asked of the owner and of the other process, while commands run.
//!
//! ```sh
//! cargo bench -p es-benches --bench queries -- --seconds 10 --connections 16 --commands 2000
//! ```
//!
//! Two applications in this process share the partitions: on the Kafka that `ES_TEST_BOOTSTRAP_SERVERS` names (`with-kafka` sets it), else on a log in memory. So the
//! figures are of one machine that does everything: the two, the clients, the commands, and what Kafka takes.

use bank::{Account, AccountCommand};
use es_kafka::embedded::Embedded;
use es_kafka::partition::partition_of;
use es_kafka::{App, Running, Settings};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const ACCOUNTS: usize = 10_000;
const LONG: Duration = Duration::from_secs(120);

fn main() {
    let option = |name: &str, otherwise: u64| {
        let arguments: Vec<String> = std::env::args().collect();
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(otherwise)
    };
    let (seconds, connections, rate) = (option("--seconds", 10), option("--connections", 16), option("--commands", 2000));
    let kafka = std::env::var("ES_TEST_BOOTSTRAP_SERVERS").ok();
    let name = format!("queries-{}", std::process::id());
    let (embedded, folders) = (Embedded::new(), [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder can be made")));
    let app = |folder: &tempfile::TempDir| {
        let mut settings = Settings::new(&name);
        let mut set = |key: &str, value: &str| settings.set(key, value).expect("a setting can be read");
        set("listen", "127.0.0.1:0");
        set("query.max.rate", "1000000");
        set("state.dir", folder.path().to_str().expect("a folder's name is text"));
        for role in ["commands", "events", "outcomes"] {
            set(&format!("account.topics.{role}"), &format!("{name}-{role}"));
        }
        match &kafka {
            Some(servers) => set("bootstrap.servers", servers),
            None => set("broker", "embedded"),
        }
        let app = App::with_settings(settings).aggregate::<Account>();
        if kafka.is_some() { app } else { app.embedded(embedded.clone()) }
    };
    let apps = folders.each_ref().map(app);
    let running = apps.each_ref().map(|app| app.start().expect("the application starts"));
    let shared = |running: &Running| running.wait_until(LONG, |all| all[0].running == 2);
    assert!(running.iter().all(shared), "the two share the partitions");
    let at = running.each_ref().map(|running| running.listens_at().expect("it listens"));

    // Every account has a balance before anything is asked.
    let mut sender = apps[0].sender::<Account>().expect("commands can be sent");
    for n in 0..ACCOUNTS {
        sender.send(&id(n), &format!("first-{n}"), &AccountCommand::Deposit { amount: 1 }).expect("a command can be sent");
    }
    sender.flush(LONG).expect("commands arrive");
    let all = |running: &[Running; 2]| running.iter().map(|one| one.status()[0].stats.committed_inputs).sum::<u64>() >= ACCOUNTS as u64;
    let begun = Instant::now();
    while !all(&running) {
        assert!(begun.elapsed() < LONG, "the commands are processed");
        thread::sleep(Duration::from_millis(10));
    }
    let here: Vec<i32> = running[0].status()[0].lanes.iter().flat_map(|lane| &lane.each_task).map(|task| task.partition).collect();
    let keys = |is_here: bool| -> Vec<String> {
        (0..ACCOUNTS).map(id).filter(|id| here.contains(&partition_of(id.as_bytes(), 4)) == is_here).collect()
    };

    let log = if kafka.is_some() { "Kafka" } else { "a log in memory" };
    println!("{connections} connections for {seconds} s each, on {log}, {rate} commands/s wanted\n");
    println!("| asked | queries/s | p50 | p99 | p99.9 | commands/s |\n|---|---|---|---|---|---|");
    for (what, keys) in [("the owner", keys(true)), ("another process, which hands it on", keys(false))] {
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let begun = Instant::now();
        let mut times: Vec<Duration> = thread::scope(|scope| {
            scope.spawn(|| {
                let begun = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let n = sent.load(Ordering::Relaxed);
                    if n >= (begun.elapsed().as_secs_f64() * rate as f64) as u64 {
                        thread::sleep(Duration::from_millis(1));
                        continue;
                    }
                    let (to, own) = (id(n as usize * 7919 % ACCOUNTS), format!("{what}-{n}"));
                    sender.send(&to, &own, &AccountCommand::Deposit { amount: 1 }).expect("a command can be sent");
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
            let (keys, stop) = (&keys, &stop);
            let clients: Vec<_> = (0..connections).map(|client| scope.spawn(move || ask(at[0], keys, client as usize, stop))).collect();
            thread::sleep(Duration::from_secs(seconds));
            stop.store(true, Ordering::Relaxed);
            clients.into_iter().flat_map(|client| client.join().expect("a client has an answer to each question")).collect()
        });
        let took = begun.elapsed().as_secs_f64();
        times.sort_unstable();
        let part = |per_mille: usize| times[(times.len() - 1) * per_mille / 1000];
        let (p50, p99, p999) = (part(500), part(990), part(999));
        println!(
            "| {what} | {:.0} | {p50:.2?} | {p99:.2?} | {p999:.2?} | {:.0} |",
            times.len() as f64 / took,
            sent.load(Ordering::Relaxed) as f64 / took
        );
    }
    for running in running {
        running.stop().expect("the application has not failed");
    }
}

fn id(n: usize) -> String {
    format!("acct-{n:011}")
}

/// Asks for one account after the other on one connection. Returns how long each answer took.
fn ask(at: SocketAddr, keys: &[String], client: usize, stop: &AtomicBool) -> Vec<Duration> {
    let mut to = TcpStream::connect(at).expect("the server takes connections");
    to.set_nodelay(true).expect("a socket can be set");
    let mut from = BufReader::new(to.try_clone().expect("a socket can be shared"));
    let (mut times, mut line, mut body) = (Vec::new(), String::new(), Vec::new());
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = &keys[(client * 104_729 + n * 7919) % keys.len()];
        let begun = Instant::now();
        write!(to, "GET /v1/account/state/{key} HTTP/1.1\r\nHost: bench\r\n\r\n").expect("a question can be sent");
        line.clear();
        from.read_line(&mut line).expect("an answer comes");
        assert!(line.contains(" 200 "), "{key}: {line}");
        let mut length = 0;
        loop {
            line.clear();
            from.read_line(&mut line).expect("an answer comes");
            if line == "\r\n" {
                break;
            }
            if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
                length = value.trim().parse().expect("a length is a number");
            }
        }
        body.resize(length, 0);
        from.read_exact(&mut body).expect("an answer is whole");
        times.push(begun.elapsed());
    }
    times
}
