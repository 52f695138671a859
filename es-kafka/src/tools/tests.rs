//! An application on the log in memory, from start to end, and the tools on what it leaves behind.

use super::*;
use crate::App;
use crate::component::Part;
use crate::embedded::Embedded;
use crate::settings::BrokerKind;
use crate::testing::{Account, Balances};
use es_core::runner::Changelog;
use es_core::state_store::{StateStore, WriteBatch};
use es_core::task::entry::Entry;
use es_core::task::layout;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

fn app(embedded: &Embedded, change: impl FnOnce(&mut Settings)) -> App {
    let mut settings = Settings::new("bank");
    settings.broker = BrokerKind::Embedded;
    settings.commit_interval = Duration::from_millis(5);
    change(&mut settings);
    App::with_settings(settings).aggregate::<Account>().table::<Balances>().embedded(embedded.clone())
}

/// Runs the application over `commands` (key, amount) until each has its outcome.
fn serve(app: &App, commands: &[(&str, i64)]) {
    let running = app.start().unwrap();
    for (key, by) in commands {
        let value = format!(r#"{{"type":"Move","by":{by}}}"#);
        running.embedded().unwrap().produce("account-commands", key, &[], value.as_bytes()).unwrap();
    }
    let all = commands.len() as u64;
    let done = running.wait_until(LONG, |lanes| {
        let (account, balances) = (&lanes[0], &lanes[1]);
        account.stats.committed_inputs >= all && account.idle && balances.idle && balances.stats.events >= account.stats.events
    });
    assert!(done, "{:?} {:?}", running.status(), running.stop());
    let stats = running.stop().unwrap();
    assert_eq!(stats[0].1.committed_inputs, all);
}

/// Asks, and returns what was found and printed.
fn ask(app: &App, component: &str, question: Question, json: bool) -> (Finding, String) {
    let Part { topology, component } = app.part(Some(component)).unwrap();
    let mut out = Vec::new();
    let (settings, connection) = (app.settings().unwrap(), app.connection().unwrap());
    let finding = component.inspect(&mut Tool { topology, settings, connection, question, json, out: &mut out }).unwrap();
    (finding, String::from_utf8(out).unwrap())
}

const COMMANDS: [(&str, i64); 6] = [("a", 5), ("b", 7), ("a", -2), ("a", -100), ("c", 1), ("b", 0)];

#[test]
fn what_was_decided_can_be_read_back_in_every_way() {
    let embedded = Embedded::new();
    let app = app(&embedded, |_| {});
    serve(&app, &COMMANDS);
    for component in ["account", "balances"] {
        let (_, listed) = ask(&app, component, Question::States { prefix: String::new(), limit: 2 }, false);
        assert_eq!(listed, "a  {\"balance\":3}\nb  {\"balance\":7}\n");
        let (_, one) = ask(&app, component, Question::State { id: "a".into() }, true);
        assert_eq!(one, "{\"id\":\"a\",\"sequence\":2,\"state\":{\"balance\":3}}\n");
        let missing = ask(&app, component, Question::State { id: "nobody".into() }, true);
        assert_eq!(missing, (Finding::Nothing, String::new()));
        let (finding, report) = ask(&app, component, Question::Verify, false);
        assert_eq!(finding, Finding::Found, "{report}");
        assert!(report.contains("log: 4 events of 3 aggregates in 4 partitions") && report.contains("no difference"), "{report}");
    }
    let (_, history) = ask(&app, "account", Question::History { id: "a".into() }, true);
    let lines: Vec<serde_json::Value> = history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let states: Vec<_> =
        lines.iter().map(|l| (l["sequence"].as_u64(), l["event"]["by"].as_i64(), l["state"]["balance"].as_i64())).collect();
    assert_eq!(states, [(Some(1), Some(5), Some(5)), (Some(2), Some(-2), Some(3))]);
    assert_eq!(lines[0]["type"], "Moved");
    let (mut sum, mut events) = (0, 0);
    app.each_state::<Account>(|_, account| sum += account.balance).unwrap();
    app.each_event::<Account>(|_| events += 1).unwrap();
    assert_eq!((sum, events), (11, 4));
    let outcomes = embedded.read("account-outcomes").unwrap();
    let mut kinds: Vec<_> = outcomes.iter().map(|r| String::from_utf8_lossy(r.header("ce_type").unwrap()).into_owned()).collect();
    kinds.sort();
    assert_eq!(kinds, ["Nothing", "Rejected"]);
}

#[test]
fn a_restart_goes_on_where_the_application_stopped() {
    let embedded = Embedded::new();
    serve(&app(&embedded, |_| {}), &COMMANDS);
    let app = app(&embedded, |_| {});
    serve(&app, &[("a", 10), ("d", 4)]);
    let (_, listed) = ask(&app, "account", Question::States { prefix: String::new(), limit: 9 }, false);
    assert_eq!(listed, "a  {\"balance\":13}\nb  {\"balance\":7}\nc  {\"balance\":1}\nd  {\"balance\":4}\n");
    assert_eq!(ask(&app, "account", Question::Verify, false).0, Finding::Found);
}

#[test]
fn an_application_can_be_stopped_as_soon_as_it_has_started() {
    for pause in [0, 0, 0, 0, 1, 2, 5, 10, 25] {
        let running = app(&Embedded::new(), |_| {}).start().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        running.stop().unwrap();
    }
}

#[test]
fn verify_finds_a_store_that_differs_from_its_log() {
    let embedded = Embedded::new();
    let app = app(&embedded, |_| {});
    serve(&app, &COMMANDS);
    let mut store = embedded.store("account-v1");
    let partition = es_core::partition::partition_of(b"a", 4);
    store.open(partition).unwrap();
    let mut entry: Entry<Account> = layout::read(&store.get(partition, &layout::entry_key("a")).unwrap().unwrap()).unwrap();
    entry.state.balance = 1_000_000;
    let mut batch = WriteBatch::new();
    batch.put_with(&layout::entry_key("a"), |bytes| layout::write(&entry, bytes).unwrap());
    store.write(partition, batch);
    while store.poll().is_none() {}
    store.close(partition);
    let (finding, report) = ask(&app, "account", Question::Verify, false);
    assert_eq!(finding, Finding::Difference);
    assert!(report.contains("`a`: store and fold of the log differ: {\"balance\":1000000} and {\"balance\":3}"), "{report}");
    assert!(report.ends_with("\n1 difference\n"), "{report}");
}

/// A restore from the changelog that ended early leaves entries with outcomes that its position does not tell of.
#[test]
fn verify_follows_the_outcomes_to_an_entry_that_is_ahead_of_its_position() {
    let embedded = Embedded::new();
    let app = app(&embedded, |_| {});
    let running = app.start().unwrap();
    for (id, by) in [("1", 5), ("2", -100)] {
        let value = format!(r#"{{"type":"Move","by":{by}}}"#);
        running.embedded().unwrap().produce("account-commands", "a", &[("ce_id", id.as_bytes())], value.as_bytes()).unwrap();
    }
    assert!(running.wait_until(LONG, |lanes| lanes[0].stats.committed_inputs == 2 && lanes[0].idle && lanes[1].idle));
    running.stop().unwrap();
    let partition = es_core::partition::partition_of(b"a", 4);
    let mut store = embedded.store("account-v1");
    let mut change = |change: &dyn Fn(&mut layout::Position, &mut Entry<Account>)| {
        store.open(partition).unwrap();
        let (entry_key, position_key) = (layout::entry_key("a"), layout::POSITION);
        let mut entry: Entry<Account> = layout::read(&store.get(partition, &entry_key).unwrap().unwrap()).unwrap();
        let mut position: layout::Position = layout::read(&store.get(partition, position_key).unwrap().unwrap()).unwrap();
        change(&mut position, &mut entry);
        let mut batch = WriteBatch::new();
        batch.put_with(&entry_key, |bytes| layout::write(&entry, bytes).unwrap());
        batch.put_with(position_key, |bytes| layout::write(&position, bytes).unwrap());
        store.write(partition, batch);
        while store.poll().is_none() {}
        store.close(partition);
    };
    change(&|position, entry| {
        assert_eq!(entry.memory.iter().count(), 2);
        position.outcomes = 0;
    });
    let (finding, report) = ask(&app, "account", Question::Verify, false);
    assert_eq!(finding, Finding::Found, "{report}");
    change(&|_, entry| entry.memory = Default::default());
    let (finding, report) = ask(&app, "account", Question::Verify, false);
    assert_eq!(finding, Finding::Difference);
    assert!(report.contains("`a`: store and fold of the log differ: 0 and 2 command ids that are remembered"), "{report}");
}

#[test]
fn an_entry_that_cannot_be_read_says_what_to_do() {
    let embedded = Embedded::new();
    let app = app(&embedded, |_| {});
    serve(&app, &COMMANDS);
    let mut store = embedded.store("account-v1");
    let partition = es_core::partition::partition_of(b"a", 4);
    store.open(partition).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&layout::entry_key("a"), &[1, 255]);
    store.write(partition, batch);
    while store.poll().is_none() {}
    store.close(partition);
    for question in [Question::State { id: "a".into() }, Question::Verify] {
        let Part { topology, component } = app.part(Some("account")).unwrap();
        let (settings, connection) = (app.settings().unwrap(), app.connection().unwrap());
        let mut tool = Tool { topology, settings, connection, question, json: false, out: &mut Vec::new() };
        let error = component.inspect(&mut tool).unwrap_err().to_string();
        assert!(error.contains("the entry of `a` cannot be read: "), "{error}");
        assert!(error.ends_with("if the state's type was changed, raise its `version`"), "{error}");
    }
}

#[test]
fn a_store_that_is_not_compared_is_not_said_to_be_equal() {
    let embedded = Embedded::new();
    let app = app(&embedded, |_| {});
    let admin = app.connection().unwrap().admin(app.settings().unwrap()).unwrap();
    let topologies: Vec<_> = app.parts().unwrap().into_iter().map(|part| part.topology).collect();
    crate::topics::Plan::make(&topologies, app.settings().unwrap(), &*admin).unwrap().apply(&*admin).unwrap();
    let (finding, report) = ask(&app, "account", Question::Verify, false);
    assert_eq!(finding, Finding::Found);
    assert!(report.contains("store: not compared (the store holds nothing of this log)"), "{report}");
    assert!(report.ends_with("no difference between log and changelog\n"), "{report}");
}

#[test]
fn verify_finds_a_changelog_that_lacks_a_state() {
    let embedded = Embedded::new();
    let app = app(&embedded, |s| s.changelog = Changelog::EachCommit);
    serve(&app, &COMMANDS);
    let partition = es_core::partition::partition_of(b"b", 4);
    embedded.cluster().produce_to("bank-account-v1-changelog", partition, Some(&layout::entry_key("b")), &[], None).unwrap();
    let (finding, report) = ask(&app, "account", Question::Verify, false);
    assert_eq!(finding, Finding::Difference);
    assert!(report.contains("`b`: the log holds it, the changelog does not"), "{report}");
}

#[test]
fn wrong_topics_stop_the_start() {
    let embedded = Embedded::new();
    embedded.cluster().create_topic("account-commands", 4, Default::default()).unwrap();
    embedded.cluster().create_topic("account-events", 3, Default::default()).unwrap();
    let error = app(&embedded, |_| {}).start().err().unwrap().to_string();
    assert!(error.contains("topic `account-events` has 3 partitions, but `account-commands` has 4"), "{error}");
    let error = app(&Embedded::new(), |s| s.topics_create = crate::settings::TopicCreation::Check).start().err().unwrap().to_string();
    assert!(error.contains("topic `account-commands` does not exist"), "{error}");
}

#[test]
fn an_application_that_is_put_together_wrongly_is_refused() {
    let refused = |app: App| app.start().err().unwrap().to_string();
    assert!(refused(App::with_settings(Settings::new("bank"))).contains("neither an aggregate nor a table"));
    let twice = App::with_settings(Settings::new("bank")).aggregate::<Account>().aggregate::<Account>();
    assert!(refused(twice).contains("two components are named `account`"));
    let mut settings = Settings::new("bank");
    settings.set("acount.topics.events", "x").unwrap();
    assert!(refused(App::with_settings(settings).aggregate::<Account>()).contains("did you mean `account.topics.events`?"));
}
