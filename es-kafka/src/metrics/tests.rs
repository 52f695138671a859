use super::*;
use crate::settings::{BrokerKind, Threads};
use crate::status::TaskStatus;
use crate::testing::Account;
use crate::{App, Settings};
use es_core::runner::Phase;
use es_core::stats::{BATCH_INPUTS, MICROSECONDS};
use es_core::task::TaskState;
use std::collections::BTreeSet;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A lane of which everything is known.
fn lane() -> LaneStatus {
    let mut lane = LaneStatus { component: "account".into(), ..LaneStatus::default() };
    lane.stats.accepted = 5;
    lane.stats.aborts = 3;
    lane.stats.unknown_outcomes = 1;
    lane.stats.aborts_by_cause[1] = 2;
    lane.stats.batch_inputs.record(&BATCH_INPUTS, 7);
    lane.stats.commit_time.record(&MICROSECONDS, 2_000);
    lane.stats.commit_time.record(&MICROSECONDS, 11_000_000);
    lane.details.member = Some(true);
    lane.details.phase = Phase::Running;
    lane.standbys = [(3, Some(12)), (4, None)].into();
    let task = |partition, state, lag, restoring| TaskStatus { partition, state, standby: false, position: 0, lag, restoring };
    lane.details.tasks = vec![task(0, TaskState::Running, Some(9), None), task(1, TaskState::Restoring, None, Some((10, 40)))];
    lane
}

fn snapshot() -> Snapshot {
    Snapshot { app: "bank".into(), lanes: vec![lane()], disk_bytes: Some(1 << 20), memory_limit: 160 << 20, resident_bytes: Some(70 << 20) }
}

