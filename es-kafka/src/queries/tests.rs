//! The server on a log in memory: what it answers, and what it refuses.

use super::routes::{OPENAPI, routes};
use super::sign::Sign;
use crate::embedded::Embedded;
use crate::testing::{Account, AccountCommand, AccountEvent, Balances, Moved};
use crate::{App, QueryClient, Reading, Running, Sender, Settings};
use es_core::partition::partition_of;
use es_core::{Aggregate, Context, Decide, Decision, emit};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(30);

/// An application that answers queries.
struct World {
    app: App,
    running: Running,
    at: SocketAddr,
}

impl World {
    fn new(changes: &[(&str, &str)]) -> Self {
        Self::on(Embedded::new(), changes)
    }

    fn on(embedded: Embedded, changes: &[(&str, &str)]) -> Self {
        let mut settings = Settings::new("bank");
        settings.set("broker", "embedded").unwrap();
        settings.set("listen", "127.0.0.1:0").unwrap();
        changes.iter().for_each(|(key, value)| settings.set(key, value).unwrap());
        let app = App::with_settings(settings).embedded(embedded).aggregate::<Account>().table::<Balances>();
        let running = app.start().unwrap();
        let at = running.listens_at().unwrap();
        let world = World { app, running, at };
        assert!(
            world.running.wait_until(LONG, |lanes| lanes.iter().all(|c| c.lanes.iter().all(|lane| lane.joined && lane.partitions > 0)))
        );
        world
    }

    fn sender(&self) -> Sender<Account> {
        self.app.sender().unwrap()
    }

    /// Moves accounts by one, each once, and waits until that is done.
    fn fill(&self, ids: impl Iterator<Item = String>) {
        let (mut sender, mut wanted) = (self.sender(), 0);
        for id in ids {
            sender.send(&id, &format!("fill-{id}"), &AccountCommand::Move { by: 1 }).unwrap();
            wanted += 1;
        }
        let done = |lane: &crate::ComponentStatus| lane.stats.committed_inputs >= wanted && lane.running == 4;
        assert!(self.running.wait_until(LONG, |lanes| lanes.iter().all(done)));
    }

    fn get(&self, target: &str) -> Reply {
        get(self.at, target, &[])
    }