#[test]
fn values_are_rendered_with_their_units_and_labels() {
    let text = render(families::of(&snapshot()));
    for line in [
        "# TYPE es_commands_total counter",
        r#"es_commands_total{component="account",lane="0",result="accepted"} 5"#,
        r#"es_transactions_total{component="account",lane="0",outcome="aborted"} 2"#,
        r#"es_aborts_total{component="account",lane="0",cause="abortable"} 2"#,
        r#"es_batch_inputs_bucket{component="account",lane="0",le="5"} 0"#,
        r#"es_batch_inputs_bucket{component="account",lane="0",le="10"} 1"#,
        "# TYPE es_commit_duration_seconds histogram",
        r#"es_commit_duration_seconds_bucket{component="account",lane="0",le="0.0025"} 1"#,
        r#"es_commit_duration_seconds_bucket{component="account",lane="0",le="10"} 1"#,
        r#"es_commit_duration_seconds_bucket{component="account",lane="0",le="+Inf"} 2"#,
        r#"es_commit_duration_seconds_sum{component="account",lane="0"} 11.002"#,
        r#"es_commit_duration_seconds_count{component="account",lane="0"} 2"#,
        r#"es_group_member{component="account",lane="0"} 1"#,
        r#"es_lane_phase{component="account",lane="0",phase="running"} 1"#,
        r#"es_lane_phase{component="account",lane="0",phase="stopped"} 0"#,
        r#"es_tasks{component="account",lane="0",state="restoring"} 1"#,
        r#"es_task_lag_records{component="account",lane="0",partition="0"} 9"#,
        r#"es_task_restore_wanted_records{component="account",lane="0",partition="1"} 40"#,
        r#"es_standby_lag_records{component="account",lane="0",partition="3"} 12"#,
        "es_store_disk_bytes 1048576",
        "# TYPE es_memory_limit_bytes gauge",
        "process_resident_memory_bytes 73400320",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(
        !text.contains(r#"es_task_lag_records{component="account",lane="0",partition="1"}"#),
        "a task that does not process has no lag"
    );
}

#[test]
fn a_label_is_escaped() {
    let mut strange = lane();
    strange.component = "a\"b\\c".into();
    let text = render(families::of(&Snapshot { lanes: vec![strange], ..snapshot() }));
    assert!(text.contains(r#"es_inputs_total{component="a\"b\\c",lane="0"}"#), "{text}");
}

#[test]
fn no_two_samples_have_the_same_name_and_labels() {
    let mut all = BTreeSet::new();
    let text = render(families::of(&snapshot()));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, _) = line.rsplit_once(' ').unwrap();
        assert!(all.insert(name.to_owned()), "{name} is there twice");
    }
}

#[test]
fn a_running_application_is_measured() {
    let mut settings = Settings::new("bank");
    settings.broker = BrokerKind::Embedded;
    settings.threads = Threads::Count(1);
    let app = App::with_settings(settings).aggregate::<Account>();
    let running = app.start().unwrap();
    let embedded = running.embedded().unwrap();
    for n in 0..100 {
        let value = if n % 10 == 0 { r#"{"type":"Move","by":-1000}"# } else { r#"{"type":"Move","by":1}"# };
        embedded.produce("account-commands", &format!("acct-{}", n % 20), &[], value.as_bytes()).unwrap();
    }
    embedded.produce("account-commands", "acct-1", &[], b"no command").unwrap();
    let metrics = running.metrics();
    let shown = |line: &str| metrics.render().lines().any(|found| found == line);
    let wanted = [
        r#"es_commands_total{component="account",lane="0",result="accepted"} 90"#,
        r#"es_commands_total{component="account",lane="0",result="rejected"} 10"#,
        r#"es_dead_letters_total{component="account",lane="0",cause="undecodable"} 1"#,
        r#"es_committed_inputs_total{component="account",lane="0"} 101"#,
        r#"es_batch_inputs_sum{component="account",lane="0"} 101.0"#,
        r#"es_cache_requests_total{component="account",lane="0",result="miss"} 20"#,
        r#"es_rebalanced_tasks_total{component="account",lane="0",change="assigned"} 4"#,
        r#"es_tasks{component="account",lane="0",state="running"} 4"#,
        r#"es_task_lag_records{component="account",lane="0",partition="0"} 0"#,
        r#"es_task_lag_records{component="account",lane="0",partition="3"} 0"#,
        r#"es_group_member{component="account",lane="0"} 1"#,
    ];
    let seen = running.wait_until(LONG, |_| wanted.iter().all(|line| shown(line)));
    let missing: Vec<_> = wanted.iter().filter(|line| !shown(line)).collect();
    assert!(seen, "{missing:?} in\n{}", metrics.render());
    assert!(!shown("process_resident_memory_bytes 0"));
    running.stop().unwrap();
    assert!(shown(r#"es_lane_phase{component="account",lane="0",phase="stopped"} 1"#), "{}", metrics.render());
}

/// Dashboard and alerts ask for nothing that does not exist: names of metrics, and the values of labels that they name.
#[test]
fn dashboard_and_alerts_ask_for_what_there_is() {
    let dashboard: serde_json::Value = serde_json::from_str(include_str!("../../monitoring/grafana.json")).unwrap();
    let mut expressions = Vec::new();
    expressions_in(&dashboard, &mut expressions);
    assert!(expressions.len() >= 20, "{} expressions in the dashboard", expressions.len());
    let alerts = include_str!("../../monitoring/alerts.yaml");
    let in_alerts: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned).collect();
    assert_eq!(in_alerts.len(), alerts.matches("- alert: ").count(), "each alert has its expression in one line");
    expressions.extend(in_alerts);

    let text = render(families::of(&snapshot()));
    let names: BTreeSet<&str> = text.lines().filter(|l| !l.starts_with('#')).map(|l| l.split(['{', ' ']).next().unwrap()).collect();
    for expression in &expressions {
        let asked = metrics_in(expression);
        assert!(!asked.is_empty(), "`{expression}` asks for no metric");
        for name in asked {
            assert!(names.contains(name), "`{expression}` asks for `{name}`, which there is not");
        }
        for (label, value) in labels_in(expression) {
            assert!(text.contains(&format!("{label}=\"{value}\"")), "`{expression}` asks for {label}=\"{value}\", which there is not");
        }
    }
    let asked: BTreeSet<&str> = expressions.iter().flat_map(|expression| metrics_in(expression)).collect();
    for family in families::of(&snapshot()) {
        assert!(asked.iter().any(|name| name.starts_with(family.name)), "`{}` is on no panel", family.name);
    }
}

fn expressions_in(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == "expr" => found.push(text.to_owned()),
                    Some(text) if name == "query" && text.starts_with("label_values(") => found.push(text.to_owned()),
                    _ => expressions_in(value, found),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| expressions_in(value, found)),
        _ => {}
    }
}

fn metrics_in(expression: &str) -> Vec<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("es_") || word.starts_with("process_")).collect()
}

/// Labels that are asked for with `=` or `!=` and one value.
fn labels_in(expression: &str) -> Vec<(&str, &str)> {
    let matchers = expression.split(['{', '}', ',']);
    let read = |matcher: &'_ str| {
        let (label, value) = matcher.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        Some((label.trim_end_matches('!').trim().len(), value.len())).filter(|_| !value.contains('$'))
    };
    let both = |matcher| {
        let (label, value) = read(matcher)?;
        Some((&matcher[..label], &matcher[matcher.len() - value - 1..matcher.len() - 1]))
    };
    matchers.map(str::trim).filter_map(both).collect()
}