    /// All items, page by page, with a call between two pages.
    fn pages(&self, query: &str, mut between: impl FnMut(usize)) -> Vec<(String, u64)> {
        let (mut all, mut cursor, mut number) = (Vec::new(), String::new(), 0);
        loop {
            let page = self.get(&format!("/v1/account/states?{query}{cursor}"));
            assert_eq!(page.status, 200, "{page:?}");
            for item in page.body["items"].as_array().unwrap() {
                all.push((item["id"].as_str().unwrap().to_owned(), item["sequence"].as_u64().unwrap()));
            }
            let Some(next) = page.body["cursor"].as_str() else { return all };
            cursor = format!("&cursor={next}");
            between(number);
            number += 1;
        }
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

impl Reply {
    fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }
}

fn get(at: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Reply {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    raw(at, format!("GET {target} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n").as_bytes())
}

/// The body as it is.
fn text(at: SocketAddr, target: &str) -> String {
    let reply = bytes(at, format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
    String::from_utf8(reply).unwrap().split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// What comes back for these bytes.
fn raw(at: SocketAddr, sent: &[u8]) -> Reply {
    read(&bytes(at, sent))
}

fn bytes(at: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    // The server may have refused it before all is written.
    let _ = stream.write_all(sent);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    reply
}

fn read(reply: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(reply).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Reply { status, headers: headers.collect(), body: serde_json::from_str(body).unwrap_or(Value::Null) }
}

#[test]
fn a_state_is_found_or_not_and_the_newest_is_waited_for() {
    let world = World::new(&[]);
    let mut sender = world.sender();
    for (id, by) in [("acct-1", 5), ("acct-1", 7), ("é/ 1", 3), ("poor", -1)] {
        sender.send(id, &format!("{id}{by}"), &AccountCommand::Move { by }).unwrap();
    }
    let written = sender.send_and_wait("acct-1", "last", &AccountCommand::Move { by: 1 }, LONG).unwrap();
    let partition = partition_of(b"acct-1", 4);
    assert_eq!(written.partition, partition);
    let found = world.get(&format!("/v1/account/state/acct-1?min_position={written}&wait=10s"));
    let expected = serde_json::json!({ "id": "acct-1", "partition": partition, "position": written.offset + 1, "sequence": 3, "state": { "balance": 13 } });
    assert_eq!((found.status, &found.body), (200, &expected), "{found:?}");
    world.fill(std::iter::once("other".to_owned()));
    assert!(world.running.wait_until(LONG, |lanes| lanes[0].stats.committed_inputs == 6));
    assert_eq!(world.get("/v1/account/state/%C3%A9%2F%201").body["state"]["balance"], 3, "an id may hold anything");
    for nobody in ["nobody", "poor"] {
        let absent = world.get(&format!("/v1/account/state/{nobody}"));
        assert_eq!((absent.status, absent.error()), (404, "not_found"), "{absent:?}");
    }
    let behind = world.get(&format!("/v1/account/state/acct-1?min_position={partition}:1000&wait=50ms"));
    assert_eq!((behind.status, behind.error()), (503, "not_caught_up"), "{behind:?}");
    assert!(behind.body["position"].as_i64() > Some(written.offset), "{behind:?}");
    assert_eq!(world.get("/v1/none/state/x").error(), "unknown_component");
    assert_eq!(world.get(&format!("/v1/account/state/acct-1?min_position={}:1", (partition + 1) % 4)).error(), "bad_request");
    let row = world.get("/v1/balances/state/acct-1?wait=10s");
    assert_eq!((row.status, &row.body["state"]["balance"]), (200, &Value::from(13)), "{row:?}");
}

#[test]
fn pages_hold_each_key_exactly_once_while_others_are_written() {
    let world = World::new(&[]);
    let ids: Vec<String> = (0..600).map(|n| format!("acct-{n:04}")).chain((0..50).map(|n| format!("b-{n}"))).collect();
    world.fill(ids.iter().cloned());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Old keys change all the time, and new ones come.
        let (mut sender, stop) = (world.sender(), &stop);
        scope.spawn(move || {
            for n in 0..200_000 {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let id = if n % 3 == 0 { format!("acct-new-{n}") } else { format!("acct-{:04}", n * 7 % 600) };
                sender.send(&id, &format!("more-{n}"), &AccountCommand::Move { by: 1 }).unwrap();
            }
        });
        for limit in [1000, 97, 13] {
            let all = world.pages(&format!("prefix=acct-0&limit={limit}"), |_| ());
            let mut found: Vec<String> = all.iter().map(|(id, _)| id.clone()).collect();
            found.sort();
            assert_eq!(found, ids[..600], "limit {limit}");
        }
        let count = world.get("/v1/account/count?prefix=b-");
        assert_eq!((count.status, &count.body["count"]), (200, &Value::from(50)), "{count:?}");
        stop.store(true, Ordering::Relaxed);
    });
    // Ranges, within a partition in the order of the ids.
    let some = world.pages("from=acct-0100&to=acct-0200&limit=9&partition=2", |_| ());
    let expected: Vec<String> = ids[100..200].iter().filter(|id| partition_of(id.as_bytes(), 4) == 2).cloned().collect();
    assert_eq!(some.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), expected);
    // A page ends by its bytes too.
    let small = World::new(&[("query.max.page.bytes", "200")]);
    small.fill(ids[..50].iter().cloned());
    let page = small.get("/v1/account/states?limit=1000");
    assert!((1..50).contains(&page.body["count"].as_u64().unwrap()), "{page:?}");
    assert_eq!(small.pages("limit=1000", |_| ()).len(), 50);
}

#[test]
fn positions_health_and_readiness_are_told() {
    let world = World::new(&[("threads", "2")]);
    world.fill((0..20).map(|n| format!("acct-{n}")));
    let positions = world.get("/v1/account/positions");
    let sum: i64 = positions.body["partitions"].as_array().unwrap().iter().map(|p| p["position"].as_i64().unwrap()).sum();
    assert_eq!((positions.status, sum), (200, 20), "{positions:?}");
    assert_eq!(world.get("/v1/account/positions?partition=1").body["partitions"].as_array().unwrap().len(), 1);
    assert_eq!((world.get("/health/live").status, world.get("/health/ready").status), (200, 200));
    let health = world.get("/health").body;
    assert_eq!(
        (&health["app"], &health["ready"], &health["endpoint"]),
        (&"bank".into(), &true.into(), &world.at.to_string().into()),
        "{health}"
    );
    let lanes = health["components"][0]["lanes"].as_array().unwrap();
    let tasks: Vec<&Value> = lanes.iter().flat_map(|lane| lane["tasks"].as_array().unwrap()).map(|task| &task["state"]).collect();
    assert_eq!((lanes.len(), tasks), (2, vec![&Value::from("running"); 4]), "{health}");
    assert_eq!(lanes[1]["transactional_id"], "bank-embedded-account-1");
    let components = world.get("/v1/components").body;
    assert_eq!(components["components"][0]["owners"], serde_json::json!(vec![world.at.to_string(); 4]), "{components}");
}

#[test]
fn any_process_is_asked_and_the_owner_answers() {
    let embedded = Embedded::new();
    let (one, other) = (World::on(embedded.clone(), &[]), World::on(embedded.clone(), &[]));
    let shared =
        || one.running.wait_until(LONG, |lanes| lanes[0].running == 2) && other.running.wait_until(LONG, |lanes| lanes[0].running == 2);
    assert!(shared());
    let mut sender = one.sender();
    let mut handed_on = 0;
    for n in 0..500 {
        let id = format!("acct-{}", n % 40);
        let written = sender.send_and_wait(&id, &format!("c{n}"), &AccountCommand::Move { by: 1 }, LONG).unwrap();
        let asked = if n % 2 == 0 { &one } else { &other };
        let found = asked.get(&format!("/v1/account/state/{id}?min_position={written}&wait=10s"));
        assert_eq!((found.status, &found.body["state"]["balance"]), (200, &Value::from(n / 40 + 1)), "{id} {found:?}");
        handed_on += usize::from(found.headers.contains_key("es-answered-by"));
    }
    assert!(handed_on > 50, "{handed_on} answers came from the other process");
    assert_eq!(one.get("/v1/account/count").body["count"], 40);
    assert_eq!(one.pages("limit=7", |_| ()).len(), 40);
    assert_eq!(other.get("/v1/account/positions").body["partitions"].as_array().unwrap().len(), 4);
    // Who is not the owner says who is, to a client that wants to know, and to a process that has handed on already.
    let far = (0..40)
        .map(|n| format!("/v1/account/state/acct-{n}"))
        .find(|target| one.get(target).headers.contains_key("es-answered-by"))
        .unwrap();
    let redirected = get(one.at, &far, &[("Es-Redirect", "1")]);
    assert_eq!((redirected.status, redirected.error()), (307, "moved"), "{redirected:?}");
    assert_eq!(redirected.headers["location"], format!("http://{}{far}", other.at));
    let forwarded = get(one.at, &far, &[("Es-Forwarded", "0")]);
    assert_eq!((forwarded.status, &forwarded.body["owner"]), (421, &other.at.to_string().into()), "{forwarded:?}");
    // The other one leaves in the midst of reads: each is answered, and shows what was written.
    thread::scope(|scope| {
        let running = &other.running;
        scope.spawn(|| running.ask_to_stop());
        for n in 0..200_usize {
            let id = format!("acct-{}", n % 40);
            let written = sender.send_and_wait(&id, &format!("d{n}"), &AccountCommand::Move { by: 1 }, LONG).unwrap();
            let found = one.get(&format!("/v1/account/state/{id}?min_position={written}&wait=10s"));
            assert_eq!(found.status, 200, "{found:?}");
            let expected = (500 - n % 40).div_ceil(40) + n / 40 + 1;
            assert_eq!(found.body["state"]["balance"], expected, "{id} {found:?}");
        }
    });
    let expected = one.running.wait_until(LONG, |lanes| lanes[0].running == 4);
    assert!(expected, "{:?}", one.running.status());
}

#[test]
fn a_standby_answers_who_takes_what_may_be_old_and_tells_its_lag() {
    let embedded = Embedded::new();
    let standbys = [("num.standby.replicas", "1")];
    let (one, other) = (World::on(embedded.clone(), &standbys), World::on(embedded, &standbys));
    let shared = |world: &World, lag| {
        let followed = |all: &[crate::ComponentStatus]| {
            all[0].running == 2 && all[0].standbys.len() == 2 && all[0].standbys.values().all(|known| *known == Some(lag))
        };
        assert!(world.running.wait_until(LONG, followed), "{:?}", world.running.status());
    };
    shared(&one, 0);
    shared(&other, 0);
    let mut sender = one.sender();
    for n in 0..40 {
        sender.send_and_wait(&format!("acct-{n}"), &format!("c{n}"), &AccountCommand::Move { by: 1 }, LONG).unwrap();
    }
    let (mut owned, mut followed) = (0, 0);
    for n in 0..40 {
        let target = format!("/v1/account/state/acct-{n}");
        let begun = Instant::now();
        let stale = loop {
            let stale = one.get(&format!("{target}?stale=true"));
            // Until it keeps its copies, others answer or nobody; and a copy may not have folded it yet.
            if stale.status == 200 && !stale.headers.contains_key("es-answered-by") {
                break stale;
            }
            assert!(begun.elapsed() < LONG, "{stale:?}");
        };
        assert_eq!(stale.body["state"]["balance"], 1, "{stale:?}");
        let newest = one.get(&target);
        assert_eq!((newest.status, newest.body["lag_records"].is_null()), (200, true), "{newest:?}");
        match newest.headers.contains_key("es-answered-by") {
            true => {
                followed += 1;
                assert!(stale.body["lag_records"].is_u64() && stale.body["position"].is_null(), "{stale:?}");
                // What must be reflected is asked of the owner.
                let partition = partition_of(format!("acct-{n}").as_bytes(), 4);
                let reflects = one.get(&format!("{target}?stale=true&min_position={partition}:0"));
                assert!(reflects.headers.contains_key("es-answered-by"), "{reflects:?}");
            }
            false => {
                owned += 1;
                assert!(stale.body["lag_records"].is_null() && stale.body["position"].is_i64(), "{stale:?}");
            }
        }
    }
    assert!(owned > 5 && followed > 5, "{owned} {followed}");
    // All are known to have what they have, and the lag is measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = QueryClient::new(&[one.at.to_string()], &Settings::new("bank")).unwrap();
    let found = runtime.block_on(client.state::<Account>("acct-1", Reading::stale())).unwrap().unwrap();
    assert_eq!(found.state.balance, 1);
    let components = one.get("/v1/components").body;
    assert_eq!(components["components"][0]["standbys"].as_array().unwrap().len(), 4, "{components}");
    let begun = Instant::now();
    loop {
        let measured = text(one.at, "/metrics");
        let lags = measured.lines().filter(|line| line.starts_with("es_standby_lag_records{component=\"account\"")).count();
        if lags == 2 {
            break;
        }
        // A lane tells what it does every 50 ms.
        assert!(begun.elapsed() < LONG, "{lags} lags: {measured}");
    }
}

#[test]
fn what_is_measured_is_told_to_who_may_ask() {
    let world = World::new(&[("query.token", "secret-1")]);
    let refused = get(world.at, "/metrics", &[]);
    assert_eq!((refused.status, refused.error()), (401, "unauthorized"), "{refused:?}");
    let told = get(world.at, "/metrics", &[("Authorization", "Bearer secret-1")]);
    assert_eq!((told.status, told.headers["content-type"].as_str()), (200, crate::metrics::CONTENT_TYPE), "{told:?}");
    let free = World::new(&[]);
    free.fill((0..7).map(|n| format!("acct-{n}")));
    let text = text(free.at, "/metrics");
    let inputs = "es_committed_inputs_total{component=\"account\",lane=";
    let sum: f64 =
        text.lines().filter(|line| line.starts_with(inputs)).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert!((sum - 7.0).abs() < 0.1, "{text}");
}

#[test]
fn who_shows_no_token_learns_nothing_but_life_and_readiness() {
    let world = World::new(&[("query.token", "secret-1")]);
    for headers in
        [&[][..], &[("Authorization", "Bearer secret-2")], &[("Authorization", "secret-1")], &[("Authorization", "Basic secret-1")]]
    {
        let refused = get(world.at, "/v1/account/state/x", headers);
        assert_eq!((refused.status, refused.error()), (401, "unauthorized"), "{refused:?}");
        assert_eq!(get(world.at, "/health", headers).status, 401);
        assert_eq!(get(world.at, "/health/live", headers).status, 200);
    }
    assert_eq!(get(world.at, "/v1/account/state/x", &[("Authorization", "Bearer secret-1")]).status, 404);
}

#[test]
fn what_is_too_much_is_refused_with_what_to_do() {
    let limits =
        [("query.max.request.bytes", "1KiB"), ("query.max.page.items", "10"), ("query.max.wait", "100ms"), ("query.max.scans", "1")];
    let world = World::new(&limits);
    let check = |target: &str, status, error, named: &str| {
        let reply = world.get(target);
        assert_eq!((reply.status, reply.error()), (status, error), "{target} {reply:?}");
        assert!(reply.body["message"].as_str().unwrap().contains(named), "{reply:?}");
    };
    check(&format!("/v1/account/state/{}", "x".repeat(2000)), 413, "too_large", "query.max.request.bytes");
    check("/v1/account/states?limit=11", 413, "too_large", "query.max.page.items");
    check("/v1/account/state/x?wait=1s", 413, "too_large", "query.max.wait");
    let body = raw(world.at, b"GET /v1/account/state/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n");
    assert_eq!((body.status, body.error()), (413, "too_large"), "{body:?}");
    let slow = World::new(&[("query.max.rate", "5")]);
    let replies: Vec<Reply> = (0..12).map(|_| slow.get("/v1/account/state/x")).collect();
    let refused = replies.iter().find(|reply| reply.status == 429).expect("twelve at once are too many");
    assert_eq!((refused.error(), refused.headers["retry-after"].as_str()), ("too_many_requests", "1"), "{refused:?}");
    // One question waits, and there is no place for another.
    let full = World::new(&[("query.max.concurrent", "1"), ("query.max.wait", "30s")]);
    thread::scope(|scope| {
        let (at, partition) = (full.at, partition_of(b"x", 4));
        let target = format!("/v1/account/state/x?min_position={partition}:0&wait=30s");
        // The only place may be another's at first.
        let waiting = scope.spawn(move || (0..1000).map(|_| get(at, &target, &[])).find(|reply| reply.status != 429).unwrap());
        let begun = Instant::now();
        while full.get("/v1/account/state/x").status != 429 {
            assert!(begun.elapsed() < LONG, "the question that waits takes no place");
        }
        full.sender().send("x", "1", &AccountCommand::Move { by: 1 }).unwrap();
        let found = waiting.join().unwrap();
        assert_eq!((found.status, &found.body["state"]["balance"]), (200, &1.into()), "{found:?}");
    });
}

#[test]
fn rubbish_is_refused_and_breaks_nothing() {
    let world = World::new(&[]);
    world.fill((0..10).map(|n| format!("acct-{n}")));
    let targets = [
        "/v1/account/state/%FF%FE",
        "/v1/account/state/x?min_position=1",
        "/v1/account/state/x?min_position=-1:-1",
        "/v1/account/state/x?wait=-5",
        "/v1/account/state/x?wait=forever",
        "/v1/account/state/x?stale=perhaps",
        "/v1/account/state/x?nothing=1",
        "/v1/account/states?limit=0",
        "/v1/account/states?limit=-1",
        "/v1/account/states?limit=99999999999999999999",
        "/v1/account/states?cursor=zz",
        "/v1/account/states?cursor=7fffffff",
        "/v1/account/states?cursor=0000000001ff",
        "/v1/account/states?partition=9",
        "/v1/account/states?partition=1&partition=2",
        "/v1/account/states?partition=0&cursor=00000001",
        "/v1/account/count?limit=1",
        "/v1/account/positions?partition=x",
    ];
    for target in targets {
        let reply = world.get(target);
        assert_eq!((reply.status, reply.error()), (400, "bad_request"), "{target} {reply:?}");
    }
    assert_eq!(world.get("/v2").error(), "no_such_route");
    assert_eq!(raw(world.at, b"DELETE /v1/account/state/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").error(), "method_not_allowed");
    // Bytes as they come: the same from run to run, so that what fails once fails again.
    let mut number = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        number
    };
    let alphabet: Vec<u8> = b"/v1account%statepositionscountcursor=&?:;,. ~\\\"'<>\t\xc3\xa9\xff\x0012345".to_vec();
    for n in 0..400 {
        let noise: Vec<u8> = (0..random() % 60).map(|_| alphabet[(random() as usize) % alphabet.len()]).collect();
        let start: &[u8] =
            [&b"GET /v1/account/state/"[..], b"GET /v1/account/states?", b"GET /v1/", b"GET /v1/account/states?cursor=", b""][n % 5];
        let bytes = [start, &noise, b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"].concat();
        let reply = raw(world.at, &bytes);
        assert!(matches!(reply.status, 0 | 200 | 400..=499), "{:?} {reply:?}", String::from_utf8_lossy(&bytes));
    }
    assert_eq!(world.get("/v1/account/count").body["count"], 10, "it answers as before");
    assert!(!world.running.has_ended());
}

#[test]
fn beyond_this_machine_somebody_must_show_something() {
    let start = |changes: &[(&str, &str)]| {
        let mut settings = Settings::new("bank");
        settings.set("broker", "embedded").unwrap();
        changes.iter().for_each(|(key, value)| settings.set(key, value).unwrap());
        App::with_settings(settings).embedded(Embedded::new()).aggregate::<Account>().start().map(drop)
    };
    let refused = |changes: &[(&str, &str)]| start(changes).unwrap_err().to_string();
    assert!(refused(&[("listen", "0.0.0.0:0")]).contains("`query.token`"));
    assert!(start(&[("listen", "0.0.0.0:0"), ("query.token", "t")]).is_ok());
    assert!(start(&[("listen", "127.0.0.1:0")]).is_ok());
    assert!(refused(&[("query.tls.certificate", "a.pem")]).contains("query.tls.key"));
    assert!(refused(&[("query.token", "not visible: é")]).contains("query.token"));
    assert!(
        refused(&[("listen", "127.0.0.1:0"), ("query.tls.certificate", "/none"), ("query.tls.key", "/none"), ("query.tls.ca", "/none")])
            .contains("`query.tls.certificate`: `/none`")
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert!(refused(&[("listen", &address)]).contains(&format!("cannot listen on {address}")));
    let shown = format!("{:?}", {
        let mut s = Settings::new("b");
        s.set("query.token", "hunter2").unwrap();
        s
    });
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn the_description_has_the_routes_and_their_parameters() {
    let described: Value = serde_json::from_str(OPENAPI).unwrap();
    let paths = described["paths"].as_object().unwrap();
    let known: Vec<&str> = routes().iter().map(|(path, _)| *path).collect();
    assert_eq!(paths.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(), known.iter().copied().collect());
    let world = World::new(&[]);
    assert_eq!(world.get("/openapi.json").body, described);
    for (path, methods) in paths {
        let mut target = path.replace("{component}", "account").replace("{id}", "x");
        assert_eq!(world.get(&format!("{target}?surely_unknown=1")).status == 400, path.starts_with("/v1"), "{path}");
        for (i, parameter) in methods["get"]["parameters"].as_array().unwrap().iter().filter(|p| p["in"] == "query").enumerate() {
            let name = parameter["name"].as_str().unwrap();
            let value = match name {
                "min_position" => format!("{}:0", partition_of(b"x", 4)),
                "wait" => "1ms".to_owned(),
                "cursor" => "00000000".to_owned(),
                "limit" => "1".to_owned(),
                _ => "0".to_owned(),
            };
            target = format!("{target}{}{name}={value}", if i == 0 { '?' } else { '&' });
        }
        let reply = world.get(&target);
        let status = reply.status.to_string();
        assert!(reply.status != 400 && methods["get"]["responses"].get(&status).is_some(), "{target} {reply:?}");
    }
}

/// An account whose history is kept.
#[derive(Aggregate, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = AccountEvent, version = 1, history)]
struct Kept {
    #[fold(Moved => add(by))]
    balance: i64,
}

impl Decide for Kept {
    type Command = AccountCommand;
    type Rejection = String;

    fn decide(&self, AccountCommand::Move { by }: &AccountCommand, _: &Context<'_>) -> Decision<Self> {
        emit(Moved { by: *by })
    }
}

#[test]
fn a_history_is_read_by_its_own_events_page_by_page() {
    let mut settings = Settings::new("bank");
    settings.set("broker", "embedded").unwrap();
    settings.set("listen", "127.0.0.1:0").unwrap();
    let app = App::with_settings(settings).embedded(Embedded::new()).aggregate::<Kept>();
    for round in 1..=2_usize {
        let running = app.start().unwrap();
        let at = running.listens_at().unwrap();
        assert!(running.wait_until(LONG, |all| all[0].lanes.iter().all(|lane| lane.partitions > 0)));
        let mut sender = app.sender::<Kept>().unwrap();
        let mut written = None;
        for n in 0..300_i64 {
            // Far apart and near each other, among many others' events.
            let id = if n % 50 < 5 { "own".to_owned() } else { format!("other-{}", n % 7) };
            let sent = sender.send_and_wait(&id, &format!("{round}-{n}"), &AccountCommand::Move { by: n }, LONG).unwrap();
            written = if id == "own" { Some(sent) } else { written };
        }
        let written = written.unwrap();
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let page = get(at, &format!("/v1/account/history/own?after={after}&limit=7&min_position={written}&wait=10s"), &[]);
            assert_eq!(page.status, 200, "{page:?}");
            all.extend(page.body["events"].as_array().unwrap().clone());
            let Some(next) = page.body["next"].as_u64() else { break };
            after = next;
        }
        let expected: Vec<i64> = (0..round).flat_map(|_| (0..300).filter(|n| n % 50 < 5)).collect();
        let found = |name: &str| all.iter().map(|event| event[name].clone()).collect::<Vec<_>>();
        assert_eq!(found("sequence"), (1..=expected.len()).map(Value::from).collect::<Vec<_>>());
        assert_eq!(found("event"), expected.iter().map(|by| serde_json::json!({ "by": by })).collect::<Vec<_>>());
        assert_eq!((&all[0]["type"], &all[0]["causation_id"]), (&"Moved".into(), &"1-0".into()));
        let nobody = get(at, "/v1/account/history/nobody", &[]);
        assert_eq!((nobody.status, &nobody.body["events"]), (200, &serde_json::json!([])), "{nobody:?}");
        running.stop().unwrap();
    }
    let without = World::new(&[]).get("/v1/account/history/x");
    assert_eq!((without.status, without.error()), (404, "no_history"), "{without:?}");
}

#[test]
fn an_owner_without_a_sign_of_its_group_is_stale() {
    let sign = Sign::default();
    assert_eq!(sign.age(), None, "a protocol without signs makes nothing stale");
    sign.seen(Instant::now());
    assert!(sign.age().unwrap() < LONG);
    // An idle lane gives a sign every 20 ms, and answers before it gives the next.
    let world = World::new(&[("query.max.age", "1ms")]);
    world.fill((0..1).map(|n| format!("acct-{n}")));
    let begun = Instant::now();
    let stale = loop {
        let reply = world.get("/v1/account/state/acct-0");
        if reply.status != 200 {
            break reply;
        }
        assert!(begun.elapsed() < LONG, "no answer is stale");
    };
    assert_eq!((stale.status, stale.error()), (503, "stale"), "{stale:?}");
    assert!(stale.body["age_ms"].as_u64() >= Some(1), "{stale:?}");
    for _ in 0..20 {
        assert_eq!(world.get("/v1/account/state/acct-0?stale=true").status, 200, "the client takes what may be old");
    }
}

/// An authority, and certificates that it has signed, as files.
struct Authority {
    folder: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let (folder, key) = (tempfile::tempdir().unwrap(), rcgen::KeyPair::generate().unwrap());
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        Authority { folder, issuer }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// The settings of one who has a certificate of it, and believes it.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(self.file("own.pem"), params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(self.file("own.key"), key.serialize_pem()).unwrap();
        vec![
            ("query.tls.certificate", self.file("own.pem")),
            ("query.tls.key", self.file("own.key")),
            ("query.tls.ca", self.file("ca.pem")),
        ]
    }
}

#[test]
fn only_who_has_a_certificate_is_let_in_and_questions_are_handed_on_over_tls() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut settings = ours.settings();
    settings.push(("query.tls.client.ca", ours.file("ca.pem")));
    let changes: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let embedded = Embedded::new();
    let (one, other) = (World::on(embedded.clone(), &changes), World::on(embedded, &changes));
    let shared = |world: &World| world.running.wait_until(LONG, |lanes| lanes[0].running == 2);
    assert!(shared(&one) && shared(&other));
    let mut sender = one.sender();
    let written: Vec<_> = (0..20)
        .map(|n| sender.send_and_wait(&format!("acct-{n}"), &n.to_string(), &AccountCommand::Move { by: 1 }, LONG).unwrap())
        .collect();
    let client = |changes: &[(&str, &str)]| {
        let mut settings = Settings::new("bank");
        changes.iter().for_each(|(key, value)| settings.set(key, value).unwrap());
        QueryClient::new(&[one.at.to_string()], &settings).unwrap()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let known = client(&changes);
        for (n, written) in written.iter().enumerate() {
            let found = known.state::<Account>(&format!("acct-{n}"), Reading::of(*written)).await.unwrap().unwrap();
            assert_eq!((found.sequence, found.state.balance), (1, 1));
        }
        // One of the two asks the other.
        assert_eq!(known.count::<Account>("acct-").await, Ok(20));
    });
    let stranger = theirs.settings();
    let stranger = [("query.tls.ca", ours.file("ca.pem")), stranger[0].clone(), stranger[1].clone()];
    let stranger: Vec<(&str, &str)> = stranger.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let believer = [("query.tls.ca", ours.file("ca.pem"))];
    let nobody: Vec<(&str, &str)> = believer.iter().map(|(key, value)| (*key, value.as_str())).collect();
    for (who, changes) in [("a stranger", &stranger), ("one without a certificate", &nobody)] {
        let client = client(changes);
        let refused = runtime.block_on(async { tokio::time::timeout(Duration::from_millis(300), client.count::<Account>("")).await });
        assert!(!matches!(refused, Ok(Ok(_))), "{who} is let in");
    }
    assert_eq!(one.get("/health/live").status, 0, "plain HTTP is not spoken");
}
